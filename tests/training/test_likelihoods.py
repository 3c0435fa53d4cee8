import itertools
import math

import pytest
import torch
from torch.distributions import Normal

from training.likelihoods import Bernoulli, Gaussian, binarize, bits_per_dim


@pytest.fixture
def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def test_the_bernoulli_distortion_is_the_negative_log_likelihood(
    generator: torch.Generator,
) -> None:
    logits = 3 * torch.randn(5, 2, 3, 4, generator=generator)
    observations = torch.bernoulli(torch.full(logits.shape, 0.4), generator=generator)

    distortion = Bernoulli().distortion(logits, observations)

    log_likelihood = torch.distributions.Bernoulli(logits=logits).log_prob(observations)
    torch.testing.assert_close(distortion, -log_likelihood.sum((1, 2, 3)))


def test_bernoulli_likelihoods_of_all_binary_observations_sum_to_one(
    generator: torch.Generator,
) -> None:
    every = torch.tensor(list(itertools.product([0.0, 1.0], repeat=4))).reshape(16, 1, 2, 2)
    logits = torch.randn(1, 1, 2, 2, generator=generator).expand(16, -1, -1, -1)
    likelihoods = torch.exp(-Bernoulli().distortion(logits, every))
    assert likelihoods.sum().item() == pytest.approx(1, abs=1e-6)


def test_gray_pixels_give_the_expectation_over_their_binarization() -> None:
    logits = torch.tensor([[0.7]])
    white = Bernoulli().distortion(logits, torch.tensor([[1.0]]))
    black = Bernoulli().distortion(logits, torch.tensor([[0.0]]))
    gray = Bernoulli().distortion(logits, torch.tensor([[0.25]]))
    torch.testing.assert_close(gray, 0.25 * white + 0.75 * black)


def test_the_bernoulli_distortion_stays_finite_where_probabilities_round_to_0_and_1() -> None:
    logits = torch.tensor([[1000.0, -1000.0]])
    distortion = Bernoulli().distortion(logits, torch.tensor([[0.0, 1.0]]))
    assert distortion.item() == 2000


@pytest.mark.parametrize("std", [0.05, 1.0, 3.0, None])
def test_the_gaussian_distortion_is_the_negative_log_density(
    std: float | None, generator: torch.Generator
) -> None:
    likelihood = Gaussian(std)
    logits = torch.randn(5, 1, 3, 4, generator=generator)
    observations = torch.rand(5, 1, 3, 4, generator=generator)

    distortion = likelihood.distortion(logits, observations)

    scale = likelihood.log_std().exp() if std is None else torch.tensor(std)
    log_density = Normal(torch.sigmoid(logits), scale).log_prob(observations)
    torch.testing.assert_close(distortion, -log_density.sum((1, 2, 3)))


def test_a_fixed_standard_deviation_is_not_fitted() -> None:
    likelihood = Gaussian(0.2)
    assert likelihood.log_std().item() == pytest.approx(math.log(0.2))
    assert not any(parameter.requires_grad for parameter in likelihood.parameters())


def test_a_learned_standard_deviation_converges_to_the_error_of_the_means() -> None:
    """The sigma-VAE's optimum: std squared is the mean squared error."""
    likelihood = Gaussian(None)
    errors = 0.3 * torch.randn(2000, 1, generator=torch.Generator().manual_seed(1))
    optimizer = torch.optim.Adam(likelihood.parameters(), lr=0.1)
    for _ in range(200):
        optimizer.zero_grad()
        likelihood.distortion(torch.zeros(2000, 1), 0.5 + errors).mean().backward()
        optimizer.step()
    optimum = errors.square().mean().sqrt().item()
    assert likelihood.log_std().exp().item() == pytest.approx(optimum, rel=0.01)


def test_a_learned_standard_deviation_has_a_floor() -> None:
    likelihood = Gaussian(None)
    likelihood.raw_log_std.data.fill_(-100)
    assert likelihood.log_std().item() == pytest.approx(-6)


def test_binarization_draws_with_the_pixels_as_probabilities(generator: torch.Generator) -> None:
    observations = torch.tensor([0.0, 0.3, 1.0]).repeat(20_000, 1)
    drawn = binarize(observations, generator)
    assert set(drawn.unique().tolist()) == {0, 1}
    torch.testing.assert_close(drawn.mean(0), observations[0], atol=0.02, rtol=0)
    assert drawn[:, 0].max() == 0
    assert drawn[:, 2].min() == 1


def test_binarization_depends_on_the_seed_alone() -> None:
    observations = torch.full((10, 10), 0.5)
    first, second, other = (
        binarize(observations, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2)
    )
    assert torch.equal(first, second)
    assert not torch.equal(first, other)


def test_a_fair_coin_for_each_pixel_costs_one_bit_per_dim() -> None:
    assert bits_per_dim("bernoulli", 64 * math.log(2), 64, maximum=16) == pytest.approx(1)


def test_a_uniform_density_costs_the_bits_of_a_pixel() -> None:
    """Density 1 on [0, 1] is 0 nats; a bin 1 / 255 wide then costs log2(255) bits."""
    assert bits_per_dim("gaussian", 0.0, 784, maximum=255) == pytest.approx(math.log2(255))


def test_gaussian_probabilities_of_all_values_of_a_pixel_sum_to_one() -> None:
    maximum = 255
    values = torch.arange(maximum + 1).reshape(-1, 1) / maximum
    nats = Gaussian(0.1).distortion(torch.zeros_like(values), values)
    bits = [bits_per_dim("gaussian", value, 1, maximum) for value in nats.tolist()]
    assert sum(2**-value for value in bits) == pytest.approx(1, abs=1e-4)
