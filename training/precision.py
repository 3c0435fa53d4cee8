"""What `precision` means where: in which numbers a step's products are computed."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import torch

Precision = Literal["float32", "bfloat16"]


@contextmanager
def mixed(precision: Precision, device: str) -> Iterator[None]:
    """For a loss: torch.autocast, if the precision is bfloat16."""
    with torch.autocast(device, torch.bfloat16, enabled=precision == "bfloat16"):
        yield


@contextmanager
def rounded_products(precision: Precision) -> Iterator[None]:
    """For a loss and its gradient: float32 products on a CPU, if the precision is bfloat16.

    oneDNN rounds what is multiplied to bfloat16 and adds up in float32, as it does with TF32 on a
    GPU. Everything between products stays float32, and nothing has to be cast.
    """
    if precision == "float32":
        yield
        return
    products = torch.backends.mkldnn.matmul  # type: ignore[attr-defined]
    before, products.fp32_precision = products.fp32_precision, "bf16"
    try:
        yield
    finally:
        products.fp32_precision = before
