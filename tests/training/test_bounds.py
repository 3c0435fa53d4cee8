"""The model is linear and Gaussian, so that ln p(x) and the posterior are known exactly:
z ~ N(0, 1) in two dims, x given z ~ N(W z, 0.5^2) in three."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from training.bounds import Bound, LogWeight, importance_bounds

WEIGHTS = torch.tensor([[1.0, 0.5], [-0.3, 0.8], [0.2, -1.0]], dtype=torch.float64)
STD = 0.5
COVARIANCE = WEIGHTS @ WEIGHTS.T + STD**2 * torch.eye(3, dtype=torch.float64)
PRECISION = torch.eye(2, dtype=torch.float64) + WEIGHTS.T @ WEIGHTS / STD**2
ITEMS = 40


def log_normal(values: Tensor, covariance: Tensor) -> Tensor:
    """ln N(0, covariance) [N] of [N, D]."""
    mahalanobis = (values @ torch.linalg.inv(covariance) * values).sum(1)
    constant = torch.logdet(covariance) + values.shape[1] * math.log(2 * math.pi)
    return -0.5 * (mahalanobis + constant)


def log_weight_with(widening: float) -> LogWeight:
    """Log-weights with the exact posterior, its standard deviation times `widening`."""
    covariance = torch.linalg.inv(PRECISION)
    factor = torch.linalg.cholesky(covariance) * widening

    def log_weight(observations: Tensor, noise: Tensor, label: Tensor | None) -> Tensor:
        centre = observations @ WEIGHTS @ covariance / STD**2
        latents = centre + noise.double() @ factor.T
        prior = log_normal(latents, torch.eye(2, dtype=torch.float64))
        errors = observations - latents @ WEIGHTS.T
        likelihood = log_normal(errors, STD**2 * torch.eye(3, dtype=torch.float64))
        return prior + likelihood - log_normal(latents - centre, covariance * widening**2)

    return log_weight


@pytest.fixture(scope="module")
def observations() -> Tensor:
    noise = torch.randn(ITEMS, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return noise @ torch.linalg.cholesky(COVARIANCE).T


@pytest.fixture(scope="module")
def truth(observations: Tensor) -> float:
    return log_normal(observations, COVARIANCE).mean().item()


Bounds = Callable[..., list[Bound]]


@pytest.fixture
def bounds(observations: Tensor) -> Bounds:
    def bounds(
        ks: list[int], widening: float = 1.4, seed: int = 1, items: int = ITEMS, rows: int = 4000
    ) -> list[Bound]:
        generator = torch.Generator().manual_seed(seed)
        chosen = observations[:items]
        return importance_bounds(log_weight_with(widening), chosen, (2,), ks, generator, rows=rows)

    return bounds


def test_the_exact_posterior_gives_the_truth_without_variance(bounds: Bounds, truth: float) -> None:
    for bound in bounds([1, 5, 50], widening=1.0):
        assert bound.value == pytest.approx(truth, abs=1e-9)
        assert bound.monte_carlo_error == pytest.approx(0, abs=1e-6)
        assert bound.effective_sample_size == pytest.approx(bound.k)


def test_the_elbo_is_the_truth_minus_the_divergence_of_the_posterior(
    bounds: Bounds, truth: float
) -> None:
    """KL(N(0, w^2) || N(0, 1)) for each of two dims."""
    divergence = 2 * (0.5 * (1.4**2 - 1) - math.log(1.4))
    (elbo,) = [bound for bound in bounds([1, 2000]) if bound.k == 1]
    assert elbo.value == pytest.approx(truth - divergence, abs=0.01)


def test_a_bound_grows_with_its_draws_up_to_the_truth(bounds: Bounds, truth: float) -> None:
    values = [bound.value for bound in bounds([1, 2, 5, 20, 100, 5000])]
    assert values == sorted(values)
    assert values[-1] == pytest.approx(truth, abs=0.01)
    assert values[0] < truth - 0.1


def test_the_spread_over_draws_is_as_stated(bounds: Bounds) -> None:
    (stated,) = bounds([500])
    values = torch.tensor([bounds([500], seed=seed)[0].value for seed in range(30)])
    assert values.std().item() == pytest.approx(stated.monte_carlo_error, rel=0.5)


def test_the_standard_error_is_that_of_the_mean_over_items(
    bounds: Bounds, observations: Tensor
) -> None:
    (bound,) = bounds([3], widening=1.0)
    spread = log_normal(observations, COVARIANCE).std().item()
    assert bound.standard_error == pytest.approx(spread / math.sqrt(ITEMS))


def test_a_single_item_has_no_standard_error(bounds: Bounds) -> None:
    assert math.isnan(bounds([3], items=1)[0].standard_error)


def test_the_same_seed_gives_the_same_numbers(bounds: Bounds) -> None:
    assert bounds([1, 10]) == bounds([1, 10])
    assert bounds([10]) != bounds([10], seed=2)


@pytest.mark.parametrize("rows", [1, 7, 64, 10_000])
def test_any_chunk_takes_each_draw_of_each_item_once(rows: int) -> None:
    """The weight is 1 + the item's number in the first half of the draws it has had, else 3."""
    seen = torch.zeros(5, dtype=torch.int64)

    def log_weight(observations: Tensor, noise: Tensor, label: Tensor | None) -> Tensor:
        assert label is not None
        assert torch.equal(label, observations[:, 0].long())
        assert len(observations) <= rows
        weights = torch.empty(len(label))
        for row, item in enumerate(label.tolist()):
            weights[row] = 1 + item if seen[item] < 6 else 3
            seen[item] += 1
        return weights.log()

    items = torch.arange(5.0)[:, None]
    labels = torch.arange(5)
    generator = torch.Generator()
    small, all_of_them = importance_bounds(
        log_weight, items, (1,), [6, 12], generator, labels, rows=rows
    )

    assert seen.tolist() == [12] * 5
    numbers = items.double() + 1
    halves = torch.cat([numbers.log(), torch.full_like(numbers, 3).log()], 1)
    assert small.value == pytest.approx(halves.mean().item())
    assert all_of_them.value == pytest.approx((0.5 * (numbers + 3)).log().mean().item())
    assert small.effective_sample_size == pytest.approx(6)


def test_weights_that_no_float_holds_are_no_trouble() -> None:
    def log_weight(observations: Tensor, noise: Tensor, label: Tensor | None) -> Tensor:
        return torch.full((len(observations),), -5000.0)

    (bound,) = importance_bounds(log_weight, torch.zeros(2, 1), (1,), [7], torch.Generator())
    assert bound.value == pytest.approx(-5000)
    assert bound.effective_sample_size == pytest.approx(7)


@pytest.mark.parametrize(("items", "ks"), [(0, [1]), (1, []), (1, [0, 3])])
def test_a_bound_without_items_or_draws_is_refused(items: int, ks: list[int]) -> None:
    with pytest.raises(ValueError, match="at least one item and one draw"):
        importance_bounds(log_weight_with(1), torch.zeros(items, 3), (2,), ks, torch.Generator())
