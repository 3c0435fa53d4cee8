"""Everything that decides a fit, as frozen dataclasses; `training.documents` reads and writes them.

`--set model.latent_size=8` arrives here as text; the annotations of the dataclasses say how to
read it.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal, cast

from training.documents import from_document, to_document, with_texts
from training.errors import require
from training.models import MlpConfig, ModelConfig
from training.objectives import ObjectiveConfig
from training.precision import Setting


@dataclass(frozen=True)
class DataConfig:
    """Which data set, and the directory or file it is read from where it ships with no library.

    `train_limit` and `test_limit` take the first items of a split only; None takes all.
    `image_size` (pixels, square) and `channels` (1 gray, 3 RGB) are for sets that can be had in
    several; None takes what suits the set. `seed` decides what a set leaves to chance: its split,
    order or draws. docs/data.md says which set reads which.
    """

    name: Literal["digits", "mnist", "imagefolder", "arrays", "shapes", "linear-gaussian"] = (
        "digits"
    )
    path: str | None = None
    train_limit: int | None = None
    test_limit: int | None = None
    image_size: int | None = None
    channels: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("train_limit", "test_limit", "image_size"):
            value = getattr(self, name)
            require(value is None or value >= 1, f"data.{name} must be at least 1")
        require(self.channels in (None, 1, 3), "data.channels must be 1 (gray) or 3 (RGB)")
        require(0 <= self.seed < 2**63, "data.seed must be between 0 and 2**63 - 1")

    def at(self, path: str) -> "DataConfig":
        """The same data set in another directory."""
        return replace(self, path=path)


@dataclass(frozen=True)
class OptimizerConfig:
    """Adam (Kingma & Ba 2015), and what keeps a fit alive.

    The learning rate rises linearly over `warmup_steps` and falls along a cosine to
    `final_fraction` of itself at the last step. `clip` bounds the norm of the gradient; an update
    whose norm is above `skip_factor` times its running mean is left out; 0 turns either off.
    `ema_decay` averages the weights that are evaluated and kept: min(decay, (1 + t) / (10 + t)) at
    step t; 0 keeps the last ones.
    """

    learning_rate: float = 1e-3
    warmup_steps: int = 0
    final_fraction: float = 0.0
    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-8
    clip: float = 0.0
    skip_factor: float = 0.0
    ema_decay: float = 0.0

    def __post_init__(self) -> None:
        name = "optimizer.learning_rate"
        require(0 < self.learning_rate < math.inf, f"{name} must be positive and finite")
        require(self.warmup_steps >= 0, "optimizer.warmup_steps must not be negative")
        for name in ("final_fraction", "beta1", "beta2", "ema_decay"):
            require(0 <= getattr(self, name) <= 1, f"optimizer.{name} must be between 0 and 1")
        require(max(self.beta1, self.beta2) < 1, "optimizer.beta1 and beta2 must be below 1")
        for name in ("epsilon", "clip", "skip_factor"):
            holds = 0 <= getattr(self, name) < math.inf
            require(holds, f"optimizer.{name} must be finite and not negative")


@dataclass(frozen=True)
class FitConfig:
    """One fit.

    There are more than `epochs` of a set so small that they make fewer than `least_steps` steps.
    `batch_size` counts the items of all processes together, `evaluate_every` epochs. `held_out`
    items at the end of the training split are not fitted on; with `patience` the fit ends after so
    many evaluations on them without a better ELBO, and keeps the best weights. `precision` is that
    of matrix products and convolutions; likelihoods and divergences are float32 always. "auto" is
    bfloat16 on a CPU with instructions for it (AVX512-BF16, AMX), and float32 elsewhere.
    `cuda_graphs` lets a CUDA device launch a step's kernels at once where it can.
    `initial_weights` is the directory of a run of the same model, whose weights the fit begins
    with; None begins with fresh ones.
    """

    preset: str
    data: DataConfig = field(default_factory=DataConfig)
    model: ModelConfig = field(default_factory=MlpConfig)
    objective: ObjectiveConfig = field(default_factory=ObjectiveConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    epochs: int = 100
    least_steps: int = 0
    batch_size: int = 100
    evaluate_every: int = 10
    held_out: int = 0
    patience: int = 0
    precision: Setting = "float32"
    device: Literal["auto", "cpu", "cuda"] = "auto"
    cuda_graphs: bool = True
    initial_weights: str | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size", "evaluate_every"):
            require(getattr(self, name) >= 1, f"{name} must be at least 1")
        for name in ("least_steps", "held_out", "patience"):
            require(getattr(self, name) >= 0, f"{name} must not be negative")
        require(self.patience == 0 or self.held_out > 0, "patience needs held_out items")
        require(0 <= self.seed < 2**63, "seed must be between 0 and 2**63 - 1")


def to_json(config: FitConfig) -> dict[str, Any]:
    """The configuration as JSON values; tuples become lists."""
    return to_document(config)


def from_json(document: Mapping[str, Any]) -> FitConfig:
    """Inverse of `to_json`. Raises TrainingError for unknown keys and values of a wrong type."""
    return cast("FitConfig", from_document(FitConfig, document))


def with_overrides(config: FitConfig, overrides: Mapping[str, str]) -> FitConfig:
    """The configuration with dotted keys replaced by text; `preset` says where it came from.

    Raises TrainingError for a key that does not exist, naming the nearest, or a text that does not
    fit the key's type.
    """
    return cast("FitConfig", with_texts(config, overrides, fixed=("preset",)))
