"""Data parallel fits over torch.distributed, as `torchrun` starts them.

Every process draws the noise of the whole batch and takes its own rows, and gradients and sums are
added up, so that a fit in many processes is that of one process up to rounding.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.distributed as dist
from torch import Tensor


def process_count() -> int:
    """How many processes take part; 1 without torch.distributed."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def process_index() -> int:
    """Which of them this is; the first one, 0, does all input and output."""
    return dist.get_rank() if process_count() > 1 else 0


@contextmanager
def processes(cuda: bool = False) -> Iterator[None]:
    """Join the processes that `torchrun` started, over NCCL or gloo; nothing without torchrun."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield
        return
    if cuda:
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    dist.init_process_group("nccl" if cuda else "gloo")
    try:
        yield
    finally:
        dist.destroy_process_group()


def add_over_processes(values: Tensor) -> Tensor:
    """`values` summed over processes, in place."""
    if process_count() > 1:
        dist.all_reduce(values)
    return values


def mean_over_processes(values: Tensor) -> Tensor:
    """`values` averaged over processes, in place; for means over equal shares of a batch."""
    if process_count() > 1:
        dist.all_reduce(values)
        values /= process_count()
    return values


def first_process_says(value: int, device: str) -> int:
    """The value that the first process has, in all of them."""
    mine = int(value) if process_index() == 0 else 0
    return int(add_over_processes(torch.tensor(mine, device=device)))


def own_rows(values: Tensor) -> Tensor:
    """The rows of this process: every process_count-th."""
    return values if process_count() == 1 else values[process_index() :: process_count()]
