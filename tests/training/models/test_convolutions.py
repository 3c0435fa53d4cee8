"""In train mode on a CPU, tensors lie otherwise in memory; what they hold is the same."""

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

from training.model import Layout
from training.models import ConvConfig, Vae


@pytest.fixture(params=[1, 3])
def model(request: pytest.FixtureRequest) -> Vae:
    layout = Layout((request.param, 16, 16), None, 255)
    torch.manual_seed(0)
    return ConvConfig(4, (8,), (6, 5), likelihood="bernoulli").build(layout)


@pytest.fixture
def batch(model: Vae) -> tuple[Tensor, Tensor]:
    """Observations and noise."""
    generator = torch.Generator().manual_seed(1)
    shape = (7, *model.observation_shape)
    return torch.rand(shape, generator=generator).round(), torch.randn(7, 4, generator=generator)


def test_a_fit_sees_the_terms_and_gradients_of_torchs_own_layers(
    model: Vae, batch: tuple[Tensor, Tensor]
) -> None:
    found = []
    for training in (True, False):
        terms = model.train(training).elbo_terms(*batch)
        model.zero_grad()
        (terms.distortion.sum() + terms.rate.sum()).backward()
        gradients = {name: p.grad for name, p in model.named_parameters()}
        assert all(gradient is not None for gradient in gradients.values())
        found.append((terms.distortion, terms.rate, gradients))
    torch.testing.assert_close(found[0], found[1], rtol=1e-4, atol=1e-5)


def test_convolutions_get_their_channels_innermost(
    model: Vae, batch: tuple[Tensor, Tensor]
) -> None:
    orders = []

    def note(module: nn.Module, inputs: tuple[Tensor], outputs: Tensor) -> None:
        orders.append(outputs.is_contiguous(memory_format=torch.channels_last))

    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            module.register_forward_hook(note)
    model.train().elbo_terms(*batch)
    assert orders == [True] * 4


def test_values_and_their_gradients_lie_in_the_same_order(
    model: Vae, batch: tuple[Tensor, Tensor]
) -> None:
    met = []

    def follow(module: nn.Module, inputs: tuple[Tensor], outputs: Tensor) -> None:
        outputs.register_hook(lambda gradient: met.append((gradient.stride(), outputs.stride())))

    for module in model.modules():
        if isinstance(module, nn.SiLU):
            module.register_forward_hook(follow)
    model.train().elbo_terms(*batch).distortion.sum().backward()
    assert len(met) == 6
    assert all(first == second for first, second in met)


def test_the_decoders_output_lies_as_observations_do(
    model: Vae, batch: tuple[Tensor, Tensor]
) -> None:
    assert model.train().decoder(batch[1]).is_contiguous()


def weights(model: Vae) -> Iterator[str]:
    return (name for name in model.state_dict() if name.endswith("weight"))


def test_the_weights_of_runs_of_before_keep_their_names(model: Vae) -> None:
    assert list(weights(model)) == [
        *(f"encoder.{index}.weight" for index in (0, 2, 5, 7)),
        *(f"decoder.{index}.weight" for index in (0, 2, 5, 7)),
    ]
