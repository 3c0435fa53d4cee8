"""A data set in memory: one array of observations for each split, and what is known of them."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from training.data.density import LinearGaussian

Split = Literal["train", "test"]
Observations = NDArray[np.uint8] | NDArray[np.float32]


@dataclass(frozen=True)
class Factors:
    """What the observations were drawn from: indices [N, F] int64 for both splits.

    Factor f is called `names[f]` and takes the values 0..`sizes[f]` - 1.
    """

    names: tuple[str, ...]
    sizes: tuple[int, ...]
    train: NDArray[np.int64]
    test: NDArray[np.int64]


@dataclass(frozen=True)
class Dataset:
    """Observations [N, C, H, W] and labels [N] int64, for both splits.

    Observations are of one of two kinds, which `maximum` tells apart: uint8 pixels in 0..maximum,
    which stay uint8 until a batch is divided by `maximum`; or, if it is None, float32 numbers of
    any range, taken as they are. Both splits are of the same kind.

    Label k is called `label_names[k]`; without names the labels mean nothing and are all zero.
    `factors` and `density`, the exact density that the observations were drawn from, are there
    for sets that are drawn and not read.
    """

    name: str
    train: Observations
    test: Observations
    train_labels: NDArray[np.int64]
    test_labels: NDArray[np.int64]
    maximum: int | None
    label_names: tuple[str, ...] = ()
    factors: Factors | None = None
    density: LinearGaussian | None = None

    @property
    def observation_shape(self) -> tuple[int, int, int]:
        """(C, H, W)."""
        channels, height, width = self.train.shape[1:]
        return channels, height, width

    @property
    def label_count(self) -> int | None:
        """How many labels there are; None if the set has none."""
        return len(self.label_names) or None

    @property
    def log_likelihood(self) -> float | None:
        """The exact mean of ln p(x) over the test split, nats per item; None if not known."""
        if self.density is None:
            return None
        return float(self.density.log_likelihood(self.test).mean())

    def observations(self, split: Split) -> NDArray[np.float32]:
        """[N, C, H, W] float32: pixels divided by `maximum` to [0, 1], floats as they are."""
        observations = self.train if split == "train" else self.test
        if self.maximum is None:
            return observations.astype(np.float32, copy=False)
        return observations.astype(np.float32) / np.float32(self.maximum)

    def head(self, train_limit: int | None, test_limit: int | None) -> "Dataset":
        """The first items of each split; None takes all."""
        factors = self.factors
        if factors is not None:
            factors = replace(
                factors, train=factors.train[:train_limit], test=factors.test[:test_limit]
            )
        return replace(
            self,
            train=self.train[:train_limit],
            test=self.test[:test_limit],
            train_labels=self.train_labels[:train_limit],
            test_labels=self.test_labels[:test_limit],
            factors=factors,
        )

    def sha256(self) -> str:
        """Digest over shapes, observations, labels and factors, in hexadecimal."""
        digest = hashlib.sha256()
        for array in self._arrays():
            digest.update(repr((array.dtype.str, array.shape)).encode())
            digest.update(np.ascontiguousarray(array).data)
        return digest.hexdigest()

    def _arrays(self) -> Iterator[NDArray[np.generic]]:
        yield from (self.train, self.test, self.train_labels, self.test_labels)
        if self.factors is not None:
            yield from (self.factors.train, self.factors.test)
