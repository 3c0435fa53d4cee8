"""Short loads, and a process that survives a generator without garbage collection."""

import gc
import os
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest

from benchmarks.load import Load


@pytest.fixture
def short() -> Iterator[Callable[[Load], Load]]:
    """A load as a short one that watches this very process. Turns garbage collection, which a
    generator's process does without, on again."""
    yield lambda load: replace(load, warmup=0.05, duration=0.2, watch=os.getpid())
    gc.unfreeze()
    gc.enable()
