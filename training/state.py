"""Everything that a fit has at a step, and that continuing it exactly takes."""

import copy
import math
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from training.config import OptimizerConfig
from training.errors import TrainingError

_GENERATOR = "generator"
_ALIGNMENT = 16  # numbers: the 64 bytes that kernels of every kind like to begin at


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

    `gradient` is one vector, of which the gradients of all fitted weights are views: what is done
    to all of them is one operation. It is to be zeroed and never dropped, and is no part of what is
    saved.
    """

    model: nn.Module
    gradient: Tensor
    optimizer: torch.optim.Adam
    generator: torch.Generator
    averaged: nn.Module | None
    best: dict[str, Tensor] = field(default_factory=dict)
    counters: Counters = field(default_factory=Counters)

    @property
    def evaluated(self) -> nn.Module:
        """The model with the weights that count: the mean ones, if there are any."""
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
        for name, parameter in self.model.named_parameters():
            parts[f"optimizer.{name}"] = self.optimizer.state.get(parameter, {})
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
                self.generator.set_state(tensors[_GENERATOR].cpu())
            self.best = parts.get("best", {})
            self.counters = Counters(**counters)
        except (KeyError, RuntimeError, TypeError) as error:
            reason = str(error).strip().partition("\n")[0]
            raise TrainingError(f"the state does not fit the configured model: {reason}") from error

    def _restore_optimizer(self, tensors: dict[str, Tensor]) -> None:
        self.optimizer.state.clear()
        for name, parameter in self.model.named_parameters():
            start = f"{name}."
            of = {
                key[len(start) :]: value for key, value in tensors.items() if key.startswith(start)
            }
            moments = {key: value for key, value in of.items() if "." not in key}
            if moments:
                self.optimizer.state[parameter] = {
                    key: value.to(parameter.device).clone() for key, value in moments.items()
                }


def initial_state(model: nn.Module, config: OptimizerConfig, seed: int, device: str) -> FitState:
    """The state before the first step, on the device where the model is."""
    fitted = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.Adam(
        fitted,
        lr=config.learning_rate,
        betas=(config.beta1, config.beta2),
        eps=config.epsilon,
        fused=True,
    )
    averaged = copy.deepcopy(model).requires_grad_(False) if config.ema_decay else None
    generator = torch.Generator(device).manual_seed(seed)
    return FitState(model, _one_gradient(fitted), optimizer, generator, averaged)


def _one_gradient(parameters: list[nn.Parameter]) -> Tensor:
    """Zeros, of which the gradient of each parameter is a view from now on."""
    sizes = [-(-parameter.numel() // _ALIGNMENT) * _ALIGNMENT for parameter in parameters]
    gradient = torch.zeros(sum(sizes), device=parameters[0].device, dtype=parameters[0].dtype)
    for parameter, part in zip(parameters, torch.split(gradient, sizes), strict=True):
        parameter.grad = part[: parameter.numel()].view_as(parameter)
    return gradient


@torch.no_grad()
def average_weights(state: FitState, decay: float) -> None:
    """Move the mean weights: min(decay, (1 + t) / (10 + t)) of the old ones at step t stay."""
    if state.averaged is not None:
        step = state.counters.step
        share = 1 - min(decay, (1 + step) / (10 + step))
        torch._foreach_lerp_(
            list(state.averaged.parameters()), list(state.model.parameters()), share
        )
