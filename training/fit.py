"""The fit loop: the data set is one tensor, and every draw comes from one seeded generator."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from training.adapter import VaeModel
from training.config import FitConfig
from training.data import Dataset
from training.errors import TrainingError
from training.evaluate import SEED, mean_terms, test_items
from training.likelihoods import binarize
from training.models import Vae, build_model
from training.objective import negative_elbo

EpochMetrics = dict[str, float | int]
_PROGRESS_LINES = 20


@dataclass(frozen=True)
class Fitted:
    """A model in eval mode and the metrics of each epoch, as `metrics.jsonl` stores them."""

    model: Vae
    history: list[EpochMetrics]
    seconds: float


def initial_model(config: FitConfig, dataset: Dataset) -> Vae:
    """Fresh weights that depend on the seed alone; torch's default generator is left as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        model = build_model(config.model, dataset.observation_shape)
    model.initialize_output(torch.from_numpy(dataset.observations("train").mean(0)))
    return model


def fit(
    config: FitConfig, dataset: Dataset, report: Callable[[str], None] = lambda line: None
) -> Fitted:
    """Fit on the CPU with Adam (Kingma & Ba 2015); the same seed gives the same weights.

    `report` receives at most about 20 progress lines. Raises TrainingError if the loss stops
    being finite.
    """
    started = time.perf_counter()
    model = initial_model(config, dataset).train()
    generator = torch.Generator().manual_seed(config.seed)
    observations = torch.from_numpy(dataset.observations("train"))
    optimizer = torch.optim.Adam(
        [parameter for parameter in model.parameters() if parameter.requires_grad],
        lr=config.learning_rate,
        fused=True,
    )
    steps_per_epoch = math.ceil(len(observations) / config.batch_size)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(
        optimizer, T_max=config.epochs * steps_per_epoch
    )
    history: list[EpochMetrics] = []
    for epoch in range(1, config.epochs + 1):
        sums = torch.zeros(2, dtype=torch.float64)
        order = torch.randperm(len(observations), generator=generator)
        for step, indices in enumerate(torch.split(order, config.batch_size)):
            weight = kl_weight(config, epoch - 1 + step / steps_per_epoch)
            sums += _step(model, optimizer, observations[indices], generator, weight)
            schedule.step()
        rate, distortion = (sums / len(observations)).tolist()
        metrics: EpochMetrics = {
            "epoch": epoch,
            "step": epoch * steps_per_epoch,
            "train_rate": rate,
            "train_distortion": distortion,
            "train_negative_elbo": rate + distortion,
        }
        if epoch % config.evaluate_every == 0 or epoch == config.epochs:
            metrics |= _test_metrics(model, dataset)
        if not all(map(math.isfinite, metrics.values())):
            raise TrainingError(
                f"the loss is not finite in epoch {epoch}; try a smaller learning_rate"
            )
        metrics["seconds"] = round(time.perf_counter() - started, 3)
        history.append(metrics)
        if epoch == 1 or epoch == config.epochs or _is_due(epoch, config.epochs):
            report(_line(metrics, config.epochs))
    return Fitted(model.eval(), history, time.perf_counter() - started)


def kl_weight(config: FitConfig, progress: float) -> float:
    """The rate's weight after `progress` epochs: a linear warm-up (Bowman et al. 2016)."""
    if config.kl_warmup_epochs == 0:
        return config.kl_weight
    return config.kl_weight * min(1.0, progress / config.kl_warmup_epochs)


def _step(
    model: Vae,
    optimizer: torch.optim.Optimizer,
    observations: Tensor,
    generator: torch.Generator,
    weight: float,
) -> Tensor:
    """One update; returns the batch's summed rate and distortion, [2] float64."""
    if model.likelihood_name == "bernoulli":
        observations = binarize(observations, generator)
    noise = torch.randn(len(observations), model.latent_size, generator=generator)
    loss, terms = negative_elbo(model, observations, noise, weight)
    optimizer.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    optimizer.step()
    return torch.stack([terms.rate.detach().sum(), terms.distortion.detach().sum()]).double()


def _test_metrics(model: Vae, dataset: Dataset) -> EpochMetrics:
    """One draw for each item, always the same."""
    generator = torch.Generator().manual_seed(SEED)
    model.eval()
    items = test_items(model, dataset, generator)
    terms = mean_terms(VaeModel(model), items, generator)
    model.train()
    return {
        "test_rate": terms.rate,
        "test_distortion": terms.distortion,
        "test_negative_elbo": terms.rate + terms.distortion,
    }


def _is_due(epoch: int, epochs: int) -> bool:
    return epoch % max(1, math.ceil(epochs / (_PROGRESS_LINES - 2))) == 0


def _line(metrics: EpochMetrics, epochs: int) -> str:
    line = (
        f"epoch {metrics['epoch']:>4}/{epochs}  {metrics['seconds']:7.1f} s  "
        f"train negative_elbo {metrics['train_negative_elbo']:8.3f} "
        f"(rate {metrics['train_rate']:.3f}, distortion {metrics['train_distortion']:.3f})"
    )
    if "test_negative_elbo" in metrics:
        line += f"  test {metrics['test_negative_elbo']:8.3f}"
    return line
