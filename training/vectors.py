"""Parameters that lie one behind the other in one vector."""

from collections.abc import Collection

import torch
from torch import Tensor, nn

_ALIGNMENT = 16  # numbers: the 64 bytes that kernels of every kind like to begin at


def as_one(parameters: Collection[nn.Parameter]) -> Tensor:
    """The parameters as one vector, of which each is a view from now on."""
    sizes = [_aligned(parameter) for parameter in parameters]
    first = next(iter(parameters))
    vector = torch.zeros(sum(sizes), device=first.device, dtype=first.dtype)
    for parameter, part in zip(parameters, parts_of(vector, parameters), strict=True):
        part.copy_(parameter.detach())
        parameter.data = part
    return vector


def parts_of(vector: Tensor, parameters: Collection[nn.Parameter]) -> list[Tensor]:
    """Of a vector that `as_one` made, or one like it: the part of each parameter, a view."""
    split = torch.split(vector, [_aligned(parameter) for parameter in parameters])
    return [
        part[: parameter.numel()].view_as(parameter)
        for parameter, part in zip(parameters, split, strict=True)
    ]


def _aligned(parameter: nn.Parameter) -> int:
    return -(-parameter.numel() // _ALIGNMENT) * _ALIGNMENT
