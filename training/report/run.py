"""The report of a fit: what a run directory says, as the subject of a report."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from training.adapter import VaeModel
from training.config import FitConfig
from training.data import Dataset
from training.errors import RunError
from training.evaluate import SEED, test_items
from training.evaluation import Evaluation
from training.models import Vae
from training.presets import presets
from training.report import Goal, Subject, render

History = Sequence[Mapping[str, float | int]]


def report(
    config: FitConfig, model: Vae, dataset: Dataset, evaluation: Evaluation, history: History
) -> bytes:
    """The HTML file for a model in eval mode, on the items of its evaluation."""
    items = test_items(model, dataset, torch.Generator().manual_seed(SEED))
    names = tuple(str(label) for label in range(int(dataset.test_labels.max()) + 1))
    return render(
        Subject(
            title=config.preset,
            facts=_facts(config, model, dataset),
            goals=_goals(config, evaluation),
            history=history,
            evaluation=evaluation,
            model=VaeModel(model),
            items=items,
            label_names=names,
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


def _facts(config: FitConfig, model: Vae, dataset: Dataset) -> list[tuple[str, str]]:
    channels, height, width = dataset.observation_shape
    shape = f"{height} x {width} pixels, {channels} channel{'s' if channels > 1 else ''}"
    parameters = sum(parameter.numel() for parameter in model.parameters())
    return [
        ("data", f"{dataset.name}: {len(dataset.train)} train and {len(dataset.test)} test items"),
        ("observations", shape),
        ("model", f"family {config.model.family}, {parameters:,} parameters"),
        ("latents", str(model.latent_size)),
        ("likelihood", model.likelihood_name),
        ("fit", f"{config.epochs} epochs, batches of {config.batch_size}, seed {config.seed}"),
    ]


def _goals(config: FitConfig, evaluation: Evaluation) -> list[Goal]:
    preset = presets().get(config.preset)
    if preset is None or evaluation.elbo is None or evaluation.active_units is None:
        return []
    negative_elbo, units = -evaluation.elbo, evaluation.active_units
    return [
        Goal(
            "negative ELBO, nats",
            f"at most {preset.negative_elbo:g}",
            f"{negative_elbo:.2f}",
            negative_elbo <= preset.negative_elbo,
        ),
        Goal(
            "active units",
            f"at least {preset.active_units}",
            f"{units}",
            units >= preset.active_units,
        ),
    ]
