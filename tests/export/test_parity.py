import math
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from export.errors import ExportError
from export.graphs import Graph
from export.parity import BATCH_SIZES, Parity, default_tolerances, measure, measure_elbo
from training.checkpoint import Run

Array = NDArray[np.float32]


@pytest.fixture(scope="module")
def observations(runs: Mapping[str, Run]) -> Array:
    return runs["mlp"].dataset().observations("test")


class Changed(nn.Module):
    """Another module's outputs, changed by `amount` in the first item of batches of `batch`."""

    def __init__(self, module: nn.Module, amount: float, batch: int) -> None:
        super().__init__()
        self.module, self.amount, self.batch = module, amount, batch

    def forward(self, latents: torch.Tensor) -> torch.Tensor:
        outputs: torch.Tensor = self.module(latents).clone()
        if len(latents) == self.batch:
            outputs[0, 0, 0, 0] += self.amount
        return outputs


class Cut(nn.Module):
    """Another module's outputs without their last row of pixels."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, latents: torch.Tensor) -> torch.Tensor:
        outputs: torch.Tensor = self.module(latents)[:, :, :-1]
        return outputs


def test_traced_graphs_agree_with_torch(traced: list[Graph], observations: Array) -> None:
    parity = measure(traced, observations)

    assert list(parity) == ["encoder", "decoder", "encoder_uint8", "scorer", "scorer_uint8"]
    assert list(parity["encoder"].errors) == ["latents", "mean", "log_variance"]
    assert parity["encoder"].max_absolute_error < 1e-4 == parity["encoder"].tolerance
    assert parity["decoder"].max_absolute_error < 1e-5
    assert parity["encoder"].failures == []


@pytest.mark.parametrize("batch", BATCH_SIZES)
def test_a_difference_in_one_number_of_any_batch_is_refused(
    graphs: Mapping[str, tuple[Graph, ...]], observations: Array, batch: int
) -> None:
    decoder = graphs["mlp"][1]
    wrong = replace(decoder, module=Changed(decoder.module, amount=2e-4, batch=batch))
    with pytest.raises(
        ExportError, match=r"decoder output observations differs by 0\.0002 \(tolerance 0\.0001\)"
    ):
        measure([wrong], observations)


def test_a_difference_within_the_tolerance_is_measured(
    graphs: Mapping[str, tuple[Graph, ...]], observations: Array
) -> None:
    decoder = graphs["mlp"][1]
    off = replace(decoder, module=Changed(decoder.module, amount=5e-5, batch=17))
    error = measure([off], observations)["decoder"].max_absolute_error
    assert error == pytest.approx(5e-5, rel=0.05)


def test_another_batch_is_not_touched(
    graphs: Mapping[str, tuple[Graph, ...]], observations: Array
) -> None:
    """The measured batches are these and no others: the fake differs at 4 items only."""
    decoder = graphs["mlp"][1]
    measure([replace(decoder, module=Changed(decoder.module, 1.0, batch=4))], observations)
    assert BATCH_SIZES == (1, 2, 3, 17, 64)


def test_a_number_that_is_not_finite_is_refused(
    graphs: Mapping[str, tuple[Graph, ...]], observations: Array
) -> None:
    decoder = graphs["mlp"][1]
    wrong = replace(decoder, module=Changed(decoder.module, float("nan"), batch=3))
    with pytest.raises(ExportError, match="differs by inf"):
        measure([wrong], observations)


def test_another_shape_is_refused(
    graphs: Mapping[str, tuple[Graph, ...]], observations: Array
) -> None:
    decoder = graphs["mlp"][1]
    with pytest.raises(ExportError, match="observations differs by inf"):
        measure([replace(decoder, module=Cut(decoder.module))], observations)


def test_every_output_beyond_its_own_tolerance_is_named(
    graphs: Mapping[str, tuple[Graph, ...]], observations: Array
) -> None:
    tolerances = default_tolerances() | {"latents": -1.0, "observations": -1.0}
    with pytest.raises(ExportError, match=r"encoder output latents.*decoder output obs") as raised:
        measure(graphs["mlp"], observations, tolerances)
    assert "mean" not in str(raised.value)


def test_few_observations_are_repeated(
    graphs: Mapping[str, tuple[Graph, ...]], observations: Array
) -> None:
    parity = measure(graphs["conv"], observations[:2])
    assert parity["encoder"].max_absolute_error < 1e-4


def test_the_result_is_the_same_every_time(
    graphs: Mapping[str, tuple[Graph, ...]], observations: Array
) -> None:
    assert measure(graphs["mlp"], observations) == measure(graphs["mlp"], observations)


class Elsewhere(nn.Module):
    """Another module's codes, one further in this share of the items."""

    def __init__(self, module: nn.Module, share: float) -> None:
        super().__init__()
        self.module, self.share = module, share

    def forward(self, noise: torch.Tensor) -> torch.Tensor:
        codes: torch.Tensor = self.module(noise).clone()
        codes[: math.ceil(self.share * len(codes))] += 1
        return codes


def measured(
    graphs: Mapping[str, tuple[Graph, ...]], observations: Array, share: float
) -> dict[str, Parity]:
    """Of the prior of codes, with another torch beside it."""
    prior = next(graph for graph in graphs["vq"] if graph.kind == "prior")
    return measure([replace(prior, module=Elsewhere(prior.module, share))], observations)


def test_codes_that_differ_more_often_than_ties_are_refused(
    graphs: Mapping[str, tuple[Graph, ...]], observations: Array
) -> None:
    with pytest.raises(ExportError, match=r"prior output codes differs by 1 \(tolerance 0\.02\)"):
        measured(graphs, observations, share=0.1)


def test_the_share_of_different_codes_is_measured(
    graphs: Mapping[str, tuple[Graph, ...]], observations: Array
) -> None:
    parity = measured(graphs, observations, share=0)["prior"]
    assert (parity.different_codes, parity.different_codes_tolerance) == (0, 0.02)
    assert (parity.max_absolute_error, parity.tolerance) == (0, 0)


class Worse(nn.Module):
    """Another scorer's answers, with this many nats more distortion."""

    def __init__(self, module: nn.Module, nats: float) -> None:
        super().__init__()
        self.module, self.nats = module, nats

    def forward(self, observations: torch.Tensor, noise: torch.Tensor) -> tuple[torch.Tensor, ...]:
        rate, distortion, log_weight = self.module(observations, noise)
        return rate, distortion + self.nats, log_weight


def test_the_elbo_is_that_of_torch(
    graphs: Mapping[str, tuple[Graph, ...]], observations: Array
) -> None:
    scorer = next(graph for graph in graphs["conv"] if graph.kind == "scorer")
    elbo = measure_elbo(scorer, observations)
    assert elbo.items == len(observations) == 30
    assert elbo.onnxruntime == pytest.approx(elbo.torch, abs=1e-3)
    assert elbo.onnxruntime < 0


@pytest.mark.parametrize("nats", [0.02, -0.02, float("nan")])
def test_another_elbo_is_refused(
    graphs: Mapping[str, tuple[Graph, ...]], observations: Array, nats: float
) -> None:
    scorer = next(graph for graph in graphs["conv"] if graph.kind == "scorer")
    with pytest.raises(ExportError, match=r"the ELBO of 30 test items is .* \(tolerance 0\.01\)"):
        measure_elbo(replace(scorer, module=Worse(scorer.module, nats)), observations)
