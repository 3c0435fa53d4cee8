"""Everything that a fit has at a step, and that continuing it exactly takes."""

import copy
import math
import zlib
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from training.adam import Adam, initial_adam
from training.config import OptimizerConfig
from training.errors import TrainingError
from training.vectors import as_one, parts_of

_GENERATOR = "generator"
_STEP = "step"  # of Adam's numbers, the one that is of no single weight


@dataclass
class Counters:
    """The numbers of a state. `step` counts updates, done and skipped; the rest is since the start.

    `sums` are of the epoch: rate, distortion and items. `norm` is the running mean of the
    gradient's norm; `best` and `waited` belong to early stopping.
    """

    step: int = 0
    sums: list[float] = field(default_factory=lambda: [0.0, 0.0, 0.0])
    norm: float = 0.0
    skipped: int = 0
    clipped: int = 0
    restored: int = 0
    best: float = math.inf
    waited: int = 0
    seconds: float = 0.0


@dataclass
class FitState:
    """`averaged` has the mean weights, `best` those that early stopping would keep.

    `weights`, `gradient` and `mean_weights` are one vector each, of which the fitted parameters of
    the model, their gradients and the parameters of `averaged` are views: what is done to all of
    them is one operation. What is saved goes by the parameters' names. The gradient is to be zeroed
    and never dropped.
    """

    model: nn.Module
    weights: Tensor
    gradient: Tensor
    optimizer: Adam
    generator: torch.Generator
    averaged: nn.Module | None
    mean_weights: Tensor | None
    best: dict[str, Tensor] = field(default_factory=dict)
    counters: Counters = field(default_factory=Counters)

    @property
    def evaluated(self) -> nn.Module:
        """The model with the weights that count: the mean ones, if there are any.

        Those come with the buffers of the model, such as a codebook, copied each time.
        """
        if self.averaged is None:
            return self.model
        for mine, theirs in zip(self.averaged.buffers(), self.model.buffers(), strict=True):
            mine.copy_(theirs)
        return self.averaged

    def tensors(self) -> dict[str, Tensor]:
        """All tensors by name: weights, means, moments, best weights and the generator's state."""
        parts = {"model": self.model.state_dict(), "best": self.best}
        if self.averaged is not None:
            parts["averaged"] = self.averaged.state_dict()
        for key, value in self.optimizer.moments.items():
            for name, part in self._of_each(key, value).items():
                parts.setdefault(f"optimizer.{name}", {})[key] = part
        named = {f"{part}.{key}": value for part, of in parts.items() for key, value in of.items()}
        return named | {_GENERATOR: self.generator.get_state()}

    def snapshot(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Copies of the tensors and the numbers, for `restore`."""
        tensors = {name: value.detach().clone() for name, value in self.tensors().items()}
        return tensors, copy.deepcopy(asdict(self.counters))

    def restore(
        self, tensors: dict[str, Tensor], counters: dict[str, Any], *, rewind: bool = True
    ) -> None:
        """Inverse of `snapshot`; unless `rewind`, the generator goes on.

        Draws of another kind of device cannot be continued: new ones follow, the same each time.
        Raises TrainingError if these are not the tensors of such a fit.
        """
        parts: dict[str, dict[str, Tensor]] = {}
        for name, value in tensors.items():
            part, _, key = name.partition(".")
            parts.setdefault(part, {})[key] = value
        try:
            self.model.load_state_dict(parts["model"])
            if self.averaged is not None:
                self.averaged.load_state_dict(parts["averaged"])
            self._restore_optimizer(parts.get("optimizer", {}))
            if rewind:
                self._restore_generator(tensors[_GENERATOR].cpu())
            self.best = parts.get("best", {})
            self.counters = Counters(**counters)
        except (KeyError, RuntimeError, TypeError) as error:
            reason = str(error).strip().partition("\n")[0]
            raise TrainingError(f"the state does not fit the configured model: {reason}") from error

    def _restore_generator(self, saved: Tensor) -> None:
        if saved.shape == self.generator.get_state().shape:
            self.generator.set_state(saved)
        else:  # CUDA's and the CPU's generators have states of other sizes
            self.generator.manual_seed(zlib.crc32(saved.numpy().tobytes()))

    def _restore_optimizer(self, tensors: dict[str, Tensor]) -> None:
        for key, value in self.optimizer.moments.items():
            for name, part in self._of_each(key, value).items():
                part.copy_(tensors[f"{name}.{key}"])

    def _of_each(self, key: str, value: Tensor) -> dict[str, Tensor]:
        """Of each fitted parameter by name, what the optimizer has of all under `key`."""
        fitted = _fitted(self.model)
        if key == _STEP:  # one number for all of them, saved with each
            return dict.fromkeys(fitted, value)
        return dict(zip(fitted, parts_of(value, fitted.values()), strict=True))


def initial_state(model: nn.Module, config: OptimizerConfig, seed: int, device: str) -> FitState:
    """The state before the first step, on the device where the model is."""
    averaged, mean_weights = None, None
    if config.ema_decay:
        averaged = copy.deepcopy(model)
        mean_weights = as_one(_fitted(averaged).values())
        averaged.requires_grad_(False)
    fitted = _fitted(model).values()
    weights = as_one(fitted)
    gradient = torch.zeros_like(weights)
    for parameter, part in zip(fitted, parts_of(gradient, fitted), strict=True):
        parameter.grad = part
    optimizer = initial_adam(weights, fitted, config)
    generator = torch.Generator(device).manual_seed(seed)
    return FitState(model, weights, gradient, optimizer, generator, averaged, mean_weights)


def _fitted(model: nn.Module) -> dict[str, nn.Parameter]:
    return {name: value for name, value in model.named_parameters() if value.requires_grad}


@torch.no_grad()
def average_weights(state: FitState, decay: float) -> None:
    """Move the mean weights: min(decay, (1 + t) / (10 + t)) of the old ones at step t stay."""
    if state.mean_weights is not None:
        step = state.counters.step
        share = 1 - min(decay, (1 + step) / (10 + step))
        state.mean_weights.lerp_(state.weights, share)
