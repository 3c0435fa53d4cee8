"""The families of models, each in a file of its own with its settings.

A family is a frozen dataclass of settings with a tag, `family: Literal["name"] = "name"`, and a
method `build(layout) -> Model`. `ModelConfig` is the table of them: a new family is hooked in
there, and configurations, presets, `--set` and runs know it.
"""

from training.kernels import settle_kernels
from training.model import Layout, Model, Terms
from training.models.autoencoder import AutoencoderConfig
from training.models.autoregressive import AutoregressiveConfig
from training.models.conditional import ConditionalConfig
from training.models.conv import ConvConfig
from training.models.ladder import LadderConfig
from training.models.mlp import MlpConfig
from training.models.perceptual import PerceptualConfig
from training.models.vae import Vae
from training.models.vq import VqConfig

ModelConfig = (
    MlpConfig
    | ConvConfig
    | AutoencoderConfig
    | ConditionalConfig
    | LadderConfig
    | VqConfig
    | AutoregressiveConfig
    | PerceptualConfig
)

__all__ = [
    "AutoencoderConfig",
    "AutoregressiveConfig",
    "ConditionalConfig",
    "ConvConfig",
    "LadderConfig",
    "Layout",
    "MlpConfig",
    "Model",
    "ModelConfig",
    "PerceptualConfig",
    "Terms",
    "Vae",
    "VqConfig",
    "build_model",
]


def build_model(config: ModelConfig, layout: Layout) -> Model:
    """A model with fresh weights from torch's default generator.

    Raises TrainingError if the family cannot model such data.
    """
    settle_kernels()
    return config.build(layout)
