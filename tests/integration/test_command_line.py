"""What the service's command does besides serving: --check and --print-config."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.integration.publications import publish, replace_graph


def run(*arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "service", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_a_check_loads_what_would_be_served_and_says_so(digits_repository: Path) -> None:
    done = run("--repository", str(digits_repository), "--check")

    assert (done.returncode, done.stderr) == (0, "")
    headings, row = (line.split() for line in done.stdout.splitlines())
    assert headings == ["model", "version", "state", "provider", "graphs", "digest", "reason"]
    assert row[:5] == ["digits", "1", "READY", "CPUExecutionProvider", "6"]


def test_a_check_names_every_version_that_cannot_be_served(
    digits_repository: Path, tmp_path: Path
) -> None:
    publish(digits_repository, tmp_path, 1, "sound")
    publish(
        digits_repository,
        tmp_path,
        2,
        "broken",
        lambda v: replace_graph(v, "decoder.onnx", b"no graph"),
    )
    publish(
        digits_repository, tmp_path, 3, "damaged", lambda v: (v / "decoder.onnx").write_bytes(b"")
    )
    done = run("--repository", str(tmp_path), "--check")

    assert done.returncode == 1
    rows = {line.split()[0]: line for line in done.stdout.splitlines()[1:]}
    assert "UNAVAILABLE" in rows["broken"]
    assert "cannot load the graph" in rows["broken"]
    assert "decoder.onnx does not have the manifest's SHA-256" in rows["damaged"]
    assert "READY" in rows["sound"]


@pytest.mark.parametrize("arguments", [("--check",), ()])
def test_a_repository_that_is_not_there_ends_with_2(
    tmp_path: Path, arguments: tuple[str, ...]
) -> None:
    listen = ("--listen", "127.0.0.1:0", "--metrics-port", "0")
    done = run("--repository", str(tmp_path / "nowhere"), *listen, *arguments)

    assert done.returncode == 2
    assert "nowhere is not a directory" in done.stderr


def test_the_settings_in_effect_are_printed_as_json(tmp_path: Path) -> None:
    done = run("--repository", "s3://bucket/models", "--cache", str(tmp_path), "--print-config")

    assert done.returncode == 0
    settings = json.loads(done.stdout)
    assert settings["repository"] == "s3://bucket/models"
    assert settings["cache"] == str(tmp_path)
    assert settings["metrics_port"] == 9090


def test_only_one_of_them_can_be_asked_for() -> None:
    assert run("--repository", "models", "--check", "--print-config").returncode == 2
