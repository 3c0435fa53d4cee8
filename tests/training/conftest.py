"""A data set and a configuration small enough for many fits in a second."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from training.checkpoint import save_run
from training.config import DataConfig, FitConfig
from training.data import Dataset, load_dataset
from training.evaluation import Evaluation
from training.fit import Fitted, fit
from training.models import MlpConfig


@pytest.fixture(scope="session")
def tiny_config() -> FitConfig:
    return FitConfig(
        "tiny",
        DataConfig("digits", train_limit=60, test_limit=20),
        MlpConfig(latent_size=3, hidden_sizes=(16,)),
        epochs=2,
        batch_size=20,
    )


@pytest.fixture(scope="session")
def tiny_dataset(tiny_config: FitConfig) -> Dataset:
    """The data set of `tiny_config`: 60 and 20 digits of 8x8 pixels."""
    return load_dataset(tiny_config.data)


@pytest.fixture(scope="session")
def binary_dataset() -> Dataset:
    """16 different patterns of 4x4 pixels, all black or white, as both splits."""
    random = np.random.default_rng(0)
    pixels = random.integers(0, 2, size=(16, 1, 4, 4), dtype=np.uint8)
    labels = np.arange(16)
    assert len(np.unique(pixels, axis=0)) == 16
    return Dataset("patterns", pixels, pixels, labels, labels, maximum=1)


@pytest.fixture(scope="session")
def evaluation() -> Evaluation:
    """Made up, to be told from measured numbers."""
    return Evaluation(25.0, 20, elbo=-27.5, rate=2.5, bits_per_dim=0.62, active_units=3)


@pytest.fixture(scope="session")
def fitted(tiny_config: FitConfig, tiny_dataset: Dataset) -> Fitted:
    return fit(tiny_config, tiny_dataset)


@pytest.fixture
def save(
    fitted: Fitted, tiny_config: FitConfig, tiny_dataset: Dataset, evaluation: Evaluation
) -> Callable[[Path], None]:
    """Writes `fitted` as a run."""
    pictures = {"samples.png": b"\x89PNG\r\n\x1a\n and the rest"}

    def save(path: Path) -> None:
        history = fitted.history
        save_run(path, tiny_config, fitted.model, tiny_dataset, evaluation, history, pictures)

    return save


@pytest.fixture
def run(save: Callable[[Path], None], tmp_path: Path) -> Path:
    """A run directory of `fitted` that a test may damage."""
    save(tmp_path / "run")
    return tmp_path / "run"
