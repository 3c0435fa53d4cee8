from typing import Any, cast

import pytest
import torch
from torch import nn

from training.errors import TrainingError
from training.models import ConvConfig, Layout, MlpConfig, ModelConfig, Vae, build_model

SHAPE = (2, 8, 12)
LAYOUT = Layout(SHAPE)
CONFIGS = {
    "mlp": MlpConfig(latent_size=3, hidden_sizes=(16, 8), activation="relu"),
    "linear": MlpConfig(latent_size=3, hidden_sizes=()),
    "conv": ConvConfig(3, hidden_sizes=(16,), channels=(4, 6), activation="gelu"),
    "conv without dense layers": ConvConfig(3, hidden_sizes=(), channels=(4,)),
    "gaussian": MlpConfig(3, hidden_sizes=(16,), likelihood="gaussian"),
    "conv gaussian": ConvConfig(3, (16,), (4, 6), "gaussian", activation="silu"),
}


@pytest.fixture(params=CONFIGS)
def config(request: pytest.FixtureRequest) -> ModelConfig:
    return CONFIGS[request.param]


@pytest.fixture
def model(config: ModelConfig) -> Vae:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return cast("Vae", build_model(config, LAYOUT))


@pytest.fixture
def observations() -> torch.Tensor:
    return torch.rand(5, *SHAPE, generator=torch.Generator().manual_seed(0))


def test_encode_gives_one_posterior_per_observation(model: Vae, observations: torch.Tensor) -> None:
    mean, log_variance = model.posterior(observations)
    assert mean.shape == log_variance.shape == (5, 3)


def test_decode_gives_observations_between_0_and_1(model: Vae) -> None:
    decoded = model.decode(100 * torch.randn(5, 3, generator=torch.Generator().manual_seed(0)))
    assert decoded.shape == (5, *SHAPE)
    assert decoded.min() >= 0
    assert decoded.max() <= 1


def test_an_answer_does_not_depend_on_its_batch(model: Vae, observations: torch.Tensor) -> None:
    noise = torch.ones(5, 3)
    model.eval()
    together = model.elbo_terms(observations, noise).log_weight
    alone = [model.elbo_terms(item, noise[:1]).log_weight for item in observations.split(1)]
    torch.testing.assert_close(together, torch.cat(alone))


def test_every_parameter_that_is_fitted_gets_a_gradient(
    model: Vae, observations: torch.Tensor
) -> None:
    mean, log_variance = model.posterior(observations)
    (model.distortion(observations, mean) + log_variance.sum(1)).sum().backward()
    without = [
        name
        for name, parameter in model.named_parameters()
        if parameter.grad is None or not parameter.grad.any()
    ]
    assert without == []


def test_the_output_can_start_at_the_mean_of_the_data(
    config: ModelConfig, model: Vae, observations: torch.Tensor
) -> None:
    average = observations.mean(0)
    last = [layer for layer in model.decoder if isinstance(layer, nn.Linear | nn.ConvTranspose2d)]
    nn.init.zeros_(last[-1].weight)

    model.initialize_output(average)

    expected = average if config.family == "mlp" else average.mean((1, 2), keepdim=True)
    torch.testing.assert_close(model.decode(torch.ones(1, 3))[0], expected.expand(SHAPE))


def test_the_output_starts_at_no_infinite_logit() -> None:
    model = MlpConfig(latent_size=3, hidden_sizes=()).build(LAYOUT)
    model.initialize_output(torch.zeros(SHAPE))
    assert torch.isfinite(model.decoder(torch.zeros(1, 3))).all()


@pytest.mark.parametrize(("bias", "expected"), [(1e6, 20), (-1e6, -30)])
def test_the_log_variance_is_clamped(bias: float, expected: float) -> None:
    model = MlpConfig(latent_size=3, hidden_sizes=()).build(LAYOUT)
    last = model.encoder[-1]
    assert isinstance(last, nn.Linear)
    nn.init.constant_(last.bias, bias)
    mean, log_variance = model.posterior(torch.zeros(1, *SHAPE))
    assert log_variance.tolist() == [[expected] * 3]
    assert mean.tolist() == [[bias] * 3]


def test_pixels_that_cannot_be_halved_are_refused() -> None:
    config = ConvConfig(latent_size=2, channels=(4, 4, 4))
    with pytest.raises(TrainingError, match=r"3 model\.channels halve 8x12"):
        build_model(config, LAYOUT)


@pytest.mark.parametrize(
    ("activation", "layer"),
    [("relu", nn.ReLU), ("tanh", nn.Tanh), ("silu", nn.SiLU), ("gelu", nn.GELU)],
)
def test_the_activation_is_the_configured_one(activation: Any, layer: type[nn.Module]) -> None:
    model = MlpConfig(hidden_sizes=(4,), activation=activation).build(LAYOUT)
    kinds = {type(module) for module in model.modules() if module is not model}
    plain = {nn.Sequential, nn.Linear, nn.Flatten}
    assert {kind for kind in kinds - plain if kind.__module__.startswith("torch")} == {layer}
