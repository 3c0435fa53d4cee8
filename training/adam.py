"""Adam on one vector of weights."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from training.config import OptimizerConfig
from training.vectors import parts_of

_MOMENTS = ("exp_avg", "exp_avg_sq")


@dataclass(frozen=True)
class Adam:
    """Kingma & Ba 2015, by torch's fused kernel.

    torch.optim.Adam calls the same one, and takes 0.1 ms a step for what it does around it.
    `moments` are named as there: "exp_avg" and "exp_avg_sq" of the shape of the weights, and
    "step", how many steps were taken. `parts` are the weights and both moments of each parameter.
    """

    weights: Tensor
    moments: dict[str, Tensor]
    config: OptimizerConfig
    parts: tuple[list[Tensor], ...]

    @torch.no_grad()
    def step(self, gradients: Sequence[Tensor], learning_rate: float) -> None:
        """Move the weights by the gradient: one vector like them, or a tensor of each parameter."""
        if gradients[0].shape == self.weights.shape:
            of_all = [self.weights], *([self.moments[name]] for name in _MOMENTS)
        else:
            of_all = self.parts
        weights, first, second = of_all
        self.moments["step"] += 1
        torch._fused_adam_(
            weights,
            list(gradients),
            first,
            second,
            [],
            [self.moments["step"]] * len(weights),
            lr=learning_rate,
            beta1=self.config.beta1,
            beta2=self.config.beta2,
            weight_decay=0.0,
            eps=self.config.epsilon,
            amsgrad=False,
            maximize=False,
        )


def initial_adam(
    weights: Tensor, parameters: Collection[nn.Parameter], config: OptimizerConfig
) -> Adam:
    """Before the first step, on the device of the weights, of which the parameters are parts."""
    moments = {name: torch.zeros_like(weights) for name in _MOMENTS}
    vectors = weights, *moments.values()
    parts = tuple(parts_of(vector, parameters) for vector in vectors)
    moments["step"] = torch.zeros((), device=weights.device)
    return Adam(weights, moments, config, parts)
