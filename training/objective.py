"""The evidence lower bound: ELBO = -(rate + distortion), in nats per item."""

from dataclasses import dataclass

import torch
from torch import Tensor

from training.models import Vae


@dataclass(frozen=True)
class Elbo:
    """One draw's terms per item, each [N] float32 in nats; elbo = -(rate + distortion)."""

    rate: Tensor
    distortion: Tensor

    @property
    def elbo(self) -> Tensor:
        """[N] nats."""
        return -(self.rate + self.distortion)


def gaussian_rate(mean: Tensor, log_variance: Tensor) -> Tensor:
    """KL(N(mean, exp(log_variance)) || N(0, 1)) summed over latents: [N, L] twice -> [N] nats.

    Closed form of Kingma & Welling 2014, appendix B.
    """
    return 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).sum(1)


def reparameterize(mean: Tensor, log_variance: Tensor, noise: Tensor) -> Tensor:
    """latents = mean + std * noise, all [N, L] (Kingma & Welling 2014, section 2.4)."""
    return mean + torch.exp(0.5 * log_variance) * noise


def elbo(model: Vae, observations: Tensor, noise: Tensor) -> Elbo:
    """Terms for observations [N, C, H, W] in [0, 1] with one draw of noise [N, L]."""
    mean, log_variance = model.encode(observations)
    latents = reparameterize(mean, log_variance, noise)
    return Elbo(gaussian_rate(mean, log_variance), model.distortion(observations, latents))


def negative_elbo(
    model: Vae, observations: Tensor, noise: Tensor, kl_weight: float = 1.0
) -> tuple[Tensor, Elbo]:
    """The loss, a scalar: mean of distortion + kl_weight * rate; and the terms it came from."""
    terms = elbo(model, observations, noise)
    return (terms.distortion + kl_weight * terms.rate).mean(), terms
