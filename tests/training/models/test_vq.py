import pytest
import torch

from training.errors import TrainingError
from training.models import Layout, VqConfig
from training.models.vq import VqVae

CONFIG = VqConfig(codes=5, code_size=3, width=8, prior_width=8, prior_layers=2)


@pytest.fixture
def model() -> VqVae:
    torch.manual_seed(0)
    made = CONFIG.build(Layout((1, 8, 8)))
    made.elbo_terms(observations(), noise(made))  # gives the codebook its vectors
    return made.eval()


def observations(count: int = 6) -> torch.Tensor:
    return torch.rand(count, 1, 8, 8, generator=torch.Generator().manual_seed(1))


def noise(model: VqVae, count: int = 6) -> torch.Tensor:
    return torch.randn(count, *model.noise_shape, generator=torch.Generator().manual_seed(2))


def test_latents_are_codes_that_decode_to_what_they_stand_for(model: VqVae) -> None:
    codes, vectors, _ = model.encode(observations(), noise(model))
    assert codes.shape == (6, 2, 2)
    assert codes.dtype == torch.int64
    assert torch.equal(vectors, model.quantizer.codebook[codes].permute(0, 3, 1, 2))
    assert model.decode(codes).shape == (6, 1, 8, 8)


def test_the_rate_is_the_priors_and_the_weight_the_bound_itself(model: VqVae) -> None:
    terms = model.elbo_terms(observations(), noise(model))
    torch.testing.assert_close(terms.rate[:, 0], model.prior.rate(model.codes(observations())))
    torch.testing.assert_close(terms.log_weight, -(terms.rate[:, 0] + terms.distortion))
    assert (terms.auxiliary > 0).all()


def test_gradients_pass_straight_through_and_the_prior_gets_its_own(model: VqVae) -> None:
    terms = model.elbo_terms(observations(), noise(model))
    terms.distortion.sum().backward(retain_graph=True)
    first = model.encoder[0]
    assert isinstance(first, torch.nn.Conv2d)
    assert first.weight.grad is not None
    assert first.weight.grad.abs().sum() > 0
    model.zero_grad()
    terms.rate.sum().backward()
    assert first.weight.grad is None
    assert all(parameter.grad is not None for parameter in model.prior.parameters())


def test_samples_of_the_prior_are_codes(model: VqVae) -> None:
    drawn = model.sample_prior(noise(model))
    assert drawn.shape == (6, 2, 2)
    assert drawn.min() >= 0
    assert drawn.max() < 5
    assert torch.equal(drawn, model.sample_prior(noise(model)))


def test_an_observation_that_cannot_be_halved_is_refused() -> None:
    with pytest.raises(TrainingError, match="halve 6x6 pixels to no integer"):
        CONFIG.build(Layout((1, 6, 6)))
