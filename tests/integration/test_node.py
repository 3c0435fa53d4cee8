"""The example client for Node, against a real service. Needs node, npm, and once npm's registry."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from scripts.launch import ServiceProcess
from vae_client import VaeClient

pytestmark = pytest.mark.slow
EXAMPLE = Path(__file__).parents[2] / "examples" / "node"


@pytest.fixture(scope="module")
def example(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The example beside a copy of protos/, with what it needs."""
    root = tmp_path_factory.mktemp("node")
    shutil.copytree(EXAMPLE.parents[1] / "protos", root / "protos")
    folder = root / "examples" / "node"
    shutil.copytree(EXAMPLE, folder, ignore=shutil.ignore_patterns("node_modules"))
    subprocess.run(["npm", "ci", "--ignore-scripts"], cwd=folder, check=True, timeout=110)
    return folder


def run(example: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        ["node", "client.mjs", *arguments],
        cwd=example,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_node_draws_and_decodes_what_python_does(
    example: Path, service: ServiceProcess, client: VaeClient
) -> None:
    done = run(example, service.target, "digits", "3")
    drawn = client.sample("digits", 3, seed=7, include_latents=True)

    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert said["model"] == drawn.model
    assert said["seed"] == "7"
    assert said["observations"] == list(drawn.observations.shape)
    assert drawn.latents is not None
    assert said["latents"] == list(drawn.latents.shape)
    assert said["firstLatent"] == pytest.approx(drawn.latents.flat[0])
    assert said["largestDifference"] < 1e-5


def test_node_calls_a_replica_when_another_is_not_there(
    example: Path, service: ServiceProcess
) -> None:
    port = service.target.rpartition(":")[2]

    done = run(example, f"ipv4:127.0.0.9:{port},{service.target}", "digits")

    assert done.returncode == 0, done.stderr


def test_node_says_what_the_service_refused(example: Path, service: ServiceProcess) -> None:
    done = run(example, service.target, "nothing")

    assert done.returncode == 1
    assert "NOT_FOUND" in done.stderr


def test_node_says_how_it_is_called(example: Path) -> None:
    done = run(example, "localhost:8500")

    assert done.returncode == 2
    assert done.stderr.startswith("usage: ")
