"""In train mode on a CPU, tensors lie otherwise in memory; what they hold is the same."""

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

from training.model import Layout
from training.models import ConvConfig, Vae
from training.models.convolutions import ConvTranspose2d


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


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("settings", [(4, 2, 1), (4, 2, 0), (2, 2, 0), (4, 2, 1, 1), (3, 1, 1)])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("width", [3, 17])
def test_a_transposed_convolution_is_torchs_for_all_settings(
    width: int, channels: int, settings: tuple[int, ...], precision: torch.dtype
) -> None:
    """In bfloat16 up to its rounding, of values that it has already."""
    generator = torch.Generator().manual_seed(0)
    layer = ConvTranspose2d(6, channels, *settings).train()
    plain = nn.ConvTranspose2d(6, channels, *settings)
    plain.load_state_dict({k: v.to(precision).float() for k, v in layer.state_dict().items()})
    values = torch.randn(5, 6, 4, width, generator=generator).to(precision)
    found = []
    for each, given in ((layer, values), (plain, values.float())):
        given = given.to(memory_format=torch.channels_last).requires_grad_()
        mixed = each is layer and precision == torch.bfloat16
        with torch.autocast("cpu", torch.bfloat16, enabled=mixed):
            outputs = each(given).float()
        (
            outputs * torch.linspace(1, 2, outputs[0, 0].numel()).view_as(outputs[0, 0])
        ).sum().backward()
        assert each.bias is not None
        found.append([outputs, given.grad, each.weight.grad, each.bias.grad])
    tolerance = 1e-5 if precision == torch.float32 else 2e-2
    for ours, theirs in zip(*found, strict=True):
        assert ours is not None
        assert theirs is not None
        error = (ours - theirs).abs().max()
        assert error <= tolerance * theirs.abs().max()
