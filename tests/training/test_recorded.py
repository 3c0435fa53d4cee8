"""Steps that a CPU runs from a recording are the steps that autograd takes."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from torch import Tensor

import training.recorded
from tests.training.cases import CASES, bounds
from training.batches import training_batches
from training.config import DataConfig, FitConfig, OptimizerConfig
from training.data import Dataset, load_dataset
from training.errors import InterruptedFit
from training.fit import fit, initial_model
from training.loop import Loop
from training.models import ConvConfig
from training.recorded import RecordedSteps, can_record
from training.state import initial_state
from training.updates import norm_of

Start = Callable[..., Loop]


@pytest.fixture(scope="module")
def digits() -> Dataset:
    return load_dataset(DataConfig("digits", train_limit=300, test_limit=50))


@pytest.fixture
def recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Record in fits of any length."""
    monkeypatch.setattr(training.recorded, "_WORTH", 1)


@pytest.fixture
def start(digits: Dataset) -> Start:
    """Begin a fit, whose steps are then taken one by one."""

    def begin(config: FitConfig, report: Callable[[str], None] = print) -> Loop:
        batches = training_batches(digits, 0, True, "cpu")
        model: Any = initial_model(config, digits)
        state = initial_state(model.train(), config.optimizer, config.seed, "cpu")
        return Loop(config, digits, batches, state, None, [], report, "cpu")

    return begin


def config(name: str, precision: Literal["float32", "bfloat16"] = "float32") -> FitConfig:
    """90 items a batch, and 30 in the last of an epoch."""
    model, objective = CASES[name]
    optimizer = OptimizerConfig(ema_decay=0.99, skip_factor=10.0, clip=5.0)
    return FitConfig(
        name, DataConfig("digits"), model, objective, optimizer, 4, 0, 90, 4, precision=precision
    )


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", CASES)
def test_a_recorded_fit_is_the_fit_with_autograd(
    name: str,
    precision: Literal["float32", "bfloat16"],
    digits: Dataset,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    said: list[str] = []
    plain = fit(config(name, precision), digits)
    monkeypatch.setattr(training.recorded, "_WORTH", 1)
    ran = runs(monkeypatch)
    found = fit(config(name, precision), digits, said.append)
    assert not [line for line in said if "autograd" in line]
    assert len(ran) == 4 * 3  # and not the last batch of the four epochs
    rounding = 1e-5 if precision == "float32" else 1e-3
    assert bounds(found) == pytest.approx(bounds(plain), rel=rounding)
    last = "test_negative_elbo"
    assert found.history[-1][last] == pytest.approx(plain.history[-1][last], rel=rounding)


def runs(monkeypatch: pytest.MonkeyPatch) -> list[None]:
    """Has an item more each time that a recording runs."""
    ran: list[None] = []
    real = RecordedSteps._run

    def run(self: RecordedSteps, *arguments: Any) -> Any:
        ran.append(None)
        return real(self, *arguments)

    monkeypatch.setattr(RecordedSteps, "_run", run)
    return ran


@pytest.mark.usefixtures("recorded")
def test_a_fit_that_goes_on_does_bitwise_what_it_would_have_done(
    digits: Dataset, tmp_path: Path
) -> None:
    plan = config("annealed")
    whole = fit(plan, digits)
    with pytest.raises(InterruptedFit):
        fit(plan, digits, directory=tmp_path / "run", minutes=0)
    resumed = fit(plan, digits, directory=tmp_path / "run", resume=True)
    assert bounds(resumed) == bounds(whole)
    for ours, theirs in zip(resumed.model.parameters(), whole.model.parameters(), strict=True):
        assert torch.equal(ours, theirs)


@pytest.mark.usefixtures("recorded")
def test_gradients_lie_as_their_weights_do(start: Start) -> None:
    """Adam goes through both from the first number to the last."""
    loop = start(replace(config("conv"), model=ConvConfig(5, (16,), (6, 7))))
    numbers, gradients = loop.compute(torch.arange(90), 1.0)
    weights = [p for p in loop.state.model.parameters() if p.requires_grad]
    assert [g.shape for g in gradients] == [w.shape for w in weights]
    assert all(each.is_contiguous() for each in (*gradients, *weights))
    square = sum(float(g.square().sum()) for g in gradients)
    assert float(numbers[4]) == pytest.approx(square**0.5, rel=1e-5)


class Elsewhere:
    """What a test has the model do beside its terms."""

    def __init__(self, model: Any, act: Callable[[Tensor], Tensor]) -> None:
        self.real, self.act = model.elbo_terms, act

    def __call__(self, *arguments: Any) -> Any:
        terms = self.real(*arguments)
        return terms._replace(distortion=self.act(terms.distortion))


def different() -> Iterator[float]:
    yield 1.0
    while True:
        yield 2.0


def test_what_cannot_be_recorded_runs_with_autograd(
    start: Start, recorded: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    factors = different()
    acts: dict[str, Callable[[Tensor], Tensor]] = {
        "tracing": lambda values: values if values.sum().item() > 0 else -values,
        "another gradient": lambda values: values * next(factors),
    }
    ran = runs(monkeypatch)
    for reason, act in acts.items():
        said: list[str] = []
        loop = start(config("annealed"), said.append)
        model: Any = loop.state.model
        monkeypatch.setattr(model, "elbo_terms", Elsewhere(model, act))
        ran.clear()
        for _ in range(3):
            numbers, gradients = loop.compute(torch.arange(90), 1.0)
            assert gradients[0] is loop.state.gradient
            assert numbers.isfinite().all()
        assert len(said) == 1
        assert "steps run with autograd" in said[0]
        assert reason in said[0]
        assert len(ran) == (1 if reason == "another gradient" else 0)


@pytest.mark.usefixtures("recorded")
def test_a_step_that_is_not_finite_is_not_recorded(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop = start(config("annealed"))
    model: Any = loop.state.model
    factors = iter([torch.nan, 1.0, 1.0, 1.0])
    monkeypatch.setattr(
        model, "elbo_terms", Elsewhere(model, lambda values: values * next(factors))
    )
    ran = runs(monkeypatch)
    found = [loop.compute(torch.arange(90), 1.0)[0].isfinite().all() for _ in range(3)]
    assert found == [False, True, True]
    assert len(ran) == 2


def test_short_fits_and_models_whose_buffers_move_are_not_recorded(start: Start) -> None:
    loop = start(config("annealed"))
    assert not isinstance(loop.compute, RecordedSteps)  # a handful of steps
    assert can_record(loop.state, "cpu", 1000)
    assert not can_record(loop.state, "cuda", 1000)
    loop.state.model.register_buffer("codebook", torch.zeros(3))
    assert not can_record(loop.state, "cpu", 1000)


@pytest.mark.parametrize("sizes", [(9000,), (1, 2, 3), (9000, 5), (5000, 7, 9000, 3)])
def test_the_norm_is_of_all_gradients_however_small(sizes: tuple[int, ...]) -> None:
    generator = torch.Generator().manual_seed(0)
    gradients = [torch.randn(1, size, generator=generator) for size in sizes]
    expected = torch.cat(gradients, 1).double().norm()
    assert norm_of(gradients).item() == pytest.approx(expected.item(), rel=1e-5)
