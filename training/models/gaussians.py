"""Diagonal Gaussians: their draws, densities and divergences, in nats."""

import math
from collections.abc import Callable
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

_LOG_TWO_PI = math.log(2 * math.pi)
LOG_VARIANCE_RANGE = (-30.0, 20.0)  # exp stays finite and above zero in float32


def gaussian_parameters(raw: Tensor) -> tuple[Tensor, Tensor]:
    """[N, 2 L] of a network -> mean and log_variance [N, L], float32, the latter clamped."""
    mean, log_variance = raw.float().chunk(2, dim=1)
    return mean, F.hardtanh(log_variance, *LOG_VARIANCE_RANGE)  # a fifth of clamp's derivative


def reparameterize(mean: Tensor, log_variance: Tensor, noise: Tensor) -> Tensor:
    """latents = mean + std * noise, all [N, L] (Kingma & Welling 2014, section 2.4)."""
    return mean + torch.exp(0.5 * log_variance) * noise


def standard_rate(mean: Tensor, log_variance: Tensor) -> Tensor:
    """KL(N(mean, exp(log_variance)) || N(0, 1)) of each latent: [N, L] twice -> [N, L] nats.

    Closed form of Kingma & Welling 2014, appendix B.
    """
    derived = mean.requires_grad and torch.is_grad_enabled() and not torch.compiler.is_compiling()
    if derived:
        apply = cast("Callable[[Tensor, Tensor], Tensor]", _StandardRate.apply)
        return apply(mean, log_variance)
    return 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance)


class _StandardRate(torch.autograd.Function):
    """The same, derived in half as many operations as autograd takes."""

    @staticmethod
    def forward(ctx: Any, mean: Tensor, log_variance: Tensor) -> Tensor:
        """[N, L] twice -> [N, L]."""
        variance = log_variance.exp()
        ctx.save_for_backward(mean, variance)
        return mean.square().add_(variance).sub_(1).sub_(log_variance).mul_(0.5)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor]:
        """[N, L] -> by the mean and by the log-variance."""
        mean, variance = ctx.saved_tensors
        return gradient * mean, (variance - 1).mul_(0.5).mul_(gradient)


def gaussian_rate(
    mean: Tensor, log_variance: Tensor, prior_mean: Tensor, prior_log_variance: Tensor
) -> Tensor:
    """KL(N(mean, exp(log_variance)) || N(prior_mean, exp(prior_log_variance))) of each latent."""
    difference = log_variance - prior_log_variance
    distance = (mean - prior_mean).square() * torch.exp(-prior_log_variance)
    return 0.5 * (distance + difference.exp() - 1 - difference)


def standard_log_ratio(latents: Tensor, log_variance: Tensor, noise: Tensor) -> Tensor:
    """ln N(latents; 0, 1) - ln N(latents; mean, exp(log_variance)) of a draw: [N, L] -> [N] nats.

    In terms of the noise that drew the latents; the constants of both densities cancel.
    """
    return 0.5 * (noise.square() + log_variance - latents.square()).sum(1)


def log_density(latents: Tensor, mean: Tensor, log_variance: Tensor) -> Tensor:
    """ln N(latents; mean, exp(log_variance)) of each latent, elementwise."""
    distance = (latents - mean).square() * torch.exp(-log_variance)
    return -0.5 * (_LOG_TWO_PI + log_variance + distance)
