"""The report of a fit: what a run directory says, as the subject of a report."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from training.config import FitConfig
from training.data import Dataset
from training.errors import RunError
from training.evaluate import SEED, test_items
from training.evaluation import Evaluation
from training.model import Model
from training.objectives import ObjectiveConfig
from training.presets import outcomes, presets
from training.report import Goal, Subject, render

History = Sequence[Mapping[str, float | int]]


def report(
    config: FitConfig, model: Model, dataset: Dataset, evaluation: Evaluation, history: History
) -> bytes:
    """The HTML file for a model in eval mode, on the items of its evaluation."""
    items = test_items(model, dataset, torch.Generator().manual_seed(SEED))
    return render(
        Subject(
            title=config.preset,
            facts=_facts(config, model, dataset, history),
            goals=_goals(config, evaluation),
            history=history,
            evaluation=evaluation,
            model=model,
            items=items,
            label_names=dataset.label_names,
        )
    )


def read_history(path: Path) -> list[dict[str, float | int]]:
    """The lines of a run's metrics.jsonl. Raises RunError if it cannot be read."""
    file = path / "metrics.jsonl"
    try:
        lines = [json.loads(line) for line in file.read_text().splitlines()]
    except (OSError, ValueError) as error:
        raise RunError(f"cannot read {file}: {error}") from error
    if not all(isinstance(line, dict) for line in lines):
        raise RunError(f"{file} must hold one JSON object a line")
    return lines


def _facts(
    config: FitConfig, model: Model, dataset: Dataset, history: History
) -> list[tuple[str, str]]:
    channels, height, width = dataset.observation_shape
    shape = f"{height} x {width} pixels, {channels} channel{'s' if channels > 1 else ''}"
    epochs = history[-1].get("epoch", config.epochs) if history else config.epochs
    parameters = sum(parameter.numel() for parameter in model.parameters())
    return [
        ("data", f"{dataset.name}: {len(dataset.train)} train and {len(dataset.test)} test items"),
        ("observations", shape),
        ("model", f"family {config.model.family}, {parameters:,} parameters"),
        ("latents", " x ".join(map(str, model.latent_shape))),
        ("likelihood", model.likelihood_name),
        ("objective", _objective(config)),
        ("fit", f"{epochs} epochs, batches of {config.batch_size}, seed {config.seed}"),
    ]


def _objective(config: FitConfig) -> str:
    """Its name, and the settings that are not the usual ones."""
    chosen, usual = vars(config.objective), vars(ObjectiveConfig())
    settings = [
        f"{name.replace('_', ' ')} {value}"
        for name, value in chosen.items()
        if name != "name" and value != usual[name]
    ]
    return ", ".join([chosen["name"].replace("_", " "), *settings])


def _goals(config: FitConfig, evaluation: Evaluation) -> list[Goal]:
    """The preset's goals beside what was measured; none for a part of its data, as of --smoke."""
    preset = presets().get(config.preset)
    if preset is None or _limits(config) != _limits(preset.config):
        return []
    words = {True: "at most", False: "at least"}
    return [
        Goal(
            outcome.metric.replace("_", " "),
            f"{words[outcome.at_most]} {outcome.goal:g}",
            "" if outcome.value is None else f"{outcome.value:.5g}",
            outcome.met,
        )
        for outcome in outcomes(preset.goals, evaluation.to_json())
    ]


def _limits(config: FitConfig) -> tuple[int | None, int | None]:
    return config.data.train_limit, config.data.test_limit
