"""The posteriors are those of a linear Gaussian: x ~ N(0, 1), q(z given x) = N(a x, s^2) in each
dim, so that q(z) = N(0, a^2 + s^2) and I(x; z) = 0.5 ln((a^2 + s^2) / s^2)."""

import math

import pytest
import torch
from torch import Tensor

from training.latent_statistics import (
    active_units,
    active_units_by_rate,
    log_aggregated_posterior,
    maximum_mean_discrepancy,
    mismatch,
    moments,
    rate_by_unit,
)


def draw(items: int, latents: int, seed: int = 0) -> Tensor:
    return torch.randn(items, latents, generator=torch.Generator().manual_seed(seed))


def posteriors(a: float, s: float, items: int = 4000, latents: int = 1) -> tuple[Tensor, Tensor]:
    return a * draw(items, latents), torch.full((items, latents), 2 * math.log(s))


def test_latents_whose_mean_varies_are_active() -> None:
    means = draw(2000, 3) * torch.tensor([1.0, 0.2, 0.05])
    assert active_units(means) == 2


def test_latents_above_a_tenth_of_a_nat_are_active_by_rate() -> None:
    rates = torch.tensor([[0.0, 0.08, 0.0], [0.3, 0.11, 5.0]])
    assert active_units_by_rate(rates) == 2


def test_the_rate_by_unit_is_the_textbook_example() -> None:
    """KL(N(0.5, 0.8^2) || N(0, 1)) = 0.168 nats."""
    rate = rate_by_unit(torch.tensor([[0.5, 0.0]]), torch.tensor([[2 * math.log(0.8), 0.0]]))
    assert rate[0].tolist() == pytest.approx([0.16814, 0], abs=1e-5)


def test_the_moments_of_the_aggregated_posterior_are_those_of_its_draws() -> None:
    means = draw(500, 2) @ torch.tensor([[1.0, 0.5], [0.0, 1.0]]) + 3
    log_variances = draw(500, 2, seed=1)
    mean, covariance = moments(means, log_variances)

    latents = torch.cat(
        [means + torch.exp(0.5 * log_variances) * draw(500, 2, seed) for seed in range(2, 200)]
    )
    torch.testing.assert_close(mean.float(), latents.mean(0), atol=0.02, rtol=0)
    torch.testing.assert_close(covariance.float(), latents.T.cov(), atol=0.05, rtol=0)


def test_the_density_of_the_aggregated_posterior_is_the_mean_of_the_densities() -> None:
    means, log_variances, latents = draw(30, 2), draw(30, 2, 1), draw(700, 2, 2)
    normal = torch.distributions.Normal(means.double(), torch.exp(0.5 * log_variances.double()))
    densities = normal.log_prob(latents[:, None].double()).sum(2).exp().mean(1)
    torch.testing.assert_close(
        log_aggregated_posterior(latents, means, log_variances), densities.log()
    )


@pytest.mark.parametrize(("a", "s"), [(0.9, 0.3), (0.5, 0.5), (1.5, 1.0)])
def test_a_gaussian_has_the_mismatch_that_is_known(a: float, s: float) -> None:
    means, log_variances = posteriors(a, s, latents=2)
    measured = mismatch(draw(len(means), 2, seed=5), means, log_variances)

    variance = a**2 + s**2
    assert measured.mutual_information == pytest.approx(math.log(variance / s**2), abs=0.06)
    divergence = variance - 1 - math.log(variance)
    assert measured.divergence == pytest.approx(divergence, abs=0.06)
    assert measured.moments == pytest.approx(divergence, abs=0.05)


def test_both_parts_add_up_to_the_rate() -> None:
    means, log_variances = posteriors(1.2, 0.4, items=50, latents=3)
    measured = mismatch(draw(50, 3, 1), means, log_variances)
    rate = rate_by_unit(means, log_variances).sum(1).mean().item()
    assert measured.mutual_information + measured.divergence == pytest.approx(rate, rel=1e-5)


def test_a_collapsed_posterior_has_neither_information_nor_mismatch() -> None:
    measured = mismatch(draw(50, 3), torch.zeros(50, 3), torch.zeros(50, 3))
    assert measured.mutual_information == pytest.approx(0, abs=1e-9)
    assert measured.divergence == pytest.approx(0, abs=1e-9)
    assert measured.moments == pytest.approx(0, abs=1e-9)


def test_posteriors_that_do_not_overlap_tell_the_items_apart() -> None:
    means = 100.0 * torch.arange(20.0)[:, None]
    measured = mismatch(draw(20, 1), means, torch.zeros(20, 1))
    assert measured.mutual_information == pytest.approx(math.log(20))


def test_samples_of_one_law_have_no_discrepancy_and_others_have() -> None:
    same = maximum_mean_discrepancy(draw(800, 4), draw(700, 4, seed=1))
    shifted = maximum_mean_discrepancy(draw(800, 4), draw(700, 4, seed=1) + 0.5)
    assert abs(same) < 0.003
    assert shifted > 0.02


def test_some_draws_are_enough_for_the_mixture_over_all_items() -> None:
    means, log_variances = posteriors(0.9, 0.3)
    drawn = torch.arange(0, len(means), 4)
    some = mismatch(draw(len(drawn), 1, seed=5), means, log_variances, drawn)
    everything = mismatch(draw(len(means), 1, seed=6), means, log_variances)
    assert some.mutual_information == pytest.approx(everything.mutual_information, abs=0.1)
    assert some.moments == everything.moments
