"""The rate in three parts (Chen et al. 2018): index-code mutual information, total correlation
and dimension-wise rate, with q(z) estimated from the batch."""

import math
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from training.model import Gaussian, Terms
from training.models.gaussians import gaussian_rate, log_density, reparameterize

Estimator = Literal["weighted", "stratified"]


class RateParts(NamedTuple):
    """Each [N] nats; their sum is ln q(z given x) - ln p(z), the rate of one draw."""

    mutual_information: Tensor
    total_correlation: Tensor
    dimension_rate: Tensor


def rate_parts(
    latents: Tensor,
    posterior: tuple[Tensor, Tensor],
    prior: tuple[Tensor, Tensor],
    train_size: int,
    estimator: Estimator,
) -> RateParts:
    """Parts for latents [N, L] drawn from posteriors [N, L], from a training split of that size.

    "weighted" is minibatch-weighted sampling, biased towards small batches; "stratified" gives the
    item itself the weight that it has in the split (Chen et al. 2018, appendix C).
    """
    mean, log_variance = posterior
    each = log_density(latents.unsqueeze(1), mean.unsqueeze(0), log_variance.unsqueeze(0))
    log_weights = _log_weights(len(latents), train_size, estimator, latents.device)
    log_joint = torch.logsumexp(each.sum(2) + log_weights, 1)
    log_product = torch.logsumexp(each + log_weights.unsqueeze(2), 1).sum(1)
    log_posterior = log_density(latents, mean, log_variance).sum(1)
    log_prior = log_density(latents, *prior).sum(1)
    return RateParts(log_posterior - log_joint, log_joint - log_product, log_product - log_prior)


def total_correlation_loss(
    model: Gaussian,
    observations: Tensor,
    noise: Tensor,
    label: Tensor | None,
    kl_weight: float | Tensor,
    train_size: int,
    estimator: Estimator,
) -> tuple[Tensor, Terms]:
    """distortion + mutual information + kl_weight * total correlation + dimension-wise rate.

    At weight 1 that is the negative ELBO of the draw.
    """
    posterior, prior = model.posterior(observations, label), model.prior(label)
    latents = reparameterize(*posterior, noise)
    distortion = model.distortion(observations, latents, label)
    parts = rate_parts(latents, posterior, prior, train_size, estimator)
    rate = gaussian_rate(*posterior, *prior)
    terms = Terms(rate, distortion)
    information, correlation, by_dim = parts
    return (distortion + information + kl_weight * correlation + by_dim).mean(), terms


def _log_weights(batch: int, train_size: int, estimator: Estimator, device: torch.device) -> Tensor:
    """[N, N]: ln of the weight of posterior j in the estimate of q at the latents of item i."""
    if estimator == "weighted" or batch == 1:
        return torch.full((batch, batch), -math.log(batch * train_size), device=device)
    # The other items of the batch stand for all other items of the split.
    other = (train_size - 1) / (train_size * (batch - 1))
    log_other = math.log(other) if train_size > 1 else -math.inf
    weights = torch.full((batch, batch), log_other, device=device)
    return weights.fill_diagonal_(-math.log(train_size))
