"""Which items to train on where a set does not say: a seeded draw."""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from training.errors import TrainingError

# What the folder or the files for testing may be called; the first that is there is taken.
TEST_NAMES = ("test", "val", "validation")
_TEST_SHARE = 10


@dataclass(frozen=True)
class Part:
    """Pixels [N, C, H, W] uint8; labels [N] and the labels' names where the files have them."""

    pixels: NDArray[np.uint8]
    labels: NDArray[np.int64] | None
    names: tuple[str, ...] = ()

    def take(self, indices: NDArray[np.int64]) -> "Part":
        """The items at these places."""
        labels = None if self.labels is None else self.labels[indices]
        return replace(self, pixels=self.pixels[indices], labels=labels)


def split_indices(count: int, seed: int, what: str) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Indices of train and test, both in random order; every tenth item, at least one, is tested.

    They are a function of `count` and `seed`. Raises TrainingError for fewer than 2 items.
    """
    if count < 2:
        raise TrainingError(f"{what} holds {count} images; a split needs at least 2")
    order = np.random.default_rng(seed).permutation(count)
    test_count = max(1, count // _TEST_SHARE)
    return order[test_count:], order[:test_count]
