"""How much of a codebook a whole set of items uses."""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class CodeUsage:
    """used: codes that occur at all, of `size`.

    perplexity: exp of the entropy of the codes' frequencies; `size` if all are equally frequent.
    """

    used: int
    size: int
    perplexity: float


def code_usage(indices: Iterable[Tensor], size: int) -> CodeUsage:
    """Usage over batches of indices, any shape, in 0..size - 1.

    Counts are added up first: a perplexity that is averaged over batches depends on their size.
    Raises ValueError if there are no indices, or one is outside.
    """
    counts = torch.zeros(size, dtype=torch.int64)
    for batch in indices:
        if batch.numel() and not 0 <= int(batch.min()) <= int(batch.max()) < size:
            raise ValueError(f"an index is outside 0..{size - 1}")
        counts += torch.bincount(batch.flatten().cpu(), minlength=size)
    if not counts.any():
        raise ValueError("no codes to count")
    shares = counts[counts > 0].double() / counts.sum()
    perplexity = torch.exp(-(shares * shares.log()).sum()).item()
    return CodeUsage(int((counts > 0).sum()), size, perplexity)
