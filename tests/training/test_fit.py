import math
from dataclasses import replace
from statistics import mean

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from training.config import FitConfig, OptimizerConfig
from training.data import Dataset
from training.errors import TrainingError
from training.fit import Fitted, fit, initial_model
from training.models import MlpConfig
from training.objectives import ObjectiveConfig


def weights(fitted: Fitted) -> dict[str, bytes]:
    state = fitted.model.state_dict()
    return {name: tensor.numpy().tobytes() for name, tensor in state.items()}


@pytest.fixture
def patterns() -> FitConfig:
    """Enough capacity and time to learn `binary_dataset` by heart."""
    model = MlpConfig(latent_size=2, hidden_sizes=(64,), activation="relu")
    return FitConfig(
        "patterns", model=model, epochs=1000, batch_size=16, optimizer=OptimizerConfig(1e-2)
    )


@pytest.mark.parametrize("likelihood", ["bernoulli", "gaussian"])
def test_the_same_seed_gives_bitwise_the_same_weights(
    tiny_config: FitConfig, tiny_dataset: Dataset, likelihood: str
) -> None:
    config = replace(tiny_config, model=replace(tiny_config.model, likelihood=likelihood))
    first = fit(config, tiny_dataset)
    torch.rand(1)  # moves torch's default generator, on which nothing may depend
    assert weights(fit(config, tiny_dataset)) == weights(first)


def test_another_seed_gives_other_weights(tiny_config: FitConfig, tiny_dataset: Dataset) -> None:
    first = fit(tiny_config, tiny_dataset)
    second = fit(replace(tiny_config, seed=1), tiny_dataset)
    assert weights(first) != weights(second)


def test_a_fit_leaves_the_default_generator_as_it_was(
    tiny_config: FitConfig, tiny_dataset: Dataset
) -> None:
    before = torch.get_rng_state()
    fit(tiny_config, tiny_dataset)
    assert torch.equal(torch.get_rng_state(), before)


def test_one_batch_is_learned_by_heart_but_never_below_its_entropy(
    patterns: FitConfig, binary_dataset: Dataset
) -> None:
    """16 patterns of equal probability cost at least ln 16 = 2.8 nats, untaught about 11."""
    losses = [metrics["train_negative_elbo"] for metrics in fit(patterns, binary_dataset).history]
    entropy = math.log(16)
    assert losses[0] > 3.5 * entropy
    assert entropy < mean(losses[-20:]) < 2 * entropy


def test_a_large_kl_weight_collapses_the_posterior(
    patterns: FitConfig, binary_dataset: Dataset
) -> None:
    free = fit(
        replace(patterns, epochs=150, objective=ObjectiveConfig(kl_weight=0.1)), binary_dataset
    )
    bound = fit(
        replace(patterns, epochs=150, objective=ObjectiveConfig(kl_weight=100)), binary_dataset
    )
    assert bound.history[-1]["train_rate"] < 0.1 < 2 < free.history[-1]["train_rate"]


def test_a_bernoulli_fit_draws_binary_pixels_from_gray_ones(patterns: FitConfig) -> None:
    """Cross-entropy with gray pixels is at least ln 2 each; that with drawn ones goes to zero."""
    gray = np.ones((32, 1, 2, 2), np.uint8)
    labels = np.zeros(32, np.int64)
    dataset = Dataset("gray", gray, gray, labels, labels, maximum=2)
    history = fit(
        replace(patterns, epochs=300, objective=ObjectiveConfig(kl_weight=0.01)), dataset
    ).history
    assert history[-1]["train_distortion"] < 0.5 * 4 * math.log(2)


def test_the_learning_rate_falls_along_a_cosine(
    tiny_config: FitConfig, tiny_dataset: Dataset
) -> None:
    """Adam moves a parameter by its learning rate at each step, as long as its gradient stays.

    So large a weight makes the rate the whole gradient. Four steps of a cosine are worth 2.5.
    """
    config = replace(
        tiny_config,
        epochs=4,
        batch_size=60,
        optimizer=OptimizerConfig(1e-5),
        objective=ObjectiveConfig(kl_weight=1e6),
        evaluate_every=4,
    )
    before, after = (
        model.state_dict()["encoder.3.bias"]
        for model in (initial_model(config, tiny_dataset), fit(config, tiny_dataset).model)
    )
    moved = (after - before).abs().median().item()
    assert moved == pytest.approx(2.5e-5, rel=0.05)


def test_every_epoch_has_its_metrics(tiny_config: FitConfig, tiny_dataset: Dataset) -> None:
    config = replace(tiny_config, epochs=5, evaluate_every=2, batch_size=25)

    history = fit(config, tiny_dataset).history

    assert [metrics["epoch"] for metrics in history] == [1, 2, 3, 4, 5]
    assert [metrics["step"] for metrics in history] == [3, 6, 9, 12, 15]
    assert ["test_negative_elbo" in metrics for metrics in history] == [0, 1, 0, 1, 1]
    for split in ("train", "test"):
        last = history[-1]
        total = last[f"{split}_rate"] + last[f"{split}_distortion"]
        assert last[f"{split}_negative_elbo"] == pytest.approx(total)


def test_a_fitted_model_is_in_eval_mode(tiny_config: FitConfig, tiny_dataset: Dataset) -> None:
    assert not fit(tiny_config, tiny_dataset).model.training


def test_progress_is_reported_in_few_lines(tiny_config: FitConfig, tiny_dataset: Dataset) -> None:
    lines: list[str] = []
    fit(replace(tiny_config, epochs=50), tiny_dataset, report=lines.append)
    assert 10 <= len(lines) <= 20
    assert "1/50" in lines[0]
    assert "50/50" in lines[-1]


@pytest.mark.parametrize("epochs", [1, 3])
@pytest.mark.parametrize("batch_size", [20, 60])
def test_a_loss_that_is_not_finite_ends_the_fit(
    tiny_config: FitConfig, tiny_dataset: Dataset, epochs: int, batch_size: int
) -> None:
    config = replace(
        tiny_config, epochs=epochs, batch_size=batch_size, optimizer=OptimizerConfig(1e30)
    )
    with pytest.raises(TrainingError, match=r"not finite in epoch \d.*learning_rate"):
        fit(config, tiny_dataset)


def test_a_model_starts_at_the_mean_of_the_data(
    tiny_config: FitConfig, tiny_dataset: Dataset
) -> None:
    """Its first distortion is near that of a model that knows the mean of each pixel only."""
    model = initial_model(tiny_config, tiny_dataset)
    observations = torch.from_numpy(tiny_dataset.observations("train"))
    average = observations.mean(0, keepdim=True).clamp(0.01, 0.99).expand_as(observations)
    expected = F.binary_cross_entropy(average, observations, reduction="sum") / 60
    distortion = model.elbo_terms(observations, torch.zeros(60, 3)).distortion.mean()
    assert distortion.item() == pytest.approx(expected.item(), rel=0.05)


def test_annealing_changes_the_fit(tiny_config: FitConfig, tiny_dataset: Dataset) -> None:
    warm = replace(tiny_config, objective=ObjectiveConfig(annealing="linear"))
    assert weights(fit(warm, tiny_dataset)) != weights(fit(tiny_config, tiny_dataset))
