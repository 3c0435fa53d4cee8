"""What the latents of a set of items are like: which are used, and how q(z) differs from p(z).

q(z) is the aggregated posterior, the mean of q(z given x) over the given items. In the ELBO,
rate = I(x; z) + KL(q(z) || p(z)) (Hoffman & Johnson 2016): what the latents tell about the item,
and the mismatch that makes samples from the prior worse than reconstructions.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

ACTIVE_VARIANCE = 0.01
ACTIVE_RATE = 0.1
_LOG_TWO_PI = math.log(2 * math.pi)
_ROWS = 500


@dataclass(frozen=True)
class Mismatch:
    """In nats; the parts of the mean rate, which is `mutual_information` + `divergence`.

    mutual_information: I(x; z) between the item's index and its latents, at most ln N.
    divergence: KL(q(z) || p(z)), from draws.
    moments: KL between N(mean, covariance) of q(z) and p(z), without draws; never above the true
    divergence, since KL(q || p) = KL(q || its Gaussian) + KL(its Gaussian || p).
    """

    mutual_information: float
    divergence: float
    moments: float


def active_units(means: Tensor) -> int:
    """Latents whose posterior mean [N, L] has a variance over items above 0.01 (Burda 2016)."""
    return int((means.double().var(0, correction=0) > ACTIVE_VARIANCE).sum())


def active_units_by_rate(rates: Tensor) -> int:
    """Latents, or groups of them, whose rate [N, G] is above 0.1 nat in the mean over items."""
    return int((rates.double().mean(0) > ACTIVE_RATE).sum())


def rate_by_unit(means: Tensor, log_variances: Tensor) -> Tensor:
    """KL(q(z_l given x) || N(0, 1)) in nats, by latent: [N, L] twice -> [N, L] float32."""
    means, log_variances = means.float(), log_variances.float()
    return 0.5 * (means.square() + log_variances.exp() - 1 - log_variances)


def moments(means: Tensor, log_variances: Tensor) -> tuple[Tensor, Tensor]:
    """Mean [L] and covariance [L, L] of q(z), float64, exact for these items: [N, L] twice.

    The covariance is that of the means plus the mean of the variances.
    """
    means = means.double()
    mean = means.mean(0)
    centred = means - mean
    within = log_variances.double().exp().mean(0)
    return mean, centred.T @ centred / len(means) + torch.diag(within)


def log_aggregated_posterior(latents: Tensor, means: Tensor, log_variances: Tensor) -> Tensor:
    """ln q(z) in nats [M] float64 of latents [M, L], for the mixture of N posteriors [N, L].

    Every component counts, so nothing is estimated. M x N densities from two matrix products, for
    some hundred latents at a time.
    """
    means, log_variances = means.double(), log_variances.double()
    precisions = torch.exp(-log_variances)
    offsets = (means.square() * precisions + log_variances + _LOG_TWO_PI).sum(1)
    weighted = means * precisions

    def of_chunk(chunk: Tensor) -> Tensor:
        exponents = chunk.square() @ precisions.T - 2 * chunk @ weighted.T + offsets
        return torch.logsumexp(-0.5 * exponents, 1) - math.log(len(means))

    return torch.cat([of_chunk(chunk) for chunk in torch.split(latents.double(), _ROWS)])


def mismatch(
    noise: Tensor, means: Tensor, log_variances: Tensor, drawn: Tensor | None = None
) -> Mismatch:
    """The mismatch to a standard normal prior of N posteriors, [N, L] twice.

    There is one draw, with standard normal noise [M, L], from each of the posteriors whose indices
    [M] are in `drawn`; None means all. The mutual information is the mean of
    ln q(z given x) - ln q(z) and the divergence that of the rate minus it, with the rate in closed
    form. q(z) is the mixture over these items. For a larger population the mutual information is
    too low, the more the nearer it is to ln N (at most ln N can be seen), and the divergence too
    high by as much; `moments` has no such bias.
    """
    noise, log_variances = noise.double(), log_variances.double()
    chosen = slice(None) if drawn is None else drawn
    latents = means[chosen].double() + torch.exp(0.5 * log_variances[chosen]) * noise
    log_posterior = -0.5 * (noise.square() + log_variances[chosen] + _LOG_TWO_PI).sum(1)
    log_aggregated = log_aggregated_posterior(latents, means, log_variances)
    information = (log_posterior - log_aggregated).mean().item()
    rate = rate_by_unit(means, log_variances).double().sum(1).mean().item()
    mean, covariance = moments(means, log_variances)
    gaussian = covariance.trace() + mean.square().sum() - len(mean) - torch.logdet(covariance)
    return Mismatch(information, rate - information, 0.5 * gaussian.item())


def maximum_mean_discrepancy(first: Tensor, second: Tensor) -> float:
    """MMD^2 between two samples [M, L] and [N, L]: 0 in expectation if they are of one law.

    The unbiased estimator (Gretton et al. 2012) with the kernel C / (C + distance^2), C = 2 L
    (Tolstikhin et al. 2018). The time grows with M x N: some thousand items are enough.
    """
    scale = 2.0 * first.shape[1]

    def kernel(a: Tensor, b: Tensor) -> Tensor:
        return scale / (scale + torch.cdist(a.double(), b.double()).square())

    def within(sample: Tensor) -> Tensor:
        count = len(sample)
        return (kernel(sample, sample).sum() - count) / (count * (count - 1))

    between = kernel(first, second).mean()
    return (within(first) + within(second) - 2 * between).item()
