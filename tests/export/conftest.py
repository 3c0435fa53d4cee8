"""Runs of tiny models with fresh weights, and their graphs: one of each family, and variants."""

from pathlib import Path

import pytest
import torch

from export.graphs import Graph, trace_graphs
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
MODELS: dict[str, ModelConfig] = {
    "mlp": MlpConfig(latent_size=3, hidden_sizes=(16,)),
    "conv": ConvConfig(latent_size=5, hidden_sizes=(16,), channels=(6, 7), activation="tanh"),
    "gaussian": MlpConfig(latent_size=2, hidden_sizes=(16,), likelihood="gaussian"),
    "autoencoder": AutoencoderConfig(latent_size=3, hidden_sizes=(16,)),
    "perceptual": PerceptualConfig(latent_size=3, hidden_sizes=(16,), channels=(6,)),
    "conditional": ConditionalConfig(latent_size=3, hidden_sizes=(16,)),
    "ladder": LadderConfig(channels=6, groups=(1, 2), latent_channels=(5, 1)),
    "vq": VqConfig(codes=7, code_size=5, channels=(6,), prior_channels=5, prior_layers=1),
    "autoregressive": AutoregressiveConfig(latent_size=3, hidden_sizes=(16,), channels=5, layers=1),
    "numbers": MlpConfig(latent_size=2, hidden_sizes=(), likelihood="gaussian"),
}
DATA = {"numbers": "linear-gaussian"}  # digits else
PLAIN = ("mlp", "conv", "gaussian")


@pytest.fixture(scope="session")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Run]:
    """A run of 30 test items by name of its model."""
    folder = tmp_path_factory.mktemp("tiny-runs")
    return {name: load_run(make_run(folder / name, model)) for name, model in MODELS.items()}


@pytest.fixture(scope="session")
def graphs(runs: dict[str, Run]) -> dict[str, tuple[Graph, ...]]:
    """All graphs by name of the model."""
    return {
        name: trace_graphs(run.model, name, run.config.preset, pixels=name not in DATA)
        for name, run in runs.items()
    }


@pytest.fixture(params=PLAIN)
def traced(request: pytest.FixtureRequest, graphs: dict[str, tuple[Graph, ...]]) -> list[Graph]:
    """The graphs of each plain model in turn."""
    return list(graphs[request.param])


@pytest.fixture(params=MODELS)
def family(request: pytest.FixtureRequest) -> str:
    """Each name in turn."""
    return str(request.param)


def make_run(path: Path, model_config: ModelConfig) -> Path:
    data = DataConfig(DATA.get(path.name, "digits"), None, 50, 30)
    config = FitConfig(f"{path.name}-preset", data, model_config)
    dataset = load_dataset(config.data)
    model = initial_model(config, dataset).eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():  # so that what is 0 or small at first differs clearly
        for parameter in model.parameters():
            parameter += 0.3 * parameter.std(correction=0) * _normal(parameter, generator)
            if not parameter.any():
                parameter += 0.3 * _normal(parameter, generator)
        for name, buffer in model.state_dict().items():
            if name == "quantizer.codebook":
                buffer.copy_(_normal(buffer, generator))
    evaluation = evaluate(model, dataset, Effort(draws=1, importance_samples=0))
    save_run(path, config, model, dataset, evaluation, history=[], pictures={})
    return path


def _normal(like: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    return torch.randn(like.shape, generator=generator)
