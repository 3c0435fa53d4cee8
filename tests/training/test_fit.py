import math
import shutil
from dataclasses import replace
from pathlib import Path
from statistics import mean

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from training.batches import training_batches
from training.checkpoint import load_run
from training.config import FitConfig, OptimizerConfig
from training.data import Dataset
from training.errors import InterruptedFit, RunError, TrainingError
from training.fit import Fitted, fit, initial_model
from training.likelihoods import Gaussian
from training.models import ConvConfig, MlpConfig, ModelConfig, Vae
from training.objectives import ObjectiveConfig
from training.precision import precision_for


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


@pytest.mark.parametrize("decay", [0.0, 0.9])
def test_an_optimal_standard_deviation_is_that_of_the_weights_that_are_kept(
    tiny_config: FitConfig, tiny_dataset: Dataset, decay: float
) -> None:
    """Averaged weights have their own, which evaluations see, too: it starts at 1."""
    config = replace(
        tiny_config,
        model=MlpConfig(3, (16,), likelihood="gaussian", gaussian_std="optimal"),
        optimizer=OptimizerConfig(1e-2, ema_decay=decay),
        epochs=20,
    )
    fitted = fit(config, tiny_dataset)
    model = fitted.model
    assert isinstance(model, Vae)
    assert isinstance(model.likelihood, Gaussian)
    observations = torch.from_numpy(tiny_dataset.observations("train"))
    with torch.no_grad():
        decoded = model.decode(model.posterior(observations)[0])
    error = (decoded - observations).square().mean().item()
    assert model.likelihood.log_std().item() == pytest.approx(0.5 * math.log(error), abs=0.2)
    last = fitted.history[-1]
    assert last["test_negative_elbo"] == pytest.approx(last["train_negative_elbo"], abs=15)


@pytest.mark.parametrize(("least", "epochs"), [(6, 5), (15, 5), (16, 6), (19, 7)])
def test_of_a_small_set_there_are_epochs_enough_for_the_least_steps(
    tiny_config: FitConfig, tiny_dataset: Dataset, least: int, epochs: int
) -> None:
    config = replace(tiny_config, epochs=5, least_steps=least, evaluate_every=100, batch_size=25)
    lines: list[str] = []
    history = fit(config, tiny_dataset, lines.append).history
    assert history[-1]["epoch"] == epochs
    assert "test_negative_elbo" in history[-1]
    assert f"/{epochs} " in lines[-1]


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


def test_matrix_products_in_bfloat16_leave_the_terms_in_float32(
    tiny_config: FitConfig, tiny_dataset: Dataset
) -> None:
    exact, coarse = (
        fit(replace(tiny_config, precision=precision), tiny_dataset).history[-1]
        for precision in ("float32", "bfloat16")
    )
    rounds = precision_for("auto", "cpu") == "bfloat16"
    assert (coarse["train_rate"] != exact["train_rate"]) == rounds
    assert coarse["train_negative_elbo"] == pytest.approx(exact["train_negative_elbo"], rel=1e-2)


def test_mean_weights_are_the_ones_that_are_kept(
    tiny_config: FitConfig, tiny_dataset: Dataset
) -> None:
    """At step t the mean keeps (1 + t) / (10 + t) of itself, as long as that is below the decay."""
    settings = OptimizerConfig(1e-2, ema_decay=0.999, final_fraction=1.0)
    one = replace(tiny_config, batch_size=60, epochs=1)
    start = initial_model(one, tiny_dataset).state_dict()
    last = fit(replace(one, optimizer=replace(settings, ema_decay=0.0)), tiny_dataset).model
    mean = fit(replace(one, optimizer=settings), tiny_dataset).model.state_dict()
    for name, value in last.state_dict().items():
        torch.testing.assert_close(mean[name], 0.1 * start[name] + 0.9 * value)


def test_a_gradient_far_above_the_usual_is_skipped_but_not_for_ever(
    tiny_config: FitConfig, tiny_dataset: Dataset
) -> None:
    settings = OptimizerConfig(1e-5, skip_factor=0.999, clip=1e-3)
    history = fit(replace(tiny_config, epochs=20, optimizer=settings), tiny_dataset).history
    assert 0 < history[-1]["skipped"] < 60
    assert history[-1]["clipped"] == 60 - history[-1]["skipped"]


def test_clipping_moves_as_a_gradient_of_that_norm_does(
    tiny_config: FitConfig, tiny_dataset: Dataset
) -> None:
    """Adam's first step with a large epsilon is learning rate / epsilon times the gradient."""
    settings = OptimizerConfig(1.0, epsilon=1e3, final_fraction=1.0)
    one = replace(tiny_config, batch_size=60, epochs=1)
    start = initial_model(one, tiny_dataset).state_dict()

    def moved(clip: float) -> torch.Tensor:
        model = fit(replace(one, optimizer=replace(settings, clip=clip)), tiny_dataset).model
        return torch.cat(
            [1e3 * (value - start[name]).flatten() for name, value in model.state_dict().items()]
        )

    free, clipped = moved(0.0), moved(0.25)
    assert free.norm().item() > 1
    assert clipped.norm().item() == pytest.approx(0.25, rel=0.01)
    torch.testing.assert_close(clipped, free * 0.25 / free.norm(), atol=1e-3, rtol=0)


