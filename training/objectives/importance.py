"""The importance-weighted bound (Burda et al. 2016) and its doubly reparameterized gradient."""

import math

import torch
from torch import Tensor

from training.model import Gaussian, Terms
from training.models.gaussians import gaussian_rate, log_density, reparameterize


def importance_weighted(
    model: Gaussian, observations: Tensor, noise: Tensor, label: Tensor | None, dreg: bool
) -> tuple[Tensor, Terms]:
    """The mean of -(ln mean of K weights) and the terms of the draws' average.

    `noise` is [K, N, L]. With `dreg` (Tucker et al. 2019, equation 8) the encoder's gradient comes
    through the latents alone, by the square of the normalized weights, and the value stays.
    """
    draws, count = noise.shape[:2]
    posterior, prior = model.posterior(observations, label), model.prior(label)
    latents = reparameterize(*posterior, noise)
    score = tuple(value.detach() for value in posterior) if dreg else posterior
    used = latents
    if dreg and latents.requires_grad:
        used = latents.view_as(latents)  # a node of its own, whose gradient is weighted below
    ratio = (log_density(used, *prior) - log_density(used, *score)).sum(-1)
    repeated = None if label is None else label.repeat(draws)
    distortion = model.distortion(
        observations.repeat(draws, *[1] * (observations.dim() - 1)), used.flatten(0, 1), repeated
    ).reshape(draws, count)
    log_weights = ratio - distortion
    bound = torch.logsumexp(log_weights, 0) - math.log(draws)
    terms = Terms(
        gaussian_rate(*posterior, *prior).detach(),
        distortion.detach().mean(0),
        bound.detach(),
    )
    if not dreg:
        return -bound.mean(), terms
    weights = torch.softmax(log_weights.detach(), 0)
    if used is not latents:
        used.register_hook(  # type: ignore[no-untyped-call]
            lambda gradient: gradient * weights.unsqueeze(-1)
        )
    surrogate = (weights * log_weights).sum(0)
    return -(surrogate + (bound - surrogate).detach()).mean(), terms
