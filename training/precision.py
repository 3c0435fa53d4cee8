"""What `precision` means where: the numbers in which a step's products are computed."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Literal

import torch

Precision = Literal["float32", "bfloat16"]
Setting = Literal["auto", "float32", "bfloat16"]


def precision_for(setting: Setting, device: str) -> Precision:
    """What a setting is on a device: "auto" is bfloat16 on a CPU with instructions for it."""
    if setting != "auto":
        return setting
    instructions = torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported()
    return "bfloat16" if device == "cpu" and instructions else "float32"


def mixed(precision: Precision, device: str) -> AbstractContextManager[None]:
    """For a loss: torch.autocast, if the precision is bfloat16."""
    return torch.autocast(device, torch.bfloat16, enabled=precision == "bfloat16")


def rounded_products(precision: Precision) -> AbstractContextManager[None]:
    """For a loss and its gradient: float32 products on a CPU, if the precision is bfloat16.

    oneDNN rounds what is multiplied to bfloat16 and adds up in float32, as GPUs do with TF32.
    Everything between products stays float32, and nothing has to be cast.
    """
    return _products("bf16") if precision == "bfloat16" else nullcontext()


@contextmanager
def exact(device: str) -> Iterator[None]:
    """Within both: float32 whatever the precision."""
    with torch.autocast(device, enabled=False), _products("ieee"):
        yield


@contextmanager
def _products(kind: str) -> Iterator[None]:
    products = torch.backends.mkldnn.matmul  # type: ignore[attr-defined]
    before, products.fp32_precision = products.fp32_precision, kind
    try:
        yield
    finally:
        products.fp32_precision = before
