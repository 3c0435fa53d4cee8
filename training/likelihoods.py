"""p(x given z): what the decoder's output means, and its negative log-likelihood in nats.

A likelihood says how many parameters it needs, where its mean lies in [0, 1], how to start the
decoder's last layer, and the distortion. All of them compute in float32, also under autocast.
"""

import math
from collections.abc import Callable
from typing import Any, Literal, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from training.distributed import mean_over_processes
from training.errors import TrainingError
from training.model import Layout

LikelihoodName = Literal["bernoulli", "gaussian", "discretized_logistic"]
GaussianStd = float | Literal["learned", "optimal"]
_LOG_TWO_PI = math.log(2 * math.pi)
Output = nn.Linear | nn.ConvTranspose2d


class _CrossEntropy(torch.autograd.Function):
    """sum of softplus(l) - x l over all but the first dim: its gradient by l is sigmoid(l) - x.

    What autograd would do for the formula takes twice as many passes over the pixels.
    """

    @staticmethod
    def forward(ctx: Any, logits: Tensor, observations: Tensor) -> Tensor:
        """[N, ...] float32 twice -> [N]."""
        ctx.save_for_backward(logits, observations)
        losses = F.softplus(logits).addcmul_(observations, logits, value=-1)
        return losses.flatten(1).sum(1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        """Of the sums [N] -> by the logits, [N, ...]."""
        logits, observations = ctx.saved_tensors
        by_item = gradient.view(-1, *[1] * (logits.dim() - 1))
        return torch.sigmoid(logits).sub_(observations).mul_(by_item), None


class Bernoulli(nn.Module):
    """Independent binary pixels, from logits."""

    name = "bernoulli"

    def parameter_shape(self, shape: tuple[int, int, int]) -> tuple[int, int, int]:
        """Of the decoder's output: that of an observation."""
        return shape

    def mean(self, parameters: Tensor) -> Tensor:
        """The probabilities."""
        return torch.sigmoid(parameters.float())

    def initialize(self, output: Output, mean_observation: Tensor) -> None:
        """Start the bias of the last layer at the mean [C, H, W] of the data."""
        _bias(output).copy_(_mean_logits(output, mean_observation))

    def distortion(self, parameters: Tensor, observations: Tensor) -> Tensor:
        """-ln p(x given z) [N] in nats: the cross-entropy, summed over all but the first dim.

        `parameters` are logits of the shape of `observations`, which are 0 or 1 for a likelihood;
        values between give the expectation over their binarization.
        """
        logits = parameters.float()
        if self.training and logits.requires_grad:
            apply = cast("Callable[[Tensor, Tensor], Tensor]", _CrossEntropy.apply)
            return apply(logits, observations.float())
        # binary_cross_entropy_with_logits is the same here, but becomes log(sigmoid(logits)) in an
        # ONNX graph, which is infinite where logits are far from zero.
        losses = F.softplus(logits) - observations.float() * logits
        return losses.flatten(1).sum(1)


class Gaussian(nn.Module):
    """Independent pixels around sigmoid(parameters) with one standard deviation for all.

    The density is over observations in [0, 1]; those that are no pixels (`bounded` false) have
    the parameters themselves as their mean. `std` is a number; or "learned", a scalar; or
    "optimal": the root of the mean squared error, which is its best value (sigma-VAE, Rybkin et
    al. 2021), of the batch in train mode and of the frozen `variance` in eval mode, which is a
    buffer and thus part of every checkpoint. A soft floor keeps a learned one above exp(-6), where
    the density on discrete pixels would otherwise grow without bound; the same floor is hard for
    an optimal one.
    """

    name = "gaussian"
    minimum_log_std = -6.0

    def __init__(self, std: GaussianStd, bounded: bool = True) -> None:
        super().__init__()
        self.bounded = bounded
        self.kind = std if isinstance(std, str) else "fixed"
        self.variance: Tensor
        if self.kind == "optimal":
            self.register_buffer("variance", torch.tensor(1.0))
        else:
            initial = torch.tensor(0.0 if isinstance(std, str) else math.log(std))
            self.raw_log_std = nn.Parameter(initial, requires_grad=self.kind == "learned")

    def parameter_shape(self, shape: tuple[int, int, int]) -> tuple[int, int, int]:
        """Of the decoder's output: that of an observation."""
        return shape

    def mean(self, parameters: Tensor) -> Tensor:
        """[N, C, H, W], in [0, 1] if bounded."""
        return torch.sigmoid(parameters.float()) if self.bounded else parameters.float()

    def initialize(self, output: Output, mean_observation: Tensor) -> None:
        """Start the bias of the last layer at the mean [C, H, W] of the data.

        A learned standard deviation of pixels starts at the largest that such means allow (Bhatia
        & Davis 2000): from 1 it would take thousands of steps at a usual learning rate, and the
        rate would weigh too much for as long.
        """
        link = _mean_logits if self.bounded else _means
        _bias(output).copy_(link(output, mean_observation))
        if self.kind == "learned" and self.bounded:
            means = mean_observation.clamp(0.01, 0.99)
            variance = (means * (1 - means)).mean()
            above = 0.5 * variance.log() - self.minimum_log_std
            self.raw_log_std.copy_(above.expm1().log() + self.minimum_log_std)

    def log_std(self) -> Tensor:
        """Natural logarithm of the standard deviation, a scalar tensor."""
        if self.kind == "optimal":
            return (0.5 * self.variance.log()).clamp(min=self.minimum_log_std)
        if self.kind == "fixed":
            return self.raw_log_std
        return self.minimum_log_std + F.softplus(self.raw_log_std - self.minimum_log_std)

    def freeze(self, mean_squared_error: Tensor) -> None:
        """Set what "optimal" means in eval mode, from the training split."""
        self.variance.copy_(mean_squared_error)

    def distortion(self, parameters: Tensor, observations: Tensor) -> Tensor:
        """-ln p(x given z) [N] in nats, the full density: 0.5 ln(2 pi std^2) + 0.5 (x-m)^2/std^2.

        `parameters` are logits of the mean m, of the shape of `observations`.
        """
        errors = observations.float() - self.mean(parameters)
        log_std = self.log_std().float()
        if self.kind == "optimal" and self.training:
            # Detached: at the optimum the gradient of the loss by the variance is zero anyway.
            variance = mean_over_processes(errors.detach().square().mean())
            log_std = (0.5 * variance.log()).clamp(min=self.minimum_log_std)
        losses = 0.5 * (_LOG_TWO_PI + (errors * torch.exp(-log_std)).square()) + log_std
        return losses.flatten(1).sum(1)


class DiscretizedLogistic(nn.Module):
    """Each level of a pixel has the mass of a logistic in its bin (Kingma et al. 2016).

    The decoder gives the logit of the location in [0, 1] and the logarithm of the scale for each
    pixel, as the first and second half of its channels. The outermost bins reach to infinity, so
    that the probabilities of all `maximum` + 1 levels sum to 1.
    """

    name = "discretized_logistic"
    log_scale_range = (-7.0, 3.0)
    initial_log_scale = -2.0

    def __init__(self, maximum: int) -> None:
        super().__init__()
        self.maximum = maximum

    def parameter_shape(self, shape: tuple[int, int, int]) -> tuple[int, int, int]:
        """Of the decoder's output: twice the channels."""
        return 2 * shape[0], shape[1], shape[2]

    def mean(self, parameters: Tensor) -> Tensor:
        """The location [N, C, H, W] in [0, 1]."""
        return torch.sigmoid(parameters.float().chunk(2, dim=1)[0])

    def initialize(self, output: Output, mean_observation: Tensor) -> None:
        """Start the bias of the last layer at the mean [C, H, W] of the data."""
        logits = _mean_logits(output, mean_observation)
        scales = torch.full_like(logits, self.initial_log_scale)
        _bias(output).copy_(torch.cat([logits, scales]))

    def distortion(self, parameters: Tensor, observations: Tensor) -> Tensor:
        """-ln P(x given z) [N] in nats; observations [N, C, H, W] are levels / maximum."""
        location, raw = parameters.float().chunk(2, dim=1)
        log_scale = raw.clamp(*self.log_scale_range)
        centred = observations.float() - torch.sigmoid(location)
        precision = torch.exp(-log_scale)
        half = 0.5 / self.maximum
        upper = (centred + half) * precision
        lower = (centred - half) * precision
        # ln(sigmoid(u) - sigmoid(l)) without cancellation, as exp(l - u) < 1.
        width = 2 * half * precision
        inside = torch.log(-torch.expm1(-width)) - F.softplus(-upper) - F.softplus(lower)
        first = observations < half
        last = observations > 1 - half
        losses = torch.where(
            first, F.softplus(-upper), torch.where(last, F.softplus(lower), -inside)
        )
        return losses.flatten(1).sum(1)


Likelihood = Bernoulli | Gaussian | DiscretizedLogistic


def build_likelihood(name: LikelihoodName, gaussian_std: GaussianStd, layout: Layout) -> Likelihood:
    """The likelihood of that name; `gaussian_std` is for "gaussian" only."""
    if name == "gaussian":
        return Gaussian(gaussian_std, bounded=layout.maximum is not None)
    if layout.maximum is None:
        raise TrainingError(f"likelihood {name} needs pixels; these data are other numbers")
    return Bernoulli() if name == "bernoulli" else DiscretizedLogistic(layout.maximum)


def binarize(observations: Tensor, generator: torch.Generator) -> Tensor:
    """A fresh Bernoulli draw with `observations` in [0, 1] as probabilities; same shape, 0 or 1.

    Drawn again for every batch of a fit (Salakhutdinov & Murray 2008), once for an evaluation.
    """
    return torch.bernoulli(observations, generator=generator)


def bits_per_dim(likelihood_name: str, nats: float, dims: int, maximum: int | None) -> float:
    """Nats per item as bits per dimension: nats / (dims ln 2), plus log2(maximum) for "gaussian".

    Bernoulli: bits of a binarized pixel. Gaussian: `nats` come from a density on [0, 1], where
    pixel k sits at k / maximum, the middle of a bin 1 / maximum wide; the bin's probability is
    taken as density times width (the midpoint rule; no dequantization noise is added).
    """
    bits = nats / (dims * math.log(2))
    return bits + math.log2(maximum or 1) if likelihood_name == Gaussian.name else bits


def _bias(output: Output) -> Tensor:
    assert output.bias is not None
    return output.bias


def _mean_logits(output: Output, mean_observation: Tensor) -> Tensor:
    return torch.logit(_means(output, mean_observation).clamp(0.01, 0.99))


def _means(output: Output, mean_observation: Tensor) -> Tensor:
    """Dense layers have a bias per pixel; convolutions one per channel, the mean over pixels."""
    if isinstance(output, nn.Linear):
        return mean_observation.flatten()
    return mean_observation.mean((1, 2))
