"""CPU time and memory of a process and its descendants, from /proc (proc(5)).

A server may be several processes: Triton's Python backend is a child of tritonserver.
"""

import os
import threading
import time
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

_TICKS = os.sysconf("SC_CLK_TCK")


def family(pid: int, proc: Path = Path("/proc")) -> list[int]:
    """pid and its living descendants. Raises ProcessLookupError if pid has ended."""
    parents: dict[int, int] = {}
    for folder in proc.iterdir():
        if folder.name.isdigit() and (fields := _stat(folder)) is not None:
            parents[int(folder.name)] = int(fields[1])
    if pid not in parents:
        raise ProcessLookupError(f"process {pid} has ended")
    members = [pid]
    for member in members:  # grows while it is read: children of children
        members += [child for child, parent in parents.items() if parent == member]
    return members


def cpu_seconds(pids: Sequence[int], proc: Path = Path("/proc")) -> float:
    """CPU time of living processes; the kernel counts in ticks, mostly of 10 ms."""
    total = 0
    for pid in pids:
        if (fields := _stat(proc / str(pid))) is None:
            raise ProcessLookupError(f"process {pid} has ended")
        total += int(fields[11]) + int(fields[12])
    return total / _TICKS


def resident_bytes(pids: Sequence[int], proc: Path = Path("/proc")) -> int:
    """Resident memory of living processes, as the proportional set size: what several of them
    share counts once."""
    kilobytes = 0
    for pid in pids:
        for line in (proc / str(pid) / "smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                kilobytes += int(line.split()[1])
    return kilobytes * 1024


class CpuSampler:
    """Notes the CPU time of a process and its descendants every `interval` seconds in a thread."""

    def __init__(self, pid: int, interval: float = 0.05) -> None:
        self._pids = family(pid)
        self._interval = interval
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)
        self._samples: list[tuple[int, float]] = []

    def __enter__(self) -> "CpuSampler":
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stop.set()
        self._thread.join()

    def _sample(self) -> None:
        while not self._stop.wait(self._interval):
            self._samples.append((time.time_ns(), cpu_seconds(self._pids)))

    def seconds_per_request(self, ends: Sequence[int]) -> float | None:
        """CPU seconds for each of the requests that ended at `ends`, ascending time.time_ns."""
        return cost_per_event(self._samples, ends)


def cost_per_event(samples: Sequence[tuple[int, float]], events: Sequence[int]) -> float | None:
    """The growth of a counter for each event, between the first and the last sample that lie among
    the events; None if fewer than two do. `samples` are (time, counter) and, like `events`,
    ascending."""
    if not events:
        return None
    inside = [sample for sample in samples if events[0] <= sample[0] <= events[-1]]
    if len(inside) < 2:
        return None
    (begin, before), (end, after) = inside[0], inside[-1]
    count = bisect_right(events, end) - bisect_left(events, begin)
    return (after - before) / count if count else None


def _stat(folder: Path) -> list[str] | None:
    """The fields of /proc/PID/stat from the state on: [1] is the parent, [11] and [12] the user
    and system time; None if the process has ended."""
    try:
        return (folder / "stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
