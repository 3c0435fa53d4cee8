"""How long processes wait for a core while they have work, as the kernel counts it.

Each thread's nanoseconds are the second number of /proc/PID/task/TID/schedstat (sched-stats in the
kernel's documentation).
"""

import itertools
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType


class Waited:
    """What the threads that a process has now have waited; a context manager, since it keeps files
    open: reading one again and again is cheap enough not to disturb what is measured."""

    def __init__(self, pid: int, proc: Path = Path("/proc")) -> None:
        tasks = sorted((proc / str(pid) / "task").iterdir())
        self._files = [os.open(task / "schedstat", os.O_RDONLY) for task in tasks]

    def __enter__(self) -> "Waited":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for file in self._files:
            os.close(file)

    def seconds(self) -> float:
        """All together. Raises ProcessLookupError once a thread has ended."""
        return sum(int(os.pread(file, 64, 0).split()[1]) for file in self._files) / 1e9


def sample(
    waited: Sequence[Waited], running: Callable[[], bool], interval: float
) -> list[tuple[float, ...]]:
    """Every interval seconds, until nothing is running: the time (time.perf_counter) and what each
    has waited until then."""
    samples = []
    while running():
        try:
            samples.append((time.perf_counter(), *(each.seconds() for each in waited)))
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
