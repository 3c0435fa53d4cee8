import itertools
import math

import pytest
import torch
from torch.distributions import Normal

from training.likelihoods import (
    Bernoulli,
    DiscretizedLogistic,
    Gaussian,
    GaussianStd,
    binarize,
    bits_per_dim,
)


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


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_fit_gets_the_gradient_of_the_bernoulli_distortion_that_autograd_derives(
    dtype: torch.dtype, generator: torch.Generator
) -> None:
    """In train mode it is written by hand; also where probabilities round to 0 and 1."""
    parameters = torch.randn(5, 2, 3, 4, generator=generator)
    parameters[0] *= 1000
    parameters = parameters.to(dtype)
    observations = torch.rand(5, 2, 3, 4, generator=generator).round(decimals=1)
    weights = torch.randn(5, generator=generator)
    found = []
    for likelihood in (Bernoulli().train(), Bernoulli().eval()):
        logits = parameters.clone().requires_grad_()
        distortion = likelihood.distortion(logits, observations)
        (weights * distortion).sum().backward()
        found.append((distortion.detach(), logits.grad))
    torch.testing.assert_close(found[0], found[1])


def test_the_bernoulli_distortion_stays_finite_where_probabilities_round_to_0_and_1() -> None:
    logits = torch.tensor([[1000.0, -1000.0]])
    distortion = Bernoulli().distortion(logits, torch.tensor([[0.0, 1.0]]))
    assert distortion.item() == 2000


@pytest.mark.parametrize("std", [0.05, 1.0, 3.0, "learned"])
def test_the_gaussian_distortion_is_the_negative_log_density(
    std: GaussianStd, generator: torch.Generator
) -> None:
    likelihood = Gaussian(std)
    logits = torch.randn(5, 1, 3, 4, generator=generator)
    observations = torch.rand(5, 1, 3, 4, generator=generator)

    distortion = likelihood.distortion(logits, observations)

    scale = likelihood.log_std().exp() if isinstance(std, str) else torch.tensor(std)
    log_density = Normal(torch.sigmoid(logits), scale).log_prob(observations)
    torch.testing.assert_close(distortion, -log_density.sum((1, 2, 3)))


def test_a_fixed_standard_deviation_is_not_fitted() -> None:
    likelihood = Gaussian(0.2)
    assert likelihood.log_std().item() == pytest.approx(math.log(0.2))
    assert not any(parameter.requires_grad for parameter in likelihood.parameters())


def test_a_learned_standard_deviation_converges_to_the_error_of_the_means() -> None:
    """The sigma-VAE's optimum: std squared is the mean squared error."""
    likelihood = Gaussian("learned")
    errors = 0.3 * torch.randn(2000, 1, generator=torch.Generator().manual_seed(1))
    optimizer = torch.optim.Adam(likelihood.parameters(), lr=0.1)
    for _ in range(200):
        optimizer.zero_grad()
        likelihood.distortion(torch.zeros(2000, 1), 0.5 + errors).mean().backward()
        optimizer.step()
    optimum = errors.square().mean().sqrt().item()
    assert likelihood.log_std().exp().item() == pytest.approx(optimum, rel=0.01)


def test_a_learned_standard_deviation_of_pixels_starts_at_the_largest_for_their_mean() -> None:
    likelihood = Gaussian("learned")
    output = torch.nn.Linear(2, 4)
    with torch.no_grad():
        likelihood.initialize(output, torch.full((1, 2, 2), 0.2))
        assert likelihood.log_std().exp().item() == pytest.approx(0.4)  # of 0 and 1, 1 in 5
        likelihood.initialize(output, torch.zeros(1, 2, 2))
    assert likelihood.log_std().exp().item() == pytest.approx(0.0995, rel=0.01)


def test_a_learned_standard_deviation_has_a_floor() -> None:
    likelihood = Gaussian("learned")
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


@pytest.mark.parametrize("maximum", [1, 16, 255])
@pytest.mark.parametrize("log_scale", [-9.0, -3.0, 0.5, 5.0])
@pytest.mark.parametrize("location", [-6.0, 0.3, 4.0])
def test_logistic_probabilities_of_all_levels_of_a_pixel_sum_to_one(
    maximum: int, log_scale: float, location: float
) -> None:
    levels = torch.arange(maximum + 1).reshape(-1, 1, 1, 1) / maximum
    parameters = (
        torch.tensor([location, log_scale]).reshape(1, 2, 1, 1).expand(maximum + 1, -1, 1, 1)
    )
    nats = DiscretizedLogistic(maximum).distortion(parameters, levels)
    assert torch.isfinite(nats).all()
    assert torch.exp(-nats.double()).sum().item() == pytest.approx(1, abs=1e-5)


def test_a_logistic_distortion_has_finite_gradients_far_from_its_location() -> None:
    parameters = torch.tensor([30.0, -7.0]).reshape(1, 2, 1, 1).requires_grad_()
    DiscretizedLogistic(255).distortion(parameters, torch.full((1, 1, 1, 1), 0.4)).sum().backward()
    assert parameters.grad is not None
    assert torch.isfinite(parameters.grad).all()


def test_an_optimal_standard_deviation_is_the_error_of_the_batch_when_training(
    generator: torch.Generator,
) -> None:
    """Rybkin et al. 2021: the mean cost of a pixel is then (ln(2 pi mse) + 1) / 2."""
    logits = torch.randn(6, 1, 3, 4, generator=generator)
    observations = torch.rand(6, 1, 3, 4, generator=generator)
    error = (observations - torch.sigmoid(logits)).square().mean()
    distortion = Gaussian("optimal").train().distortion(logits, observations)
    expected = 0.5 * (torch.log(2 * math.pi * error) + 1) * 12
    torch.testing.assert_close(distortion.mean(), expected)


def test_an_optimal_standard_deviation_is_frozen_when_evaluated(generator: torch.Generator) -> None:
    likelihood = Gaussian("optimal").eval()
    likelihood.freeze(torch.tensor(0.04))
    logits, observations = torch.rand(2, 5, 1, 3, 4, generator=generator)
    expected = Gaussian(0.2).distortion(logits, observations)
    torch.testing.assert_close(likelihood.distortion(logits, observations), expected)
    assert likelihood.state_dict()["variance"].item() == pytest.approx(0.04)


def test_numbers_that_are_no_pixels_have_any_mean() -> None:
    parameters = torch.tensor([[-7.0, 3.0]])
    assert torch.equal(Gaussian(1.0, bounded=False).mean(parameters), parameters)
