"""A codebook that follows its vectors (van den Oord et al. 2017, appendix A.1)."""

import torch
from torch import Tensor, nn

from training.distributed import add_over_processes, process_index

_SMOOTHING = 1e-5  # of the counts, as a Laplace prior


class Quantizer(nn.Module):
    """The nearest of K vectors. In training mode each batch moves the codebook towards it.

    Counts and sums of the vectors of each code decay by `decay` a batch; a code whose count falls
    below `least` starts again at a vector of the batch, and so do all codes at the first batch.
    Which vectors decides the noise that comes in. Sums go over all processes, and everything is
    float32 whatever autocast says.
    """

    codebook: Tensor
    counts: Tensor
    sums: Tensor

    def __init__(self, codes: int, size: int, decay: float = 0.99, least: float = 0.5) -> None:
        super().__init__()
        self.decay = decay
        self.least = least
        self.register_buffer("codebook", torch.zeros(codes, size))
        self.register_buffer("counts", torch.zeros(codes))
        self.register_buffer("sums", torch.zeros(codes, size))

    def forward(self, vectors: Tensor, noise: Tensor) -> Tensor:
        """vectors [M, D] -> codes [M] int64. noise: [M] or more values, for training mode only."""
        vectors = vectors.detach().float()
        if not self.training:
            return self.nearest(vectors)
        self._revive(vectors, noise)
        codes = self.nearest(vectors)
        self._follow(vectors, codes)
        return codes

    def nearest(self, vectors: Tensor) -> Tensor:
        """[M, D] -> [M] int64; the first of equally near ones."""
        squares = self.codebook.square().sum(1)
        return (squares - 2 * vectors @ self.codebook.t()).argmin(1)

    def look_up(self, codes: Tensor) -> Tensor:
        """[...] int64 -> [..., D]."""
        return self.codebook[codes]

    @torch.no_grad()
    def _revive(self, vectors: Tensor, noise: Tensor) -> None:
        dead = self.counts < self.least
        if not bool(dead.any()):
            return
        count = len(self.codebook)
        order = noise.flatten()[: len(vectors)].argsort()
        chosen = vectors[order.repeat(-(-count // len(order)))[:count]]
        if process_index() > 0:
            chosen = torch.zeros_like(chosen)  # the first process chooses for all
        chosen = add_over_processes(chosen.clone())
        self.codebook.copy_(torch.where(dead[:, None], chosen, self.codebook))
        self.sums.copy_(torch.where(dead[:, None], chosen, self.sums))
        self.counts.copy_(torch.where(dead, torch.ones_like(self.counts), self.counts))

    @torch.no_grad()
    def _follow(self, vectors: Tensor, codes: Tensor) -> None:
        counts = torch.zeros_like(self.counts).index_add_(0, codes, vectors.new_ones(len(codes)))
        sums = torch.zeros_like(self.sums).index_add_(0, codes, vectors)
        self.counts.mul_(self.decay).add_(add_over_processes(counts), alpha=1 - self.decay)
        self.sums.mul_(self.decay).add_(add_over_processes(sums), alpha=1 - self.decay)
        total = self.counts.sum()
        smoothed = (self.counts + _SMOOTHING) / (total + len(self.counts) * _SMOOTHING) * total
        self.codebook.copy_(self.sums / smoothed[:, None])
