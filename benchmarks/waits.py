"""How long processes wait for a core while they have work, as the kernel counts it.

Each thread's nanoseconds are the second number of /proc/PID/task/TID/schedstat (sched-stats in the
kernel's documentation).
"""

import contextlib
import itertools
import os
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path


@contextlib.contextmanager
def waited(pid: int, proc: Path = Path("/proc")) -> Iterator[Callable[[], float]]:
    """Says what the threads that a process has now have waited, all together, in seconds.

    It keeps their files open: reading one again and again is cheap enough not to disturb what is
    measured. Raises ProcessLookupError once a thread has ended.
    """
    with contextlib.ExitStack() as files:
        threads = [
            files.enter_context((task / "schedstat").open("rb", buffering=0)).fileno()
            for task in (proc / str(pid) / "task").iterdir()
        ]
        yield lambda: sum(int(os.pread(thread, 64, 0).split()[1]) for thread in threads) / 1e9


def sample(
    waited: Sequence[Callable[[], float]], running: Callable[[], bool], interval: float
) -> list[tuple[float, ...]]:
    """Every interval seconds, until nothing is running: the time (time.perf_counter) and what each
    has waited until then."""
    samples = []
    while running():
        try:
            samples.append((time.perf_counter(), *(seconds() for seconds in waited)))
        except ProcessLookupError:
            break
        time.sleep(interval)
    return samples


def since(
    samples: Sequence[tuple[float, ...]], begin: float, least: float
) -> list[list[list[float]]]:
    """For each process the waits that lie behind `begin`: pairs of when they were over, in seconds
    from `begin`, and how long they took; those of less than `least` seconds are left out."""
    found: list[list[list[float]]] = [[] for _ in samples[0][1:]]
    for (_, *before), (now, *after) in itertools.pairwise(samples):
        if now < begin:
            continue
        for process, (one, other) in zip(found, zip(before, after, strict=True), strict=True):
            if other - one >= least:
                process.append([round(now - begin, 4), round(other - one, 6)])
    return found
