"""PixelCNNs as if fitted: a fresh one does not heed its condition."""

from typing import TypeVar

from torch import nn

Module = TypeVar("Module", bound=nn.Module)


def heeding(module: Module) -> Module:
    """The module itself, with weights for the conditions of all PixelCNNs in it."""
    for name, weights in module.named_parameters():
        if name.endswith("condition.weight"):
            nn.init.normal_(weights)
    return module
