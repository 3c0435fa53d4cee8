"""What a number depends on beside the code: machine, versions, commit."""

import contextlib
import os
import platform
import subprocess
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from benchmarks import peers

_PACKAGES = ("grpcio", "numpy", "onnxruntime", "protobuf", "uvloop")


def describe_machine() -> dict[str, str | int | float]:
    """Processor, cores that this process may use, memory, kernel, and how busy others keep it."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(memory / 2**30, 1),
        "system": platform.platform(),
        "load_average_at_start": os.getloadavg()[0],
    }


def describe_versions() -> dict[str, str]:
    """The project's libraries and the peers."""
    found = installed(_PACKAGES)
    found["triton"] = f"2.51.0 ({peers.TRITON}, Python backend, {peers.BACKEND_NUMPY})"
    found["perf_analyzer"] = f"2.41.0 ({peers.PERF_ANALYZER})"
    return found


def installed(packages: Iterable[str]) -> dict[str, str]:
    """The versions of Python and of those packages that are there."""
    found = {"python": platform.python_version()}
    for package in packages:
        with contextlib.suppress(PackageNotFoundError):
            found[package] = version(package)
    return found


def describe_commit() -> dict[str, str | bool]:
    """The commit, and whether the working tree differs from it."""
    return {"commit": _git("rev-parse", "HEAD"), "modified": bool(_git("status", "--porcelain"))}


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or "unknown"


def _git(*arguments: str) -> str:
    try:
        result = subprocess.run(  # noqa: S603
            ["git", *arguments],  # noqa: S607
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
            check=False,
        )
    except FileNotFoundError:  # no git, as on a machine that only got the files
        return "unknown"
    return result.stdout.strip() if result.returncode == 0 else "unknown"
