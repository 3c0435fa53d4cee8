import pytest
import torch

from training.errors import TrainingError
from training.models import AutoencoderConfig, ConditionalConfig, Layout

LAYOUT = Layout((1, 4, 4), label_count=3)


@pytest.fixture
def observations() -> torch.Tensor:
    return torch.rand(6, 1, 4, 4, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def noise() -> torch.Tensor:
    return torch.randn(6, 2, generator=torch.Generator().manual_seed(1))


def test_every_part_knows_the_label(observations: torch.Tensor, noise: torch.Tensor) -> None:
    model = ConditionalConfig(2, (5,)).build(LAYOUT)
    torch.nn.init.normal_(model.prior_parameters)
    ones, twos = torch.ones(6, dtype=torch.long), torch.full((6,), 2)
    for first, second in (
        (model.encode(observations, noise, ones)[1], model.encode(observations, noise, twos)[1]),
        (model.sample_prior(noise, ones), model.sample_prior(noise, twos)),
        (model.decode(noise, ones), model.decode(noise, twos)),
    ):
        assert not torch.isclose(first, second).any(1).all()


def test_the_rate_is_to_the_prior_of_the_label(
    observations: torch.Tensor, noise: torch.Tensor
) -> None:
    """With the posterior's own parameters as the prior the rate is zero, so is ln p - ln q."""
    model = ConditionalConfig(2, (5,)).build(LAYOUT)
    label = torch.zeros(6, dtype=torch.long)
    last = model.encoder[-1]
    assert isinstance(last, torch.nn.Linear)
    torch.nn.init.zeros_(last.weight)
    model.prior_parameters.data[0] = last.bias.data
    terms = model.eval().elbo_terms(observations, noise, label)
    assert terms.rate.abs().max().item() < 1e-6
    torch.testing.assert_close(terms.log_weight, -terms.distortion)


def test_data_without_labels_are_refused() -> None:
    with pytest.raises(TrainingError, match="conditional needs a data set with labels"):
        ConditionalConfig().build(Layout((1, 4, 4)))


def test_a_fixed_prior_is_not_fitted() -> None:
    model = ConditionalConfig(2, (5,), learned_prior=False).build(LAYOUT)
    assert not model.prior_parameters.requires_grad


def test_an_autoencoder_has_no_rate_and_ignores_the_noise(
    observations: torch.Tensor, noise: torch.Tensor
) -> None:
    model = AutoencoderConfig(2, (5,)).build(Layout((1, 4, 4)))
    latents, mean, _ = model.encode(observations, noise)
    assert torch.equal(latents, mean)
    assert model.elbo_terms(observations, noise).rate.sum() == 0
