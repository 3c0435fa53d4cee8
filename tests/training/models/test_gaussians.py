import pytest
import torch
from torch.distributions import Normal, kl_divergence

from training.models.gaussians import gaussian_rate, reparameterize, standard_rate


def log_variance_of(std: float) -> torch.Tensor:
    return torch.tensor([[std]]).square().log()


def test_the_rate_of_the_textbook_is_0_168_nats() -> None:
    rate = standard_rate(torch.tensor([[0.5]]), log_variance_of(0.8))
    assert rate.item() == pytest.approx(0.168, abs=5e-4)


def test_latents_are_mean_plus_std_times_noise() -> None:
    latents = reparameterize(
        torch.tensor([[0.5]]), log_variance_of(0.8), noise=torch.tensor([[-1.5]])
    )
    assert latents.item() == pytest.approx(0.5 + 0.8 * -1.5)


def test_the_gradients_of_latents_are_one_for_the_mean_and_the_noise_for_the_std() -> None:
    mean = torch.tensor([[0.5]], requires_grad=True)
    std = torch.tensor([[0.8]], requires_grad=True)
    noise = torch.tensor([[-1.5]])

    reparameterize(mean, std.square().log(), noise).backward()

    assert mean.grad is not None
    assert std.grad is not None
    assert mean.grad.item() == 1
    assert std.grad.item() == pytest.approx(noise.item())


def test_the_rate_is_zero_where_the_posterior_is_the_prior() -> None:
    assert not standard_rate(torch.zeros(3, 4), torch.zeros(3, 4)).any()


def test_the_rate_agrees_with_torch_distributions() -> None:
    generator = torch.Generator().manual_seed(0)
    mean, log_variance = 2 * torch.randn(2, 7, 5, generator=generator)
    expected = kl_divergence(
        Normal(mean, torch.exp(0.5 * log_variance)), Normal(torch.zeros(5), torch.ones(5))
    )
    torch.testing.assert_close(standard_rate(mean, log_variance), expected)


def test_the_rate_agrees_with_monte_carlo() -> None:
    generator = torch.Generator().manual_seed(0)
    draws = 200_000
    mean = torch.tensor([[0.5, -1.0, 0.0]])
    log_variance = torch.tensor([[-0.4, 0.3, 1.0]])
    noise = torch.randn(draws, 3, generator=generator)

    latents = reparameterize(mean, log_variance, noise)

    posterior = Normal(mean, torch.exp(0.5 * log_variance))
    prior = Normal(torch.zeros(3), torch.ones(3))
    terms = (posterior.log_prob(latents) - prior.log_prob(latents)).sum(1)
    standard_error = (terms.std() / draws**0.5).item()
    rate = standard_rate(mean, log_variance).sum().item()
    assert rate == pytest.approx(terms.mean().item(), abs=4 * standard_error)
    assert standard_error < 0.01 * rate


@pytest.mark.parametrize("log_variance", [-30.0, 20.0])
def test_the_rate_is_finite_at_the_ends_of_the_log_variance(log_variance: float) -> None:
    rate = standard_rate(torch.zeros(1, 8), torch.full((1, 8), log_variance))
    assert torch.isfinite(rate).all()


def test_the_rate_to_another_gaussian_agrees_with_torch_distributions() -> None:
    generator = torch.Generator().manual_seed(0)
    mean, log_variance, prior_mean, prior_log_variance = torch.randn(4, 7, 5, generator=generator)
    expected = kl_divergence(
        Normal(mean, torch.exp(0.5 * log_variance)),
        Normal(prior_mean, torch.exp(0.5 * prior_log_variance)),
    )
    rate = gaussian_rate(mean, log_variance, prior_mean, prior_log_variance)
    torch.testing.assert_close(rate, expected)


def test_the_gradient_of_the_standard_rate_is_that_of_the_general_one() -> None:
    generator = torch.Generator().manual_seed(0)
    values = torch.randn(3, 5, 4, generator=generator, dtype=torch.float64)
    mean, log_variance, weights = (value.clone().requires_grad_() for value in values)
    zeros = torch.zeros_like(mean)
    found = []
    for rate in (
        standard_rate(mean, log_variance),
        gaussian_rate(mean, log_variance, zeros, zeros),
    ):
        total = (rate * weights).sum()
        found.append((rate, *torch.autograd.grad(total, (mean, log_variance, weights))))
    torch.testing.assert_close(*found)
