"""How the commands end."""

from pathlib import Path

import pytest

from benchmarks import streams, swaps, tail, training_cuda, training_speed
from benchmarks.__main__ import main
from benchmarks.errors import BenchmarkError


@pytest.mark.parametrize(
    ("command", "module"),
    [
        ("streams", streams),
        ("swaps", swaps),
        ("tail", tail),
        ("training-cuda", training_cuda),
        ("training-speed", training_speed),
    ],
)
def test_what_cannot_be_measured_is_said_in_one_line(
    command: str,
    module: object,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def refuse(*arguments: object) -> Path:
        raise BenchmarkError("the peer cannot be installed")

    monkeypatch.setattr(module, "measure", refuse)
    assert main([command]) == 2
    assert capsys.readouterr().err == "error: the peer cannot be installed\n"


def test_what_was_measured_is_said_at_the_end(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr(tail, "measure", lambda folder, seconds, say: folder / "a.json")
    assert main(["tail", "--results", str(tmp_path)]) == 0
    assert capsys.readouterr().out == f"wrote {tmp_path / 'a.json'}\n"
