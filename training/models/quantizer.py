"""Vector quantization (van den Oord et al. 2017) with a codebook of moving averages."""

from collections.abc import Callable
from contextlib import nullcontext
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from training.distributed import add_over_processes, process_count, process_index
from training.precision import exact

_SMOOTHING = 1e-5


class Quantized(NamedTuple):
    """codes: [N, h, w] int64. values: [N, D, h, w], the codes' vectors, whose gradient goes to the
    input (straight through). distance: [N], the mean squared distance of input and code."""

    codes: Tensor
    values: Tensor
    distance: Tensor


class Quantizer(nn.Module):
    """The nearest of `size` vectors for each position, in float32 whatever the precision.

    In train mode each call moves the codebook: counts and sums of the vectors of each code decay by
    `decay`, and a code is their quotient. The first batch gives the codes, and a code whose count
    falls below `least` times its share of the first is dead: a vector of the batch takes its place,
    and its count and sum start anew with it. `noise` decides which. `add_up` sums over processes in
    place.
    """

    def __init__(
        self,
        size: int,
        dims: int,
        decay: float = 0.99,
        least: float = 0.03,
        add_up: Callable[[Tensor], Tensor] = add_over_processes,
    ) -> None:
        super().__init__()
        self.size = size
        self.decay = decay
        self.least = least
        self.add_up = add_up
        self.codebook: Tensor
        self.counts: Tensor
        self.sums: Tensor
        self.started: Tensor
        self.register_buffer("codebook", torch.zeros(size, dims))
        self.register_buffer("counts", torch.zeros(size))
        self.register_buffer("sums", torch.zeros(size, dims))
        self.register_buffer("started", torch.tensor(0.0))

    def forward(self, inputs: Tensor, noise: Tensor) -> Quantized:
        """[N, D, h, w], and noise with one number for each position: [N, h, w]."""
        inputs = inputs.float()
        grid = inputs.permute(0, 2, 3, 1)
        vectors = grid.detach().flatten(0, 2)
        with exact(inputs.device.type) if self.training else nullcontext():
            if self.training and not self.started:
                self._start(self._candidates(vectors, noise))
            codes = self.nearest(grid.detach())
            values = self.lookup(codes)
            if self.training:
                self._move(vectors, codes.flatten(), noise)
        distance = (inputs - values).square().flatten(1).mean(1)
        return Quantized(codes, inputs + (values - inputs).detach(), distance)

    def nearest(self, grid: Tensor) -> Tensor:
        """[..., D] -> the codes [...] int64 of the smallest Euclidean distance."""
        scores = grid.float() @ self.codebook.T - 0.5 * self.codebook.square().sum(1)
        return scores.argmax(-1)

    def lookup(self, codes: Tensor) -> Tensor:
        """[N, h, w] int64 -> their vectors [N, D, h, w]."""
        return F.embedding(codes, self.codebook).permute(0, 3, 1, 2)

    @torch.no_grad()
    def _start(self, candidates: Tensor) -> None:
        self.codebook.copy_(candidates)
        self.sums.copy_(candidates)
        self.counts.fill_(1.0)
        self.started.fill_(1.0)

    @torch.no_grad()
    def _move(self, vectors: Tensor, codes: Tensor, noise: Tensor) -> None:
        chosen = F.one_hot(codes, self.size).to(vectors.dtype)
        counts, sums = self.add_up(chosen.sum(0)), self.add_up(chosen.T @ vectors)
        self.counts.lerp_(counts, 1 - self.decay)
        self.sums.lerp_(sums, 1 - self.decay)
        total = self.counts.sum()
        smooth = (self.counts + _SMOOTHING) / (total + self.size * _SMOOTHING) * total
        self.codebook.copy_(self.sums / smooth[:, None])
        average = total / self.size
        dead = self.counts < self.least * average
        candidates = self._candidates(vectors, noise)
        for values, fresh in (
            (self.codebook, candidates),
            (self.sums, candidates * average),
            (self.counts[:, None], average.expand(self.size, 1)),
        ):
            values.copy_(torch.where(dead[:, None], fresh, values))

    def _candidates(self, vectors: Tensor, noise: Tensor) -> Tensor:
        """A vector of the batch for each code, [size, D]: in turn from each process."""
        order = noise.flatten().argsort(stable=True)
        numbers = torch.arange(self.size, device=vectors.device)
        own = numbers % process_count() == process_index()
        return self.add_up(vectors[order[numbers % len(order)]] * own[:, None])
