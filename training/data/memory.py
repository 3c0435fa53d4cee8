"""Whether a data set fits in memory, where it stays as one array from first to last step."""

import os
from contextlib import suppress
from pathlib import Path

from training.errors import TrainingError

_GIB = 2**30


def require_memory(needed: int, what: str) -> None:
    """Raise TrainingError if `what` needs more bytes than are available.

    Where the operating system does not say how many are, nothing is refused.
    """
    available = available_memory()
    if available is not None and needed > available:
        raise TrainingError(
            f"{what} needs {needed / _GIB:.2f} GiB of memory and {available / _GIB:.2f} GiB are "
            "available; set data.train_limit, data.test_limit or a smaller data.image_size"
        )


def available_memory(root: Path = Path("/")) -> int | None:
    """Bytes that can be allocated without swapping; None if the system does not say.

    The smaller of what Linux calls MemAvailable and what the limit of a container (cgroup v2)
    leaves; elsewhere, all physical memory. Linux's files are read below `root`.
    """
    known = [n for n in (_linux(root), _container(root)) if n is not None]
    if known:
        return max(0, min(known))
    with suppress(AttributeError, ValueError, OSError):  # Windows has no sysconf
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return None


def _linux(root: Path) -> int | None:
    with suppress(OSError, KeyError, ValueError):
        return int(_fields(root / "proc/meminfo")["MemAvailable:"]) * 1024
    return None


def _container(root: Path) -> int | None:
    folder = root / "sys/fs/cgroup"
    with suppress(OSError, KeyError, ValueError):  # ValueError: the limit is "max"
        limit = int((folder / "memory.max").read_text())
        used = int((folder / "memory.current").read_text())
        reclaimable = int(_fields(folder / "memory.stat")["inactive_file"])
        return limit - used + reclaimable
    return None


def _fields(path: Path) -> dict[str, str]:
    """The first two words of each line."""
    lines = (line.split() for line in path.read_text().splitlines())
    return {words[0]: words[1] for words in lines if len(words) >= 2}
