"""The fit loop: the data set is one tensor, and every draw comes from one seeded generator."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, cast

import numpy as np
import torch
from torch import nn

from training.batches import layout_of, training_batches
from training.calibration import freeze_variance
from training.checkpoint import Run, load_run
from training.config import FitConfig
from training.data import Dataset
from training.distributed import process_count
from training.errors import TrainingError, require
from training.interruption import stop_wishes
from training.journal import EpochMetrics, Journal, begin_journal, continue_journal
from training.loop import Loop
from training.model import Model, Prepared, StartsAtMean
from training.models import build_model
from training.objectives import check_objective
from training.progress import Watch
from training.state import initial_state


@dataclass(frozen=True)
class Fitted:
    """A model in eval mode and the metrics of each epoch, as `metrics.jsonl` stores them."""

    model: Model
    history: list[EpochMetrics]
    seconds: float


def initial_model(config: FitConfig, dataset: Dataset) -> Model:
    """The model with fresh weights, which depend on the seed alone, or with those of a run.

    torch's default generator is left as it was. Raises RunError if `initial_weights` is no run,
    TrainingError if it is one of another model.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        model = build_model(config.model, layout_of(dataset))
    if isinstance(model, StartsAtMean):
        mean = dataset.train.mean(0, dtype=np.float64) / (dataset.maximum or 1)
        model.initialize_output(torch.from_numpy(mean.astype(np.float32)))
    if config.initial_weights is not None:
        _take_weights(model, load_run(Path(config.initial_weights)))
    return model


def _take_weights(model: Model, run: Run) -> None:
    ours, theirs = model.family, run.model.family
    what = (
        f"initial_weights: the weights of {run.path} (family {theirs}) do not fit this model "
        f"(family {ours})"
    )
    require(theirs == ours, f"{what}: the families differ")
    try:
        model.load_state_dict(run.model.state_dict())
    except RuntimeError as error:  # names or shapes differ
        raise TrainingError(f"{what}: {' '.join(str(error).split())}") from error


def choose_device(device: Literal["auto", "cpu", "cuda"]) -> str:
    """ "cpu" or "cuda". Raises TrainingError if "cuda" is asked for and not there."""
    available = torch.cuda.is_available()
    require(available or device != "cuda", "device cuda is not available on this machine")
    return "cuda" if available and device != "cpu" else "cpu"


def fit(
    config: FitConfig,
    dataset: Dataset,
    report: Callable[[str], None] = lambda line: None,
    directory: Path | None = None,
    *,
    resume: bool = False,
    minutes: float = math.inf,
    watch: Watch | None = None,
) -> Fitted:
    """Fit with Adam; the same seed gives the same weights on the CPU, also after interruptions.

    With a `directory` the state is saved there, at the end of an epoch at most once a minute;
    `resume` goes on from it. A signal, or `minutes` that have passed, ends the fit after its step.
    `report` receives at most about 20 progress lines, `watch` every step.

    Raises InterruptedFit if it was to stop, KeyboardInterrupt if nothing could be saved,
    TrainingError if the loss stays not finite, and RunError if the directory is at fault.
    """
    device = choose_device(config.device)
    fresh = config.initial_weights is None and not resume
    # What a fit goes on with is in its state: a run that it began with may be gone.
    model = initial_model(replace(config, initial_weights=None) if resume else config, dataset)
    if isinstance(model, Prepared) and fresh:
        model.prepare(dataset, config.seed)
    check_objective(config.objective, model)
    alone = process_count() == 1
    require(
        alone or config.objective.name != "total_correlation",
        "objective total_correlation compares the items of a batch, so it fits in one process only",
    )
    require(config.held_out < len(dataset.train), "held_out leaves nothing to fit on")
    binary = model.likelihood_name == "bernoulli"
    batches = training_batches(dataset, config.held_out, binary, device)
    module = cast("nn.Module", model).to(device).train()
    state = initial_state(module, config.optimizer, config.seed, device)
    journal: Journal | None = None
    history: list[EpochMetrics] = []
    if directory is not None and resume:
        journal, history = continue_journal(directory, config, state)
    elif directory is not None:
        journal = begin_journal(directory, config, dataset)
    loop = Loop(config, dataset, batches, state, journal, history, report, device, watch)
    try:
        with stop_wishes() as wish:
            loop.run(wish, time.monotonic() + 60 * minutes)
        if journal is not None:  # what comes after the fit can be interrupted, too
            journal.save(state)
    finally:
        if journal is not None:
            journal.close()
    evaluated = state.evaluated  # once: it takes the buffers of the last step
    if state.best:
        evaluated.load_state_dict(state.best)
    freeze_variance(cast("Model", evaluated), batches, config.seed)
    fitted = cast("Model", evaluated.cpu().eval())
    return Fitted(fitted, history, state.counters.seconds)
