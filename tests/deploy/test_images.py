"""The Dockerfile passes its linter, and what it installs is locked and holds no torch."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from scripts.lock_images import LOCKS, PLATFORMS, ROOT, requirements

DOCKERFILE = ROOT / "deploy" / "docker" / "Dockerfile"
SERVING = sorted(PLATFORMS)


def locked(name: str) -> dict[str, str]:
    """Versions by name."""
    text = (LOCKS / f"{name}.txt").read_text()
    return dict(re.findall(r"^([a-z0-9-]+)==(\S+) \\$", text, re.MULTILINE))


def constraints() -> dict[str, str]:
    """Versions of constraints.txt by name."""
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pairs = [line.split("==") for line in lines if "==" in line]
    return {canonicalize_name(name): version for name, version in pairs}


def stage(name: str) -> str:
    """The lines of a stage of the Dockerfile."""
    text = DOCKERFILE.read_text()
    found = re.search(rf"^FROM \S+ AS {name}$(.*?)(?=^FROM |\Z)", text, re.MULTILINE | re.DOTALL)
    assert found, f"the Dockerfile has no stage {name}"
    return found[1]


def test_hadolint_finds_nothing() -> None:
    command = [str(Path(sys.executable).parent / "hadolint"), str(DOCKERFILE)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


@pytest.mark.parametrize("target", SERVING)
def test_a_serving_image_locks_all_that_its_extra_asks_for(target: str) -> None:
    versions = locked(target)
    for text in requirements(target):
        requirement = Requirement(text)
        assert versions[canonicalize_name(requirement.name)] in requirement.specifier


@pytest.mark.parametrize("target", SERVING)
def test_a_serving_image_installs_what_was_tested(target: str) -> None:
    tested = constraints()
    differing = {
        name: version for name, version in locked(target).items() if tested.get(name) != version
    }
    assert [name for name in differing if not name.startswith(("nvidia-", "onnxruntime-gpu"))] == []


@pytest.mark.parametrize("target", SERVING)
def test_a_serving_image_locks_every_package_by_hash(target: str) -> None:
    text = (LOCKS / f"{target}.txt").read_text()
    entries = re.split(r"^(?=[a-z])", text, flags=re.MULTILINE)[1:]
    assert len(entries) == len(locked(target)) > 10
    assert all(re.search(r"--hash=sha256:[0-9a-f]{64}", entry) for entry in entries)
    assert f"{target}.txt" in stage(f"{target}-dependencies")
    assert "--require-hashes" in stage(f"{target}-dependencies")


@pytest.mark.parametrize("name", ["torch", "onnx", "scikit-learn", "matplotlib", "hatchling"])
@pytest.mark.parametrize("target", SERVING)
def test_a_serving_image_never_installs(target: str, name: str) -> None:
    assert name not in locked(target)


def test_the_gpu_image_brings_cuda_and_cudnn() -> None:
    assert {"nvidia-cublas", "nvidia-cuda-runtime", "nvidia-cudnn-cu13"} <= set(
        locked("service-gpu")
    )


def test_every_image_runs_as_a_number_that_is_not_root() -> None:
    assert re.search(r"^USER [1-9]\d*:[1-9]\d*$", stage("run"), re.MULTILINE)
    for target in ("service", "service-gpu", "training", "export"):
        assert f"FROM run AS {target}\n" in DOCKERFILE.read_text()
        assert "USER" not in stage(target)
        assert "RUN" not in stage(target)  # so that nothing but packages is added


def test_the_build_sees_nothing_but_what_is_named() -> None:
    lines = [
        line
        for line in (ROOT / ".dockerignore").read_text().splitlines()
        if not line.startswith("#")
    ]
    assert lines[0] == "*"
    copied = set(re.findall(r"^COPY (?!--from)(.*) \S+$", DOCKERFILE.read_text(), re.MULTILINE))
    sources = {source.split("/")[0] for line in copied for source in line.split()}
    assert {line[1:].split("/")[0] for line in lines if line.startswith("!")} == sources
