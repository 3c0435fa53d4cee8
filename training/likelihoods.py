"""p(x given z): what the decoder's output means, and its negative log-likelihood in nats.

Both read the decoder's output as logits of a mean in [0, 1], so that `Vae.decode` is bounded
whatever the likelihood.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_LOG_TWO_PI = math.log(2 * math.pi)


class Bernoulli(nn.Module):
    """Independent binary pixels, from logits."""

    name = "bernoulli"

    def distortion(self, parameters: Tensor, observations: Tensor) -> Tensor:
        """-ln p(x given z) [N] in nats: the cross-entropy, summed over all but the first dim.

        `parameters` are logits of the shape of `observations`, which are 0 or 1 for a likelihood;
        values between give the expectation over their binarization. Computed in float32.
        """
        losses = F.binary_cross_entropy_with_logits(
            parameters.float(), observations.float(), reduction="none"
        )
        return losses.flatten(1).sum(1)


class Gaussian(nn.Module):
    """Independent pixels with one standard deviation, fixed or learned as a scalar.

    The density is over observations in [0, 1]. A learned standard deviation is the sigma-VAE of
    Rybkin et al. 2021, whose soft floor keeps it above exp(-6), where density on discrete pixels
    would otherwise grow without bound.
    """

    name = "gaussian"
    minimum_log_std = -6.0

    def __init__(self, std: float | None) -> None:
        super().__init__()
        initial = torch.tensor(0.0 if std is None else math.log(std))
        self.learned = std is None
        self.raw_log_std = nn.Parameter(initial, requires_grad=self.learned)

    def log_std(self) -> Tensor:
        """Natural logarithm of the standard deviation, a scalar tensor."""
        if not self.learned:
            return self.raw_log_std
        return self.minimum_log_std + F.softplus(self.raw_log_std - self.minimum_log_std)

    def distortion(self, parameters: Tensor, observations: Tensor) -> Tensor:
        """-ln p(x given z) [N] in nats, the full density: 0.5 ln(2 pi std^2) + 0.5 (x-m)^2/std^2.

        `parameters` are logits of the mean m, of the shape of `observations`. Float32.
        """
        log_std = self.log_std().float()
        errors = observations.float() - torch.sigmoid(parameters.float())
        losses = 0.5 * (_LOG_TWO_PI + (errors * torch.exp(-log_std)).square()) + log_std
        return losses.flatten(1).sum(1)


Likelihood = Bernoulli | Gaussian


def binarize(observations: Tensor, generator: torch.Generator) -> Tensor:
    """A fresh Bernoulli draw with `observations` in [0, 1] as probabilities; same shape, 0 or 1.

    Drawn again for every batch of a fit (Salakhutdinov & Murray 2008), once for an evaluation.
    """
    return torch.bernoulli(observations, generator=generator)


def bits_per_dim(likelihood_name: str, nats: float, dims: int, maximum: int) -> float:
    """Nats per item as bits per dimension: nats / (dims ln 2), plus log2(maximum) for "gaussian".

    Bernoulli: bits of a binarized pixel. Gaussian: `nats` come from a density on [0, 1], where
    pixel k sits at k / maximum, the middle of a bin 1 / maximum wide; the bin's probability is
    taken as density times width (the midpoint rule; no dequantization noise is added).
    """
    bits = nats / (dims * math.log(2))
    return bits + math.log2(maximum) if likelihood_name == Gaussian.name else bits
