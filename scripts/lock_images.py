"""Writes deploy/docker/locks/: what the images install, by version and sha256.

pip resolves the extras of pyproject.toml under constraints.txt for each platform, and installs
nothing. Run it after a change of either; a test compares the versions.
"""

import json
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parent.parent
LOCKS = ROOT / "deploy" / "docker" / "locks"
PLATFORMS = {
    "service": ("x86_64", "aarch64"),
    "service-gpu": ("x86_64",),  # onnxruntime-gpu has no other wheel for Linux
}
_MORE = ("tracing",)  # extras that both have beside the one of their own name
_GLIBC = ("manylinux_2_28", "manylinux_2_27", "manylinux_2_17", "manylinux2014")


def main() -> int:
    """Writes one file for each image that serves."""
    LOCKS.mkdir(exist_ok=True)
    build = _project()["build-system"]["requires"]
    _write("build", _resolved(build, "x86_64"))  # pure Python: the same everywhere
    for target, machines in PLATFORMS.items():
        needed = sorted(set(requirements(target)))
        hashes: dict[tuple[str, str], set[str]] = {}
        for machine in machines:
            for package, found in _resolved(needed, machine).items():
                hashes.setdefault(package, set()).update(found)
        _write(target, hashes)
    return 0


def requirements(target: str) -> Iterator[str]:
    """What an image asks for: the extras of pyproject.toml, with those that they name."""
    project = _project()["project"]
    yield from project["dependencies"]
    waiting = [target, *_MORE]
    while waiting:
        for text in project["optional-dependencies"][waiting.pop()]:
            requirement = Requirement(text)
            if requirement.name == project["name"]:
                waiting += requirement.extras
            else:
                yield text


def _project() -> dict[str, Any]:
    with (ROOT / "pyproject.toml").open("rb") as file:
        return tomllib.load(file)


def _resolved(needed: list[str], machine: str) -> dict[tuple[str, str], set[str]]:
    """The sha256 of each wheel by name and version."""
    platforms = [option for glibc in _GLIBC for option in ("--platform", f"{glibc}_{machine}")]
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--dry-run", "--report", "-"]
    command += ["--target", "unused", "--only-binary", ":all:", "--python-version", "3.11"]
    command += ["--constraint", str(ROOT / "constraints.txt"), *platforms, *needed]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True)
    return {
        (canonicalize_name(item["metadata"]["name"]), item["metadata"]["version"]): {
            item["download_info"]["archive_info"]["hashes"]["sha256"]
        }
        for item in json.loads(done.stdout)["install"]
    }


def _write(name: str, hashes: dict[tuple[str, str], set[str]]) -> None:
    lines = [f"# Written by scripts/lock_images.py for the target {name}."]
    for (package, version), found in sorted(hashes.items()):
        lines.append(" \\\n    ".join([f"{package}=={version}", *_options(found)]))
    (LOCKS / f"{name}.txt").write_text("\n".join(lines) + "\n")


def _options(hashes: set[str]) -> list[str]:
    return [f"--hash=sha256:{value}" for value in sorted(hashes)]


if __name__ == "__main__":
    sys.exit(main())
