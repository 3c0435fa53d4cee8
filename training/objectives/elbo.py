"""The evidence lower bound: ELBO = -(rate + distortion), in nats per item."""

from torch import Tensor

from training.distributed import mean_over_processes
from training.model import Terms


def negative_elbo(terms: Terms) -> Tensor:
    """[N] nats: rate + distortion, at weight 1."""
    return terms.rate.sum(1) + terms.distortion


def weighted_bound(terms: Terms, kl_weight: float | Tensor = 1.0, free_bits: float = 0.0) -> Tensor:
    """The loss, a scalar: mean of distortion + kl_weight * rate + auxiliary.

    A latent or group whose rate is below `free_bits` on average over the batch (of all processes)
    gets no gradient from it: max(mean rate, free_bits) of Kingma et al. 2016, but for a constant.
    The weight comes after the maximum.
    """
    if free_bits > 0:
        rates = terms.rate.mean(0)
        rates = rates.where(mean_over_processes(rates.detach().clone()) > free_bits, free_bits)
        rate = rates.sum()
    else:
        rate = terms.rate.sum() / len(terms.rate)
    costs = terms.distortion
    if terms.auxiliary is not None:
        costs = costs + terms.auxiliary
    return costs.mean() + kl_weight * rate
