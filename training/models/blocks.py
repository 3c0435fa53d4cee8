"""Residual blocks of a ladder, which goes up in bottlenecks and comes down through latents."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from training.models.gaussians import reparameterize

LOG_STD_BOUND = 5.0
_SMALLEST_SIDE = 3  # a 3x3 kernel on fewer pixels sees padding

Side = tuple[int, int]
Draw = tuple[Tensor, Tensor, Tensor, Tensor, Tensor]


class Bottleneck(nn.Sequential):
    """Pre-activation: [N, inputs, h, w] -> [N, outputs, h, w], narrow inside.

    `last_scale` multiplies the last convolution's initial weights.
    """

    def __init__(
        self, inputs: int, outputs: int, share: float, side: Side, last_scale: float
    ) -> None:
        inner = max(1, round(share * inputs))
        kernel = 3 if min(side) >= _SMALLEST_SIDE else 1
        last = nn.Conv2d(inner, outputs, 1)
        with torch.no_grad():
            last.weight *= last_scale
            assert last.bias is not None
            last.bias.zero_()
        super().__init__(
            nn.GELU(),
            nn.Conv2d(inputs, inner, 1),
            nn.GELU(),
            nn.Conv2d(inner, inner, kernel, padding=kernel // 2),
            nn.GELU(),
            last,
        )


class Residual(nn.Module):
    """x + f(x), f small at first: its last convolution is scaled by 1 / sqrt(depth)."""

    def __init__(self, channels: int, share: float, side: Side, depth: int) -> None:
        super().__init__()
        self.branch = Bottleneck(channels, channels, share, side, 1 / math.sqrt(depth))

    def forward(self, features: Tensor) -> Tensor:
        """[N, channels, h, w] twice."""
        result: Tensor = features + self.branch(features)
        return result


class Enlarge(nn.Module):
    """The step to the next finer level: the nearest neighbour, and a bias for each position.

    From a single position a dense layer, since its neighbours would all be alike.
    """

    def __init__(self, channels: int, before: Side, side: Side) -> None:
        super().__init__()
        self.side = side
        self.bias = nn.Parameter(torch.zeros(1, channels, *side))
        self.dense = nn.ConvTranspose2d(channels, channels, side) if before == (1, 1) else None

    def forward(self, features: Tensor) -> Tensor:
        """[N, channels, *before] -> [N, channels, *side]."""
        if self.dense is not None:
            grown: Tensor = self.dense(features)
        else:
            grown = F.interpolate(features, size=self.side, mode="nearest")
        return grown + self.bias


class TopDownBlock(nn.Module):
    """One latent group on the way down, with its prior and its posterior.

    The prior's last convolution starts at 0, and so the prior at N(0, 1).
    """

    def __init__(self, channels: int, latents: int, share: float, side: Side, depth: int) -> None:
        super().__init__()
        self.sizes = [latents, latents, channels]
        self.prior_branch = Bottleneck(channels, 2 * latents + channels, share, side, 0.0)
        self.posterior_branch = Bottleneck(2 * channels, 2 * latents, share, side, 1.0)
        self.projection = nn.Conv2d(latents, channels, 1)
        with torch.no_grad():
            self.projection.weight /= math.sqrt(depth)
        self.residual = Residual(channels, share, side, depth)

    def prior(self, features: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """mean and log_variance of the group's prior [N, latents, h, w], and the features on."""
        mean, raw, rest = self.prior_branch(features).split(self.sizes, dim=1)
        return mean.float(), bounded_log_variance(raw), features + rest

    def posterior(self, features: Tensor, evidence: Tensor) -> tuple[Tensor, Tensor]:
        """mean and log_variance [N, latents, h, w], from the encoder's features of this level."""
        raw = self.posterior_branch(torch.cat([features, evidence], 1))
        mean, raw = raw.chunk(2, dim=1)
        return mean.float(), bounded_log_variance(raw)

    def merge(self, features: Tensor, latents: Tensor) -> Tensor:
        """The features of `prior` with the group's latents [N, latents, h, w]."""
        merged: Tensor = self.residual(features + self.projection(latents))
        return merged

    def draw(self, features: Tensor, evidence: Tensor, noise: Tensor) -> tuple[Draw, Tensor]:
        """(latents, the posterior's and the prior's parameters), and the features after them."""
        mean, log_variance = self.posterior(features, evidence)
        prior_mean, prior_log_variance, features = self.prior(features)
        latents = reparameterize(mean, log_variance, noise)
        draw = (latents, mean, log_variance, prior_mean, prior_log_variance)
        return draw, self.merge(features, latents)


def bounded_log_variance(raw: Tensor) -> Tensor:
    """Of a network's raw log-std: smooth, and a std between exp(-5) and exp(5)."""
    return 2 * LOG_STD_BOUND * torch.tanh(raw.float() / LOG_STD_BOUND)
