import os
import subprocess
import sys

import pytest

_FAULTS = """
import resource, torch
from training.heap import keep_freed_memory
{}
def step():
    held = [torch.ones(2**20) for _ in range(8)]  # 4 MiB each
for _ in range(3):
    step()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(4):
    step()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(preparation: str) -> int:
    code = _FAULTS.format(preparation)
    # Which blocks glibc maps anew each time depends on what was freed before, unless it is told.
    environment = os.environ | {"MALLOC_MMAP_THRESHOLD_": "131072"}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment
    )
    return int(done.stdout)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="other heaps than glibc's")
def test_a_step_gets_the_pages_again_that_the_one_before_freed() -> None:
    """32768 pages are touched, of 4 KiB each; of huge ones, 64."""
    assert faults("assert keep_freed_memory()") < 32 < faults("")
