"""How much memory a container takes, of what its cgroup may: for `scripts.pipeline_smoke`."""

import contextlib
import re
import subprocess
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Self

_CGROUPS = Path("/sys/fs/cgroup")
_UNITS = {"": 1, "k": 10**3, "M": 10**6, "G": 10**9, "Ki": 2**10, "Mi": 2**20, "Gi": 2**30}
# What the kernel cannot take back: files that were read are not in it. Of cgroups v1, and v2.
_HELD = (("total_rss", "total_shmem"), ("anon", "shmem"))
_INTERVAL = 0.05  # seconds between two looks


def quantity(text: str) -> int:
    """Bytes of Kubernetes' "512Mi". Raises ValueError for what is none."""
    found = re.fullmatch(r"(\d+)(\w*)", text)
    if not found or found[2] not in _UNITS:
        raise ValueError(f"not a quantity of memory: {text}")
    return int(found[1]) * _UNITS[found[2]]


def cgroup(text: str, root: Path = _CGROUPS) -> Path:
    """The folder of the memory controller for a process whose /proc/PID/cgroup says text.

    Raises ValueError if it has none.
    """
    entries = [line.split(":", 2) for line in text.splitlines()]
    for _, controllers, path in entries:
        if "memory" in controllers.split(","):
            return root / "memory" / path.lstrip("/")
    for _, controllers, path in entries:
        if not controllers:
            return root / path.lstrip("/")
    raise ValueError("no cgroup of memory")


def held(text: str) -> int:
    """Bytes that a cgroup holds and that cannot be taken back, by its memory.stat."""
    values = {name: int(value) for name, value in (line.split() for line in text.splitlines())}
    names = next(names for names in _HELD if values.keys() >= set(names))
    return sum(values[name] for name in names)


class Peak:
    """Looks again and again at what a container holds: `held`, bytes, is the most that was seen."""

    def __init__(self, podman: Sequence[str], name: str) -> None:
        """podman: the command and its options, up to its own commands. name: the container's."""
        self.held = 0
        self._inspect = [*podman, "inspect", "--format", "{{.State.Pid}}", name]
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._look)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _look(self) -> None:
        folder = None
        while not self._ended.wait(_INTERVAL):
            with contextlib.suppress(OSError):  # of what has just ended
                if folder is None:
                    folder = self._find()
                else:
                    self.held = max(self.held, held((folder / "memory.stat").read_text()))

    def _find(self) -> Path | None:
        done = subprocess.run(self._inspect, capture_output=True, text=True, check=False)
        process = done.stdout.strip()
        if process in ("", "0"):  # there is no such container yet, or it does not run yet
            return None
        return cgroup(Path("/proc", process, "cgroup").read_text())
