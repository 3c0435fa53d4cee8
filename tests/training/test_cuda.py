"""Fits and evaluations on a CUDA device; `make test-gpu`."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests.families import MODELS
from tests.training.cases import CASES, bounds
from training.config import DataConfig, FitConfig, OptimizerConfig
from training.data import Dataset, load_dataset
from training.errors import InterruptedFit
from training.evaluate import Effort, evaluate
from training.fit import fit

pytestmark = pytest.mark.gpu


@pytest.fixture(scope="module")
def digits() -> Dataset:
    return load_dataset(DataConfig("digits"))


def config(name: str) -> FitConfig:
    """90 items a batch, and fewer in the last of an epoch, which has a graph of its own."""
    model, objective = CASES[name]
    optimizer = OptimizerConfig(ema_decay=0.99, skip_factor=10.0)
    return FitConfig(
        name, DataConfig("digits"), model, objective, optimizer, 6, 90, 3, device="cuda"
    )


@pytest.mark.parametrize("name", CASES)
def test_a_captured_fit_is_the_fit_that_launches_each_kernel(name: str, digits: Dataset) -> None:
    captured, eager = config(name), replace(config(name), cuda_graphs=False)
    said: list[str] = []
    first, second = fit(captured, digits, said.append), fit(eager, digits)
    assert not [line for line in said if "CUDA graphs" in line]
    assert bounds(first) == pytest.approx(bounds(second), rel=2e-3)
    assert first.history[-1]["test_negative_elbo"] == pytest.approx(
        second.history[-1]["test_negative_elbo"], rel=2e-3
    )


def test_a_fit_that_was_interrupted_goes_on_as_if_it_had_not_been(
    digits: Dataset, tmp_path: Path
) -> None:
    plan = config("annealed")
    whole = fit(plan, digits)
    with pytest.raises(InterruptedFit):
        fit(plan, digits, directory=tmp_path / "run", minutes=0)
    resumed = fit(plan, digits, directory=tmp_path / "run", resume=True)
    assert bounds(resumed) == pytest.approx(bounds(whole), rel=2e-3)


@pytest.mark.parametrize("family", MODELS)
def test_every_family_fits_in_bfloat16_and_is_evaluated_as_on_the_cpu(family: str) -> None:
    data = DataConfig("linear-gaussian" if family == "numbers" else "digits", test_limit=200)
    plan = FitConfig(family, data, MODELS[family], epochs=2, precision="bfloat16", device="cuda")
    dataset = load_dataset(data)
    model = fit(plan, dataset).model
    effort = Effort(None, 50, 100)
    on_cpu = evaluate(model, dataset, effort)
    assert isinstance(model, torch.nn.Module)
    on_cuda = evaluate(model.cuda(), dataset, effort, device="cuda")  # type: ignore[arg-type]
    assert on_cuda.distortion == pytest.approx(on_cpu.distortion, rel=5e-3)
    assert on_cuda.elbo == pytest.approx(on_cpu.elbo, rel=5e-3)
    if on_cpu.log_likelihood is not None:
        assert on_cuda.log_likelihood == pytest.approx(on_cpu.log_likelihood, rel=5e-2)
