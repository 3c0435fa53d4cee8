"""Models and objectives whose steps are captured or recorded, and what their fits are told by."""

from tests.families import MODELS
from training.fit import Fitted
from training.models import ConditionalConfig, LadderConfig, MlpConfig, ModelConfig
from training.objectives import ObjectiveConfig

CASES: dict[str, tuple[ModelConfig, ObjectiveConfig]] = {
    "annealed": (MlpConfig(3, (16,)), ObjectiveConfig(annealing="linear", free_bits=0.1)),
    "importance": (MlpConfig(3, (16,)), ObjectiveConfig("importance", samples=5, dreg=True)),
    "total correlation": (MlpConfig(3, (16,)), ObjectiveConfig("total_correlation", kl_weight=4)),
    "conditional": (ConditionalConfig(3, (16,)), ObjectiveConfig()),
    "ladder": (LadderConfig(8, (1, 1), (4, 1)), ObjectiveConfig()),
    "conv": (MODELS["conv"], ObjectiveConfig()),
    "autoregressive": (MODELS["autoregressive"], ObjectiveConfig()),
}


def bounds(fitted: Fitted) -> list[float]:
    return [metrics["train_negative_elbo"] for metrics in fitted.history]
