"""A tiny model of each family with fresh weights, and variants: what export and service do with it.

A family that is hooked into `training.models.ModelConfig` has to be here.
"""

from collections.abc import Mapping
from pathlib import Path

import torch

from export.convert import Version, export_run
from training.checkpoint import Run, load_run, save_run
from training.config import DataConfig, FitConfig
from training.data import load_dataset
from training.evaluate import Effort, evaluate
from training.fit import initial_model
from training.models import (
    AutoencoderConfig,
    AutoregressiveConfig,
    ConditionalConfig,
    ConvConfig,
    LadderConfig,
    MlpConfig,
    ModelConfig,
    PerceptualConfig,
    VqConfig,
)

# Latents, channels and the first batch sizes that the tracer tries are the same numbers on purpose.
MODELS: Mapping[str, ModelConfig] = {
    "mlp": MlpConfig(latent_size=3, hidden_sizes=(16,)),
    "conv": ConvConfig(latent_size=5, hidden_sizes=(16,), channels=(6, 7), activation="tanh"),
    "gaussian": MlpConfig(latent_size=2, hidden_sizes=(16,), likelihood="gaussian"),
    "autoencoder": AutoencoderConfig(latent_size=3, hidden_sizes=(16,)),
    "perceptual": PerceptualConfig(latent_size=3, hidden_sizes=(), channels=(6,)),
    "conditional": ConditionalConfig(latent_size=3, hidden_sizes=(16,)),
    "ladder": LadderConfig(
        channels=6, groups=(1, 1), latent_channels=(5, 1), blocks=0, likelihood="gaussian"
    ),
    "vq": VqConfig(
        codes=7, code_size=5, channels=(6, 7), blocks=0, prior_channels=5, prior_layers=1
    ),
    "autoregressive": AutoregressiveConfig(latent_size=3, hidden_sizes=(), channels=5, layers=0),
    "numbers": MlpConfig(latent_size=2, hidden_sizes=(), likelihood="gaussian"),
}
_DATA = {"numbers": "linear-gaussian"}  # digits else


class Families:
    """Each of `MODELS`, published in one repository when somebody asks for it, and then kept."""

    def __init__(self, folder: Path) -> None:
        self.repository = folder / "models"
        self._folder = folder
        self._runs: dict[str, Run] = {}
        self._versions: dict[str, Version] = {}

    def run(self, name: str) -> Run:
        """The run, of 30 test items."""
        if name not in self._runs:
            self._runs[name] = load_run(make_run(self._folder / "runs" / name))
        return self._runs[name]

    def version(self, name: str) -> Version:
        """What was published of it."""
        if name not in self._versions:
            self._versions[name] = export_run(self.run(name), self.repository, name)
        return self._versions[name]


def make_run(path: Path) -> Path:
    """The run directory of `MODELS[path.name]`, which nobody has fitted."""
    data = DataConfig(_DATA.get(path.name, "digits"), None, 50, 30)
    config = FitConfig(f"{path.name}-preset", data, MODELS[path.name])
    dataset = load_dataset(config.data)
    model = initial_model(config, dataset).eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():  # what starts at zero or close to it shall differ clearly between items
        for tensor in model.state_dict().values():
            if tensor.dim() > 0:
                spread = 0.5 * tensor.std(correction=0) + 0.2
                tensor += spread * torch.randn(tensor.shape, generator=generator)
    evaluation = evaluate(model, dataset, Effort(draws=1, importance_samples=0))
    save_run(path, config, model, dataset, evaluation, history=[], pictures={})
    return path
