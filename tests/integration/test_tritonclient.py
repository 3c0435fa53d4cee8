"""Triton's released Python client works against the service, unchanged."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from scripts.launch import ServiceProcess
from vae_client import VaeClient

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
PACKAGE = "tritonclient[grpc]==2.73.0"
SCRIPT = Path(__file__).with_name("triton_calls.py")


@pytest.fixture(scope="session")
def triton_python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of an environment that holds tritonclient and not this project."""
    folder = tmp_path_factory.mktemp("triton")
    python = folder / "bin" / "python"
    for command in (
        [sys.executable, "-m", "venv", str(folder)],
        [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", PACKAGE],
    ):
        subprocess.run(command, check=True)
    return python


def test_tritonclient_gets_the_answers_of_vae_client(
    triton_python: Path, service: ServiceProcess, client: VaeClient
) -> None:
    done = subprocess.run(
        [triton_python, "-I", SCRIPT, service.target], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    got = json.loads(done.stdout)

    assert (got["live"], got["ready"], got["model_ready"]) == (True, True, True)
    assert got["server"]["name"] == "vae-serving"
    assert [each["name"] for each in got["metadata"]["inputs"]] == ["observations", "noise"]
    assert got["metadata"]["inputs"][0]["shape"] == ["-1", "1", "8", "8"]
    assert (got["config"]["max_batch_size"], got["config"]["input"][1]["optional"]) == (64, True)
    expected = client.decode("digits", np.zeros((3, 8))).observations
    np.testing.assert_allclose(got["decoded"], expected, atol=1e-6)
    np.testing.assert_allclose(got["async_decoded"], expected, atol=1e-6)
    assert (got["id"], got["async_error"]) == ("a", None)
    posterior = client.encode(
        "digits", np.full((2, 1, 8, 8), 0.5, np.float32), include_latents=True, seed=7
    )
    np.testing.assert_allclose(got["latents"], posterior.latents, atol=1e-5)
    assert got["seed"] == {"int64_param": "7"}
    assert got["refused"][0] == "StatusCode.NOT_FOUND"
    assert "NAME.decoder" in got["refused"][1]
    assert got["refused_level"] == "StatusCode.INVALID_ARGUMENT"
    assert got["config"]["dynamic_batching"]["priority_levels"] == "3"
    assert got["requests"] >= 2
