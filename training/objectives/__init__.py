"""What a fit minimizes: the negative ELBO and its relatives, in nats per item.

Whatever the objective, metrics report rate and distortion of the bound itself, at weight 1.
"""

import math
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from training.errors import TrainingError, require
from training.model import DrawsOtherwise, Gaussian, Model, Terms
from training.objectives.annealing import Annealing, annealed
from training.objectives.elbo import weighted_bound
from training.objectives.importance import importance_weighted
from training.objectives.total_correlation import Estimator, total_correlation_loss

__all__ = ["ObjectiveConfig", "check_objective", "kl_weight", "loss"]


@dataclass(frozen=True)
class ObjectiveConfig:
    """The objective by name, and its settings.

    elbo: distortion + kl_weight * rate (beta of Higgins et al. 2017); `free_bits` nats of each
    latent or group cost nothing (Kingma et al. 2016), on average over the batch.
    total_correlation: the beta-TCVAE of Chen et al. 2018, where kl_weight multiplies the total
    correlation alone; `estimator` says how q(z) is estimated from a batch.
    importance: the bound of Burda et al. 2016 with `samples` draws; `dreg` takes the doubly
    reparameterized gradient (Tucker et al. 2019). With one draw that is the ELBO, by a gradient of
    less noise: the path derivative (Roeder et al. 2017).

    `annealing` brings the weight up from 0: "linear" over the first `annealing_fraction` of the
    steps, "cyclical" in `cycles`, each rising over that fraction of itself (Fu et al. 2019).
    """

    name: Literal["elbo", "total_correlation", "importance"] = "elbo"
    kl_weight: float = 1.0
    free_bits: float = 0.0
    annealing: Annealing = "none"
    annealing_fraction: float = 0.5
    cycles: int = 4
    samples: int = 1
    dreg: bool = False
    estimator: Estimator = "stratified"

    def __post_init__(self) -> None:
        for name in ("kl_weight", "free_bits"):
            holds = 0 <= getattr(self, name) < math.inf
            require(holds, f"objective.{name} must be finite and not negative")
        holds = 0 < self.annealing_fraction <= 1
        require(holds, "objective.annealing_fraction must be above 0 and at most 1")
        require(self.cycles >= 1, "objective.cycles must be at least 1")
        require(self.samples >= 1, "objective.samples must be at least 1")
        require(self.free_bits == 0 or self.name == "elbo", "objective.free_bits needs name elbo")
        plain = self.samples == 1 and not self.dreg
        require(
            self.name == "importance" or plain,
            "objective.samples and dreg need name importance",
        )
        weighted = self.kl_weight != 1 or self.annealing != "none"
        require(
            self.name != "importance" or not weighted,
            "objective importance knows no kl_weight and no annealing",
        )


def check_objective(config: ObjectiveConfig, model: Model) -> None:
    """Raise TrainingError if the model's family cannot be fitted this way."""
    if config.name != "elbo" and not isinstance(model, Gaussian):
        raise TrainingError(
            f"objective {config.name} needs a Gaussian posterior, which family {model.family} lacks"
        )
    hides = isinstance(model, DrawsOtherwise) and model.training_noise_shape != model.noise_shape
    require(
        config.name == "elbo" or not hides,
        f"objective {config.name} hides no pixels; set model.input_dropout=0",
    )


def kl_weight(config: ObjectiveConfig, progress: float) -> float:
    """The weight after the fraction `progress` of all steps."""
    share = annealed(config.annealing, progress, config.annealing_fraction, config.cycles)
    return config.kl_weight * share


def loss(
    config: ObjectiveConfig,
    model: Model,
    observations: Tensor,
    noise: Tensor,
    label: Tensor | None,
    weight: float | Tensor,
    train_size: int,
) -> tuple[Tensor, Terms]:
    """The mean loss over a batch, a scalar, and the terms that are reported.

    `noise` is [N, *noise_shape], of another shape for a model that `DrawsOtherwise`, and for
    importance [samples, N, *noise_shape]. `train_size` is that of the whole training split, which
    the total correlation needs.
    """
    if config.name == "importance":
        assert isinstance(model, Gaussian)
        return importance_weighted(model, observations, noise, label, config.dreg)
    if config.name == "total_correlation":
        assert isinstance(model, Gaussian)
        return total_correlation_loss(
            model, observations, noise, label, weight, train_size, config.estimator
        )
    terms = model.elbo_terms(observations, noise, label)
    return weighted_bound(terms, weight, config.free_bits), terms
