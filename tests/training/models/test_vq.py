from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import onnxruntime
import pytest
import torch
from torch import nn

from training.config import FitConfig
from training.data import Dataset
from training.errors import InterruptedFit, TrainingError
from training.evaluate import Effort, evaluate
from training.fit import fit
from training.models import Layout, VqConfig, build_model
from training.models.vq import Vq

CONFIG = VqConfig(codes=8, code_size=4, channels=(6, 8), prior_channels=4, prior_layers=1)


@pytest.fixture
def model() -> Vq:
    """Of 12x12 pixels, so 3x3 codes, after one batch."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        made = cast("Vq", build_model(CONFIG, Layout((1, 12, 12))))
    made.elbo_terms(*_inputs(8))
    return made.eval()


def _inputs(count: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(count)
    observations = torch.rand(count, 1, 12, 12, generator=generator)
    return observations, torch.randn(count, 3, 3, 8, generator=generator)


def test_latents_are_codes(model: Vq) -> None:
    observations, noise = _inputs(5)
    latents, mean, log_variance = model.encode(observations, noise)
    assert latents.dtype == torch.int64
    assert torch.equal(latents, model.codes(observations))
    assert mean.shape == log_variance.shape == (5, 4, 3, 3)
    assert model.decode(latents).shape == observations.shape


def test_the_rate_is_that_of_the_prior_over_codes(model: Vq) -> None:
    observations, noise = _inputs(2)
    codes = model.codes(observations)
    log_shares = model.prior(codes).log_softmax(1)
    expected = -log_shares.gather(1, codes[:, None]).flatten(1).sum(1, keepdim=True)
    terms = model.elbo_terms(observations, noise)
    torch.testing.assert_close(terms.rate, expected)
    torch.testing.assert_close(terms.log_weight, -terms.rate[:, 0] - terms.distortion)


def test_the_prior_does_not_move_the_encoder(model: Vq) -> None:
    terms = model.elbo_terms(*_inputs(2))
    terms.rate.sum().backward()  # type: ignore[no-untyped-call]
    assert all(parameter.grad is None for parameter in model.encoder.parameters())
    assert all(parameter.grad is None for parameter in model.decoder.parameters())


def test_every_parameter_that_is_fitted_gets_a_gradient(model: Vq) -> None:
    terms = model.elbo_terms(*_inputs(4))
    (terms.rate.sum() + terms.distortion.sum() + terms.auxiliary.sum()).backward()  # type: ignore[no-untyped-call]
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None, name


def test_a_fit_sees_the_terms_and_gradients_of_an_evaluation(model: Vq) -> None:
    """In train mode on a CPU, convolutions lie otherwise in memory."""
    observations, noise = _inputs(4)
    found = []
    for training in (False, True):
        terms = model.train(training).elbo_terms(observations, noise)
        model.zero_grad()
        (terms.distortion.sum() + terms.rate.sum()).backward()  # type: ignore[no-untyped-call]
        fitted = (p.grad for p in model.parameters() if p.requires_grad)
        gradients = [gradient for gradient in fitted if gradient is not None]
        found.append((terms.distortion, terms.rate, gradients))
    torch.testing.assert_close(found[0], found[1], rtol=1e-4, atol=1e-5)


def test_a_fit_has_its_channels_innermost_and_needs_a_number_for_each_position(model: Vq) -> None:
    orders = []

    def note(module: nn.Module, inputs: tuple[torch.Tensor], outputs: torch.Tensor) -> None:
        orders.append(outputs.is_contiguous(memory_format=torch.channels_last))

    convolutions = [m for m in model.modules() if isinstance(m, nn.Conv2d | nn.ConvTranspose2d)]
    for module in convolutions:
        module.register_forward_hook(note)
    observations, noise = _inputs(4)
    model.train().elbo_terms(observations, noise[..., :1])
    assert model.training_noise_shape == (3, 3, 1)
    assert orders == [True] * len(convolutions)


def test_a_resumed_fit_is_that_of_one_go(
    tiny_config: FitConfig, tiny_dataset: Dataset, tmp_path: Path
) -> None:
    config = replace(tiny_config, model=replace(CONFIG, channels=(6,)), epochs=3)
    whole = fit(config, tiny_dataset).model.state_dict()
    with pytest.raises(InterruptedFit):
        fit(config, tiny_dataset, directory=tmp_path / "run", minutes=0)
    resumed = fit(config, tiny_dataset, directory=tmp_path / "run", resume=True).model.state_dict()
    assert all(torch.equal(value, resumed[name]) for name, value in whole.items())


def test_an_evaluation_counts_codes(tiny_config: FitConfig, tiny_dataset: Dataset) -> None:
    config = replace(tiny_config, model=replace(CONFIG, channels=(6,)))
    found = evaluate(fit(config, tiny_dataset).model, tiny_dataset, Effort(1, 0))
    assert found.code_count == 8
    assert found.used_codes is not None
    assert found.used_codes > 0.5
    assert found.active_units is None


def test_stages_that_do_not_halve_are_refused() -> None:
    with pytest.raises(TrainingError, match="halve 14x14 pixels to no integer"):
        build_model(CONFIG, Layout((1, 14, 14)))


class _Method(nn.Module):
    def __init__(self, model: Vq, name: str) -> None:
        super().__init__()
        self.model, self.name = model, name

    def forward(self, *inputs: torch.Tensor) -> Any:
        return getattr(self.model, self.name)(*inputs)


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore:# The axis name:UserWarning")
@pytest.mark.parametrize("name", ["encode", "decode", "sample_prior"])
def test_a_graph_computes_what_the_model_does(model: Vq, name: str, tmp_path: Path) -> None:
    def inputs(count: int) -> tuple[torch.Tensor, ...]:
        observations, noise = _inputs(count)
        all_inputs = {
            "encode": (observations, noise),
            "decode": (model.codes(observations),),
            "sample_prior": (noise,),
        }
        return all_inputs[name]

    path = tmp_path / "graph.onnx"
    example = inputs(3)
    batch = torch.export.Dim("batch", min=1)
    shapes = ({0: batch},) * len(example)
    with torch.no_grad():
        torch.onnx.export(
            _Method(model, name).eval(), example, path, dynamo=True, dynamic_shapes=(shapes,)
        )
    session = onnxruntime.InferenceSession(path)
    names = [value.name for value in session.get_inputs()]
    for count in (1, 2, 3):
        values = inputs(count)
        feeds = {key: value.numpy() for key, value in zip(names, values, strict=True)}
        expected = getattr(model, name)(*values)
        expected = expected if isinstance(expected, tuple) else (expected,)
        for found, wanted in zip(session.run(None, feeds), expected, strict=True):
            np.testing.assert_allclose(found, wanted.detach().numpy(), rtol=1e-4, atol=1e-5)
