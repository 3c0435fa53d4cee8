"""Two processes over gloo, started as a user starts them."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import training
from training.__main__ import main
from training.checkpoint import load_run

SETTINGS = (
    "epochs=2",
    "batch_size=50",
    "evaluate_every=1",
    "data.train_limit=210",
    "model.hidden_sizes=16",
    "optimizer.ema_decay=0.9",
    "optimizer.learning_rate=1e-2",
    "objective.free_bits=0.002",
    "model.likelihood=gaussian",
    "model.gaussian_std=optimal",
)


def fit_in_two_processes(arguments: list[str]) -> None:
    launcher = ["-m", "torch.distributed.run", "--nproc-per-node=2", "--standalone"]
    done = subprocess.run(
        [sys.executable, *launcher, "-m", "training", *arguments],
        cwd=Path(training.__file__).parents[1],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_two_processes_fit_what_one_does(tmp_path: Path) -> None:
    """Five batches of an epoch, of which the last has ten items; free bits and an optimal
    deviation need numbers of the whole batch."""
    arguments = ["fit", "digits", "--smoke", *(f"--set={setting}" for setting in SETTINGS)]
    assert main([*arguments, "--out", str(tmp_path / "one")]) == 0
    fit_in_two_processes([*arguments, "--out", str(tmp_path / "two"), "--resume"])

    one, two = load_run(tmp_path / "one"), load_run(tmp_path / "two")
    for name, value in one.model.state_dict().items():
        np.testing.assert_allclose(two.model.state_dict()[name], value, rtol=1e-3, atol=1e-5)
    curves = [
        [json.loads(line) for line in (run.path / "metrics.jsonl").read_text().splitlines()]
        for run in (one, two)
    ]
    for first, second in zip(*curves, strict=True):
        for name in ("train_rate", "train_distortion", "test_rate", "test_distortion"):
            assert second[name] == pytest.approx(first[name], rel=1e-4)
