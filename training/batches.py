"""A training split on the device: one tensor of pixels, from which batches are drawn."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from training.data import Dataset
from training.distributed import own_rows
from training.model import Layout

_STEPS = 2**16
_ITEMS = 2**12  # are looked through at once


@dataclass(frozen=True)
class Batches:
    """Observations [N, C, H, W], uint8 if they are pixels, and labels [N] int64 or None."""

    observations: Tensor
    labels: Tensor | None
    maximum: int | None
    binary: bool

    def __len__(self) -> int:
        return len(self.observations)

    def order(self, seed: int, epoch: int) -> Tensor:
        """The indices of an epoch, shuffled by the seed and the epoch alone: [N] int64."""
        generator = torch.Generator().manual_seed((seed * 1_000_003 + epoch) % 2**63)
        return torch.randperm(len(self), generator=generator).to(self.observations.device)

    def draw(
        self, indices: Tensor, generator: torch.Generator, *, share: bool = True
    ) -> tuple[Tensor, Tensor | None]:
        """This process's share of the items `indices`, or all: float32 observations, and labels.

        Pixels are divided by `maximum`, or drawn black or white with that as the probability of
        white (Salakhutdinov & Murray 2008). The generator moves as if all items were drawn; no
        draw changes pixels that are all black or white, so none is made of them.
        """
        rows = own_rows if share else _all_rows
        chosen = rows(indices)
        labels = None if self.labels is None else self.labels.index_select(0, chosen)
        observations = self.observations.index_select(0, chosen)
        if self.binary and not self._has_grey:
            return observations.clamp_(max=1).float(), labels
        if self.binary:
            size = len(indices) * observations[0].numel()
            random = rows(_random16(size, generator).view(len(indices), -1))
            return self._binarized(observations, random), labels
        if self.maximum is None:
            return observations, labels
        return observations.float().mul_(1 / self.maximum), labels

    def _binarized(self, pixels: Tensor, random: Tensor) -> Tensor:
        """White where pixel / maximum is above `random`, uniform over 65536 steps; that is moved.

        16 bits cost an eighth of what floats do; a probability is off by less than 2^-16, and
        black and white stay what they are.
        """
        # A fourth of the time of table[pixels].
        thresholds = self._thresholds.index_select(0, pixels.flatten().int())
        # The largest threshold is above all but one number. Comparing int16 in place, and not to
        # bool, is what torch vectorizes.
        random = random.clamp_(max=_STEPS // 2 - 2).reshape(-1)
        return thresholds.gt_(random).float().view_as(pixels)

    @cached_property
    def _has_grey(self) -> bool:
        """Whether a pixel is neither black nor white; looks no further than that takes."""
        assert self.maximum is not None
        parts = torch.split(self.observations, _ITEMS)
        return any(bool(((part > 0) & (part < self.maximum)).any()) for part in parts)

    @cached_property
    def _thresholds(self) -> Tensor:
        """[maximum + 1] int16: how many of the 65536 numbers make a level white, less 32768."""
        assert self.maximum is not None
        device = self.observations.device
        levels = torch.arange(self.maximum + 1, device=device, dtype=torch.float64)
        # Half of the int16 numbers are negative; the last threshold would be one too large.
        thresholds = torch.round(levels / self.maximum * _STEPS).sub_(_STEPS // 2)
        return thresholds.clamp_(max=_STEPS // 2 - 1).to(torch.int16)


def layout_of(dataset: Dataset) -> Layout:
    """What a model has to know about a data set."""
    return Layout(dataset.observation_shape, dataset.label_count, dataset.maximum)


def training_batches(dataset: Dataset, held_out: int, binary: bool, device: str) -> Batches:
    """The training split but for its last `held_out` items, on the device."""
    count = len(dataset.train) - held_out
    labels = torch.from_numpy(np.require(dataset.train_labels[:count], requirements="W")).to(device)
    return Batches(
        torch.from_numpy(np.require(dataset.train[:count], requirements="W")).to(device),
        labels if dataset.label_count else None,
        dataset.maximum,
        binary,
    )


def _all_rows(values: Tensor) -> Tensor:
    return values


def _random16(count: int, generator: torch.Generator) -> Tensor:
    """[count] int16, uniform; four of each 64-bit draw."""
    words = torch.empty(-(-count // 4), dtype=torch.int64, device=generator.device)
    words.random_(-(2**63), None, generator=generator)  # all 64 bits: without bounds it is 63
    return words.view(torch.int16)[:count]