def test_a_fit_stops_early_and_keeps_the_best_weights(
    patterns: FitConfig, binary_dataset: Dataset
) -> None:
    """Eight patterns learned by heart tell nothing of the eight that are held out."""
    config = replace(patterns, epochs=400, evaluate_every=5, held_out=8, patience=3)
    history = fit(config, binary_dataset).history
    assert len(history) < 400
    losses = [epoch["held_out_negative_elbo"] for epoch in history if epoch["epoch"] % 5 == 0]
    assert min(losses) == losses[-4]


@pytest.mark.parametrize("maximum", [1, 3, 16, 255])
def test_batches_are_drawn_with_the_pixels_as_probabilities(maximum: int) -> None:
    levels = np.unique([0, 1, maximum // 2, maximum]).astype(np.uint8)
    pixels = np.tile(levels.reshape(1, 1, 1, -1), (20_000, 1, 1, 1))
    labels = np.zeros(len(pixels), np.int64)
    dataset = Dataset("levels", pixels, pixels, labels, labels, maximum)
    batches = training_batches(dataset, 0, True, "cpu")
    drawn, _ = batches.draw(torch.arange(len(pixels)), torch.Generator().manual_seed(0))
    assert set(drawn.unique().tolist()) == {0, 1}
    means = drawn.mean((0, 1, 2))
    torch.testing.assert_close(means, torch.from_numpy(levels) / maximum, atol=0.015, rtol=0)
    assert means[0] == 0
    assert means[-1] == 1


@pytest.mark.parametrize("maximum", [1, 3, 16, 255])
def test_a_pixel_is_white_where_its_share_of_65536_numbers_has_the_one_drawn(maximum: int) -> None:
    """Each number is a quarter of 64 bits of the generator; all are white at the maximum."""
    levels = torch.arange(maximum + 1)
    items = 2**22 // len(levels)
    pixels = np.tile(levels.numpy().astype(np.uint8).reshape(1, 1, 1, -1), (items, 1, 1, 1))
    labels = np.zeros(items, np.int64)
    dataset = Dataset("levels", pixels, pixels, labels, labels, maximum)
    generator = torch.Generator().manual_seed(5)

    drawn, _ = training_batches(dataset, 0, True, "cpu").draw(torch.arange(items), generator)

    words = torch.empty(-(-pixels.size // 4), dtype=torch.int64)
    words.random_(-(2**63), None, generator=torch.Generator().manual_seed(5))
    numbers = words.view(torch.int16)[: pixels.size].view(items, -1).long() + 2**15
    assert (numbers[:, -1] == 2**16 - 1).any()
    bounds = torch.round(levels.double() / maximum * 2**16)
    assert torch.equal(drawn.view(items, -1), (numbers < bounds).float())


@pytest.mark.parametrize("grey", [0, 1, 254])
def test_nothing_is_drawn_of_pixels_that_are_all_black_or_white(grey: int) -> None:
    """With one grey pixel, at the very end, all are drawn."""
    pixels = np.zeros((5000, 1, 2, 2), np.uint8)
    pixels[::3] = 255
    pixels[-1, 0, 1, 1] = grey
    labels = np.zeros(len(pixels), np.int64)
    dataset = Dataset("black and white", pixels, pixels, labels, labels, 255)
    generator = torch.Generator().manual_seed(0)
    before = generator.get_state()

    drawn, _ = training_batches(dataset, 0, True, "cpu").draw(torch.arange(4999), generator)

    assert torch.equal(drawn, torch.from_numpy(pixels[:4999]).float() / 255)
    assert drawn.dtype == torch.float32
    assert torch.equal(generator.get_state(), before) == (grey == 0)


def test_a_fit_begins_with_the_weights_of_a_run(
    run: Path, tiny_config: FitConfig, tiny_dataset: Dataset, tmp_path: Path
) -> None:
    """Nothing but the run's weights, which a rate of next to nothing leaves where they were."""
    still = replace(tiny_config, seed=1, optimizer=OptimizerConfig(1e-12))
    begun = fit(replace(still, initial_weights=str(run)), tiny_dataset, directory=tmp_path / "new")
    for name, value in load_run(run).model.state_dict().items():
        torch.testing.assert_close(begun.model.state_dict()[name], value)


def test_an_interrupted_fit_needs_the_run_no_more_whose_weights_it_began_with(
    run: Path, tiny_config: FitConfig, tiny_dataset: Dataset, tmp_path: Path
) -> None:
    config = replace(tiny_config, initial_weights=str(run))
    whole = fit(config, tiny_dataset)
    with pytest.raises(InterruptedFit):
        fit(config, tiny_dataset, directory=tmp_path / "new", minutes=0)
    shutil.rmtree(run)
    resumed = fit(config, tiny_dataset, directory=tmp_path / "new", resume=True)
    assert weights(resumed) == weights(whole)


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        (MlpConfig(latent_size=4, hidden_sizes=(16,)), "size mismatch"),
        (ConvConfig(latent_size=3), "families differ"),
    ],
)
def test_weights_of_another_model_are_refused(
    run: Path, tiny_config: FitConfig, tiny_dataset: Dataset, model: ModelConfig, reason: str
) -> None:
    config = replace(tiny_config, model=model, initial_weights=str(run))
    with pytest.raises(TrainingError, match=f"initial_weights: the weights of .*run.*{reason}"):
        fit(config, tiny_dataset)


def test_initial_weights_that_are_not_there_are_named(
    tiny_config: FitConfig, tiny_dataset: Dataset
) -> None:
    config = replace(tiny_config, initial_weights="nowhere")
    with pytest.raises(RunError, match=r"cannot read nowhere.run\.json.*expected a run directory"):
        fit(config, tiny_dataset)
