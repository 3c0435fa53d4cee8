import math
from typing import get_args

import pytest
import torch

from training.models import Layout, MlpConfig
from training.models.gaussians import log_density, reparameterize
from training.objectives.total_correlation import Estimator, rate_parts, total_correlation_loss

ZEROS = (torch.zeros(1, 3), torch.zeros(1, 3))


def posteriors(items: int) -> tuple[torch.Tensor, torch.Tensor]:
    mean, log_variance = torch.randn(2, items, 3, generator=torch.Generator().manual_seed(0))
    return 2 * mean, log_variance - 1


@pytest.mark.parametrize("estimator", get_args(Estimator))
def test_the_parts_sum_to_the_rate_of_the_draw(estimator: Estimator) -> None:
    posterior = posteriors(20)
    noise = torch.randn(20, 3, generator=torch.Generator().manual_seed(1))
    latents = reparameterize(*posterior, noise)
    parts = rate_parts(latents, posterior, ZEROS, 1000, estimator)
    rate = (log_density(latents, *posterior) - log_density(latents, *ZEROS)).sum(1)
    torch.testing.assert_close(sum(parts), rate)


def test_the_stratified_estimate_of_q_is_unbiased_and_the_weighted_is_not() -> None:
    """exp(-information) times q(z given x) is the estimate of q(z), on average over batches."""
    size, batch = 12, 4
    mean, log_variance = posteriors(size)
    generator = torch.Generator().manual_seed(2)
    latents = mean + torch.exp(0.5 * log_variance) * torch.randn(size, 3, generator=generator)
    each = log_density(latents[:1].unsqueeze(1), mean, log_variance.unsqueeze(0)).sum(2)
    truth = torch.logsumexp(each, 1) - math.log(size)
    found = {}
    for estimator in get_args(Estimator):
        estimates = []
        for _ in range(2000):
            others = 1 + torch.randperm(size - 1, generator=generator)[: batch - 1]
            chosen = torch.cat([torch.zeros(1, dtype=torch.long), others])
            posterior = (mean[chosen], log_variance[chosen])
            parts = rate_parts(latents[chosen], posterior, ZEROS, size, estimator)
            own = log_density(latents[:1], mean[:1], log_variance[:1]).sum()
            estimates.append((own - parts.mutual_information[0]).exp())
        found[estimator] = torch.stack(estimates).mean().log().item()
    assert found["stratified"] == pytest.approx(truth.item(), abs=0.02)
    assert abs(found["weighted"] - truth.item()) > 0.5


def test_independent_latents_have_no_total_correlation_and_equal_ones_have() -> None:
    generator = torch.Generator().manual_seed(0)
    mean = torch.randn(800, 2, generator=generator)
    narrow = torch.full((800, 2), -3.0)
    zeros = (torch.zeros(1, 2), torch.zeros(1, 2))
    found = []
    for means in (mean, mean[:, :1].expand(-1, 2)):
        draw = torch.randn(800, 2, generator=generator)
        latents = reparameterize(means, narrow, draw)
        parts = rate_parts(latents, (means, narrow), zeros, 800, "stratified")
        found.append(parts.total_correlation.mean().item())
    assert found[0] == pytest.approx(0, abs=0.1)
    assert found[1] > 1


def test_at_weight_one_the_loss_is_the_negative_elbo_of_the_draw() -> None:
    model = MlpConfig(latent_size=3, hidden_sizes=(5,)).build(Layout((1, 4, 4)))
    observations = torch.rand(6, 1, 4, 4, generator=torch.Generator().manual_seed(1))
    noise = torch.randn(6, 3, generator=torch.Generator().manual_seed(2))
    loss, _ = total_correlation_loss(model, observations, noise, None, 1.0, 100, "stratified")
    weight = model.eval().elbo_terms(observations, noise).log_weight
    assert weight is not None
    torch.testing.assert_close(loss, -weight.mean())
