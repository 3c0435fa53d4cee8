"""What a person at a terminal sees of a fit, through a pseudo-terminal."""

import os
import pty
import re
import subprocess
import sys
from pathlib import Path

import pytest

from training.config import FitConfig
from training.data import Dataset
from training.fit import fit
from training.progress import Standing, progress_bar


def command(run: Path) -> list[str]:
    sets = ["--set=epochs=2", "--set=model.hidden_sizes=16"]
    return [sys.executable, "-m", "training", "fit", "digits", "--smoke", *sets, "--out", str(run)]


def test_a_terminal_shows_a_bar_and_then_the_lines_alone(tmp_path: Path) -> None:
    ours, theirs = pty.openpty()
    environment = os.environ | {"TERM": "xterm", "COLUMNS": "110"}
    with subprocess.Popen(command(tmp_path / "run"), stdout=theirs, env=environment) as process:
        os.close(theirs)
        output = read_to_end(ours)
    os.close(ours)
    assert process.returncode == 0
    bar = r"epoch [12]/2 .*ELBO -\d+\.\d\d \(rate \d+\.\d\d, distortion \d+\.\d\d\) +\d+ images/s"
    assert re.search(bar, re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", output))
    assert "\x1b[2K" in output  # the bar is wiped out
    assert re.search(r"epoch +2/2 .*train ELBO", output)
    assert output.rstrip().endswith(f"wrote {tmp_path / 'run'}")


def read_to_end(terminal: int) -> str:
    content = b""
    while True:
        try:
            part = os.read(terminal, 65536)
        except OSError:  # Linux says so that nobody writes any more
            part = b""
        if not part:
            return content.decode()
        content += part


def test_without_a_terminal_there_is_no_bar(capsys: pytest.CaptureFixture[str]) -> None:
    with progress_bar() as watch:
        assert watch is None
    assert capsys.readouterr().out == ""


def test_every_step_is_watched_with_the_means_of_its_epoch(
    tiny_config: FitConfig, tiny_dataset: Dataset
) -> None:
    seen: list[Standing] = []
    fitted = fit(tiny_config, tiny_dataset, watch=seen.append)
    assert [(standing.epoch, standing.step) for standing in seen] == [
        *((1, step) for step in (1, 2, 3)),
        *((2, step) for step in (4, 5, 6)),
    ]
    assert {(standing.epochs, standing.steps) for standing in seen} == {(2, 6)}
    for standing, metrics in zip(seen[2::3], fitted.history, strict=True):
        assert standing.rate == metrics["train_rate"]
        assert standing.distortion == metrics["train_distortion"]
        assert standing.images_per_second > 0
