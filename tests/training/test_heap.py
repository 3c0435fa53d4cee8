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


_HUGE = """
import ctypes, re, torch
from pathlib import Path
from training.heap import keep_freed_memory, use_huge_pages
def heap():
    text = Path("/proc/self/smaps").read_text()
    start, end = re.search(r"^(\\w+)-(\\w+) .*\\[heap\\]$", text, re.M).groups()
    rest = text[text.index("[heap]"):]
    huge = int(re.search(r"AnonHugePages: *(\\d+)", rest)[1])
    return int(start, 16), int(end, 16), huge, "hg" in re.search(r"VmFlags: (.*)", rest)[1].split()
keep_freed_memory()
before = torch.ones(2**23)  # 32 MiB
if use_huge_pages():
    huge = heap()[2]
    after = torch.empty(2**26)
    start, end, _, advised = heap()
    print(huge, advised, start <= after.data_ptr() < end - after.nbytes)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="no madvise")
def test_what_is_on_the_heap_and_what_comes_is_on_huge_pages() -> None:
    done = subprocess.run([sys.executable, "-c", _HUGE], capture_output=True, text=True, check=True)
    if not done.stdout:
        pytest.skip("this kernel has no huge pages to give")
    huge, *rest = done.stdout.split()
    assert int(huge) >= 30 * 2**10  # KiB
    assert rest == ["True", "True"]
