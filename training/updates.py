"""One step of a fit: loss, gradient, guards, update."""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from training.config import FitConfig, OptimizerConfig
from training.distributed import add_over_processes, mean_over_processes, process_count
from training.model import Terms
from training.precision import Precision, rounded_products
from training.state import FitState, average_weights

_NORM_MEMORY = 0.99
_SMALL = 2**12  # numbers

# The numbers of a step, and its gradient: one vector, or a tensor of each fitted parameter.
Computed = tuple[Tensor, list[Tensor]]


def learning_rate(config: OptimizerConfig, step: int, steps: int) -> float:
    """At `step` of `steps`: a linear rise, then a cosine (Loshchilov & Hutter 2017)."""
    cosine = 0.5 * (1 + math.cos(math.pi * step / steps))
    share = config.final_fraction + (1 - config.final_fraction) * cosine
    return config.learning_rate * share * min(1.0, (step + 1) / max(1, config.warmup_steps))


def backward(
    state: FitState, compute_loss: Callable[[], tuple[Tensor, Terms]], precision: Precision
) -> Computed:
    """Put the gradient of the loss into the parameters.

    The numbers are [5] float64 on the device: the rates' sum, the distortions', how many items
    they are of, the loss and the gradient's norm. Nothing waits for them here, so that a CUDA graph
    can hold it all.
    """
    with rounded_products(precision):
        value, terms = compute_loss()
        state.gradient.zero_()
        value.backward()  # type: ignore[no-untyped-call]
    return numbers_of(sums_of(value, terms), norm_of([state.gradient])), [state.gradient]


def sums_of(value: Tensor, terms: Terms) -> Tensor:
    """[4]: the first of the numbers, all but the norm."""
    return torch.stack(
        [
            terms.rate.detach().sum(),
            terms.distortion.detach().sum(),
            terms.distortion.new_full((), len(terms.distortion)),
            value.detach(),
        ]
    )


def norm_of(gradients: Sequence[Tensor]) -> Tensor:
    """The Euclidean norm; a product with itself is a half of linalg.vector_norm's time."""
    flat = [part.view(-1) for part in gradients]
    parts = [part for part in flat if len(part) >= _SMALL]
    small = [part for part in flat if len(part) < _SMALL]
    if len(small) > 1:  # biases, each of which takes as long as all
        small = [torch.cat(small)]
    return torch.stack([torch.dot(part, part) for part in parts + small]).sum().sqrt()


def numbers_of(sums: Tensor, norm: Tensor) -> Tensor:
    """[4] and [] -> [5] float64."""
    return torch.cat([sums, norm[None]]).double()


def update(
    state: FitState,
    config: FitConfig,
    steps: int,
    compute: Callable[[], Computed],
    stopping: bool,
) -> tuple[bool, bool]:
    """Take one step and count it; (whether its numbers were finite, whether any process stops).

    `compute` is `backward`, or does the same. The mean loss of equal shares, summed over processes
    by their gradients, is that of the whole batch. A step whose loss or gradient is not finite, or
    whose gradient is far larger than usual, changes no weight.
    """
    counters, settings = state.counters, config.optimizer
    numbers, gradients = compute()
    numbers, stops = _over_processes(state, numbers, stopping)
    *epoch_sums, total, norm = numbers.tolist()
    finite = math.isfinite(total) and math.isfinite(norm) and all(map(math.isfinite, epoch_sums))
    if finite and _is_usual(norm, state, settings):
        with torch.inference_mode():  # which is quicker, and what recorded gradients ask for
            if settings.clip and norm > settings.clip:
                torch._foreach_mul_(gradients, settings.clip / norm)
                counters.clipped += 1
            state.optimizer.step(gradients, learning_rate(settings, counters.step, steps))
            average_weights(state, settings.ema_decay)
    else:
        counters.skipped += 1
    if finite:
        counters.sums = [old + new for old, new in zip(counters.sums, epoch_sums, strict=True)]
    counters.step += 1
    return finite, stops


def _is_usual(norm: float, state: FitState, settings: OptimizerConfig) -> bool:
    """Whether the norm is within `skip_factor` times its running mean, which this moves.

    The mean takes in skipped norms too, cut to the bound, so that a lasting change of scale is
    followed and no fit skips for ever.
    """
    counters = state.counters
    if not settings.skip_factor:
        return True
    bound = settings.skip_factor * counters.norm if counters.norm else math.inf
    seen = min(norm, bound)
    counters.norm = (
        _NORM_MEMORY * counters.norm + (1 - _NORM_MEMORY) * seen if counters.norm else seen
    )
    return norm <= bound


def _over_processes(state: FitState, numbers: Tensor, stopping: bool) -> tuple[Tensor, bool]:
    """The numbers of the whole batch, whose gradient every process then has, and who stops."""
    if process_count() == 1:
        return numbers, stopping
    sums = add_over_processes(torch.cat([numbers[:4], numbers.new_full((1,), float(stopping))]))
    norm = norm_of([mean_over_processes(state.gradient)])
    return numbers_of(sums[:4], norm), bool(sums[4] > 0)
