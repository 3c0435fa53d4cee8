"""Runs of tiny models with fresh weights, and their graphs: an MLP, convolutions, a Gaussian."""

from pathlib import Path

import pytest
import torch

from export.graphs import Graph, trace_graphs
from training.checkpoint import Run, load_run, save_run
from training.config import DataConfig, FitConfig
from training.data import load_dataset
from training.evaluate import Effort, evaluate
from training.fit import initial_model
from training.models import ConvConfig, MlpConfig, ModelConfig, Vae

# Latents, channels and the first batch sizes that the tracer tries are the same numbers on purpose.
MODELS = {
    "mlp": MlpConfig(latent_size=3, hidden_sizes=(16,)),
    "conv": ConvConfig(latent_size=5, hidden_sizes=(16,), channels=(6, 7), activation="tanh"),
    "gaussian": MlpConfig(latent_size=2, hidden_sizes=(16,), likelihood="gaussian"),
}


@pytest.fixture(scope="session")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Run]:
    """A run of 30 test items by name of its model."""
    folder = tmp_path_factory.mktemp("tiny-runs")
    return {name: load_run(make_run(folder / name, model)) for name, model in MODELS.items()}


@pytest.fixture(scope="session")
def graphs(runs: dict[str, Run]) -> dict[str, tuple[Graph, ...]]:
    """Encoder and decoder by name of the model."""
    return {name: trace_graphs(run.model, name, run.config.preset) for name, run in runs.items()}


@pytest.fixture(params=MODELS)
def traced(request: pytest.FixtureRequest, graphs: dict[str, tuple[Graph, ...]]) -> list[Graph]:
    """Encoder and decoder of each model in turn."""
    return list(graphs[request.param])


def make_run(path: Path, model_config: ModelConfig) -> Path:
    config = FitConfig(f"{path.name}-preset", DataConfig("digits", None, 50, 30), model_config)
    dataset = load_dataset(config.data)
    model = initial_model(config, dataset).eval()
    assert isinstance(model, Vae)
    with torch.no_grad():  # so that the posteriors of two observations differ clearly
        model.encoder[-1].weight.mul_(10)
    evaluation = evaluate(model, dataset, Effort(draws=1, importance_samples=0))
    save_run(path, config, model, dataset, evaluation, history=[], pictures={})
    return path
