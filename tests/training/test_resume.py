"""A fit that stops and goes on is the fit that never stopped."""

import json
import os
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import training.loop
from training.config import FitConfig, OptimizerConfig
from training.data import Dataset
from training.errors import InterruptedFit, RunError, TrainingError
from training.fit import Fitted, fit
from training.journal import read_description
from training.models import AutoregressiveConfig, MlpConfig
from training.objectives import ObjectiveConfig

TIMES = {"seconds", "images_per_second"}


@pytest.fixture
def config(tiny_config: FitConfig) -> FitConfig:
    """Everything that has a state: 7 epochs of 3 steps with means, annealing and early stopping."""
    return replace(
        tiny_config,
        epochs=7,
        evaluate_every=2,
        held_out=10,
        patience=3,
        objective=ObjectiveConfig(annealing="linear", free_bits=0.01),
        optimizer=OptimizerConfig(1e-2, warmup_steps=4, clip=5.0, skip_factor=3.0, ema_decay=0.9),
    )


def curve(history: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{k: v for k, v in epoch.items() if k not in TIMES} for epoch in history]


def stop_after(monkeypatch: pytest.MonkeyPatch, steps: int, act: Callable[[], None]) -> None:
    """Call `act` within step number `steps` of this process."""
    real, taken = training.loop.update, 0

    def counted(*arguments: Any) -> Any:
        nonlocal taken
        taken += 1
        if taken == steps:
            act()
        return real(*arguments)

    monkeypatch.setattr(training.loop, "update", counted)


def interrupted(
    config: FitConfig, dataset: Dataset, path: Path, steps: int, *, resume: bool = False
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        stop_after(patch, steps, lambda: os.kill(os.getpid(), signal.SIGTERM))
        with pytest.raises(InterruptedFit, match="stopped after step"):
            fit(config, dataset, directory=path, resume=resume)


def assert_equal(first: Fitted, second: Fitted) -> None:
    assert curve(first.history) == curve(second.history)
    mine, theirs = first.model.state_dict(), second.model.state_dict()
    assert all(torch.equal(mine[name], theirs[name]) for name in mine)


@pytest.mark.parametrize("steps", [1, 4, 6, 14])
def test_a_fit_that_was_stopped_twice_is_bitwise_the_one_that_was_not(
    config: FitConfig, tiny_dataset: Dataset, tmp_path: Path, steps: int
) -> None:
    interrupted(config, tiny_dataset, tmp_path, steps)
    interrupted(config, tiny_dataset, tmp_path, 2, resume=True)

    resumed = fit(config, tiny_dataset, directory=tmp_path, resume=True)

    assert_equal(resumed, fit(config, tiny_dataset))
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert curve([json.loads(line) for line in lines]) == curve(resumed.history)


def test_a_fit_that_hides_pixels_goes_on_bitwise(
    config: FitConfig, tiny_dataset: Dataset, tmp_path: Path
) -> None:
    model = AutoregressiveConfig(2, (8,), channels=4, layers=0, kernel=3, input_dropout=0.3)
    config = replace(config, model=model)
    interrupted(config, tiny_dataset, tmp_path, 4)

    resumed = fit(config, tiny_dataset, directory=tmp_path, resume=True)

    assert_equal(resumed, fit(config, tiny_dataset))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_finishes_the_step_and_says_how_to_go_on(
    config: FitConfig,
    tiny_dataset: Dataset,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    number: int,
) -> None:
    before = signal.getsignal(number)  # a shell's background job ignores SIGINT
    stop_after(monkeypatch, 2, lambda: os.kill(os.getpid(), number))
    with pytest.raises(InterruptedFit) as raised:
        fit(config, tiny_dataset, directory=tmp_path)
    assert f"python -m training resume {tmp_path}" in str(raised.value)
    assert "step 3 of 21" in str(raised.value)
    assert read_description(tmp_path)[0] == config
    assert signal.getsignal(number) is before


def test_a_state_of_another_model_is_refused_by_name(
    config: FitConfig, tiny_dataset: Dataset, tmp_path: Path
) -> None:
    interrupted(config, tiny_dataset, tmp_path, 2)
    other = replace(config, preset="other")
    with pytest.raises(RunError, match=r"state of preset tiny \(family mlp\), not of other"):
        fit(other, tiny_dataset, directory=tmp_path, resume=True)
    wider = replace(config, model=MlpConfig(3, (17,)))
    with pytest.raises(RunError, match=r"cannot continue from .*state\.safetensors"):
        fit(wider, tiny_dataset, directory=tmp_path, resume=True)


@pytest.mark.parametrize("length", [0, 5, 2000])
def test_a_damaged_state_is_refused(
    config: FitConfig, tiny_dataset: Dataset, tmp_path: Path, length: int
) -> None:
    interrupted(config, tiny_dataset, tmp_path, 2)
    state = tmp_path / "state.safetensors"
    state.write_bytes(state.read_bytes()[:length])
    with pytest.raises(RunError, match=r"cannot continue from .*state\.safetensors"):
        fit(config, tiny_dataset, directory=tmp_path, resume=True)


def test_a_full_disk_leaves_the_last_state_whole(
    config: FitConfig, tiny_dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    interrupted(config, tiny_dataset, tmp_path, 4)
    before = (tmp_path / "state.safetensors").read_bytes()

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        stop_after(patch, 1, lambda: patch.setattr(os, "fsync", full))
        with pytest.raises(RunError, match=r"No space left.*; the last state is whole: resume"):
            fit(config, tiny_dataset, directory=tmp_path, resume=True)
    assert (tmp_path / "state.safetensors").read_bytes() == before
    assert list(tmp_path.glob(".*")) == []
    resumed = fit(config, tiny_dataset, directory=tmp_path, resume=True)
    assert_equal(resumed, fit(config, tiny_dataset))


def poison(monkeypatch: pytest.MonkeyPatch, steps: set[int]) -> None:
    """Make the loss NaN in these steps of the process."""
    real, taken = training.loop.loss, 0

    def poisoned(*arguments: Any) -> Any:
        nonlocal taken
        taken += 1
        value, terms = real(*arguments)
        return (value * float("nan") if taken in steps else value), terms

    monkeypatch.setattr(training.loop, "loss", poisoned)


def test_one_step_that_is_not_finite_is_skipped_and_counted(
    config: FitConfig, tiny_dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = replace(config, optimizer=OptimizerConfig())
    poison(monkeypatch, {5})
    history = fit(plain, tiny_dataset).history
    assert [epoch["skipped"] for epoch in history] == [0, 1, 1, 1, 1, 1, 1]
    assert {epoch["restored"] for epoch in history} == {0}


def test_many_steps_that_are_not_finite_restore_the_last_good_state(
    config: FitConfig, tiny_dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    poison(monkeypatch, {7, 8, 9})
    lines: list[str] = []
    fitted = fit(config, tiny_dataset, report=lines.append)
    assert fitted.history[-1]["restored"] == 1
    assert [epoch["epoch"] for epoch in fitted.history] == list(range(1, 8))
    assert any("restored the last good state" in line for line in lines)


def test_a_loss_that_is_never_finite_ends_the_fit(
    config: FitConfig, tiny_dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    poison(monkeypatch, set(range(5, 1000)))
    with pytest.raises(TrainingError, match="not finite in epoch"):
        fit(config, tiny_dataset)
