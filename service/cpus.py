"""How many CPUs this process may use, which is not how many the machine has."""

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path


def cpu_quota(root: Path = Path("/")) -> int:
    """CPUs that this process may use: the affinity, cut by the quotas of its cgroups; at least 1.

    Of either version, in a container or not: each quota on the way up counts. onnxruntime counts
    the host's cores by itself and would oversubscribe a limited container. Files are read below
    `root`.
    """
    cpus = len(os.sched_getaffinity(0))
    for folder in _cgroups(root):
        with suppress(OSError, ValueError):  # no file: no quota here; ValueError: it is "max"
            quota, period = _quota(folder)
            if quota > 0:  # version 1 says -1 for none
                cpus = min(cpus, quota // period)
    return max(cpus, 1)


def _cgroups(root: Path) -> Iterator[Path]:
    """The folders of this process's cgroups that may have a quota, and of those above them.

    The path in /proc is the host's where a container has no cgroup namespace, and is not there
    then; what is mounted in the container is its own.
    """
    mounts = root / "sys/fs/cgroup"
    memberships = ["0::/"]
    with suppress(OSError):
        memberships = (root / "proc/self/cgroup").read_text().splitlines()
    for membership in memberships:
        _, controllers, path = membership.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        mount = folder = mounts / controllers  # version 2 names none, and is mounted at the top
        yield mount
        for name in Path(path).parts[1:]:
            folder = folder / name
            yield folder


def _quota(folder: Path) -> tuple[int, int]:
    """Microseconds of CPU in each so many microseconds, of version 2 or else of version 1."""
    both = folder / "cpu.max"
    if both.exists():
        quota, period = both.read_text().split()
    else:
        quota = (folder / "cpu.cfs_quota_us").read_text()
        period = (folder / "cpu.cfs_period_us").read_text()
    return int(quota), int(period)
