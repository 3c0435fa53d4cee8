"""The run directory: one fitted model, what made it and what it measured.

    RUN/run.json              configuration, data set, digest of the weights, metrics, versions
    RUN/weights.safetensors   the model's parameters and buffers by name
    RUN/metrics.jsonl         one JSON object for each epoch
    RUN/*.png                 pictures

No pickle: reading a run executes nothing. A run appears by a rename and never changes.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib.metadata import version as package_version
from pathlib import Path
from typing import Any, cast

import safetensors.torch
from safetensors import SafetensorError

from training.batches import layout_of
from training.config import FitConfig, from_json, to_json
from training.data import Dataset, load_dataset
from training.errors import RunError, TrainingError
from training.evaluation import Evaluation
from training.files import replace_durably
from training.journal import METRICS, remove_journal
from training.model import Layout, Model
from training.models import build_model

FORMAT_VERSION = 2
DESCRIPTION = "run.json"
WEIGHTS = "weights.safetensors"
_TOOLS = ("torch", "numpy", "safetensors", "scikit-learn")
_METRIC_TYPES = {int, float, type(None)}  # bool is no number here


@dataclass(frozen=True)
class Run:
    """A fitted model in eval mode, as it was read.

    `weights_sha256` and `dataset_sha256` are hexadecimal; `metrics` are the fields of
    `training.evaluate.Evaluation` on the test split.
    """

    path: Path
    config: FitConfig
    model: Model
    weights_sha256: str
    dataset_sha256: str
    metrics: Mapping[str, float | int | None]

    def dataset(self, path: str | None = None) -> Dataset:
        """The data set that the run was fitted on, from its own path or from another one.

        Raises TrainingError if it cannot be read, and RunError if it is another one.
        """
        config = self.config.data.at(path) if path is not None else self.config.data
        dataset = load_dataset(config)
        if dataset.sha256() != self.dataset_sha256:
            raise RunError(f"the data set {config.name} is not the one that {self.path} was fit on")
        return dataset


def check_destination(path: Path) -> None:
    """Raise RunError unless a run can be written to `path`: nothing is there yet."""
    try:
        taken = path.exists()
    except OSError as error:  # the name is too long, or a parent forbids looking
        raise RunError(f"cannot write {path}: {error.strerror}") from error
    if taken:
        raise RunError(f"{path} exists; a run never replaces anything, choose another directory")


def save_run(
    path: Path,
    config: FitConfig,
    model: Model,
    dataset: Dataset,
    evaluation: Evaluation,
    history: Iterable[Mapping[str, float | int]],
    pictures: Mapping[str, bytes],
) -> None:
    """Write a run, or make one of the fit there; `pictures` are PNG files by name.

    Raises RunError if a run is at `path` already, or it cannot be written; there is none then, and
    what a fit left there can still be resumed.
    """
    if (path / DESCRIPTION).exists():
        raise RunError(f"{path} holds a run, which never changes")
    weights = safetensors.torch.save(
        {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
    )
    layout = layout_of(dataset)
    description = {
        "format_version": FORMAT_VERSION,
        "config": to_json(config),
        "observation_shape": list(layout.observation_shape),
        "label_count": layout.label_count,
        "maximum": layout.maximum,
        "dataset_sha256": dataset.sha256(),
        "weights_sha256": hashlib.sha256(weights).hexdigest(),
        "metrics": evaluation.to_json(),
        "versions": {tool: package_version(tool) for tool in _TOOLS},
    }
    files = {
        WEIGHTS: weights,
        METRICS: "".join(json.dumps(epoch) + "\n" for epoch in history).encode(),
        **pictures,
        DESCRIPTION: (json.dumps(description, indent=2) + "\n").encode(),
    }
    try:
        path.mkdir(parents=True, exist_ok=True)
        for name, content in files.items():
            replace_durably(path / name, content)
        remove_journal(path)
    except OSError as error:
        raise RunError(f"cannot write {path}: {error.strerror or error}") from error


def load_run(path: Path) -> Run:
    """Read a run and check it whole.

    Raises RunError, naming the file at fault, if something is missing, damaged, changed since it
    was written, or of a format that this version does not know.
    """
    description = _read_description(path / DESCRIPTION)
    weights = _read(path / WEIGHTS)
    digest = hashlib.sha256(weights).hexdigest()
    if digest != description["weights_sha256"]:
        raise RunError(f"{path / WEIGHTS} does not have the SHA-256 that {DESCRIPTION} states")
    try:
        config = from_json(description["config"])
        layout = Layout(
            _shape(description["observation_shape"]),
            _count(description, "label_count"),
            _count(description, "maximum"),
        )
        model = build_model(config.model, layout)
        model.load_state_dict(safetensors.torch.load(weights))
    except TrainingError as error:
        raise RunError(f"{path / DESCRIPTION}: {error}") from error
    except (SafetensorError, RuntimeError) as error:  # RuntimeError: names or shapes differ
        reason = str(error).strip().partition("\n")[0]
        raise RunError(f"{path / WEIGHTS} does not fit the configured model: {reason}") from error
    return Run(
        path,
        config,
        model.eval(),
        digest,
        description["dataset_sha256"],
        description["metrics"],
    )


def _read_description(path: Path) -> dict[str, Any]:
    text = _read(path)
    try:
        description = json.loads(text)
    except ValueError as error:
        raise RunError(f"{path} is no JSON document: {error}") from error
    version = description.get("format_version") if isinstance(description, dict) else None
    if version != FORMAT_VERSION:
        raise RunError(f"{path} has format version {version}; this version reads {FORMAT_VERSION}")
    needed = {
        "config",
        "observation_shape",
        "label_count",
        "maximum",
        "dataset_sha256",
        "weights_sha256",
        "metrics",
    }
    if missing := sorted(needed - description.keys()):
        raise RunError(f"{path} lacks {missing[0]!r}")
    metrics = description["metrics"]
    if not isinstance(metrics, dict) or {type(value) for value in metrics.values()} - _METRIC_TYPES:
        raise RunError(f"{path}: 'metrics' must be an object of numbers")
    if not isinstance(description["dataset_sha256"], str):
        raise RunError(f"{path}: 'dataset_sha256' must be text")
    return cast("dict[str, Any]", description)


def _shape(value: object) -> tuple[int, int, int]:
    if isinstance(value, list) and len(value) == 3 and all(type(size) is int for size in value):
        channels, height, width = value
        if min(value) >= 1:
            return channels, height, width
    raise TrainingError(f"observation_shape must be three sizes, not {value!r}")


def _count(description: Mapping[str, Any], name: str) -> int | None:
    value = description[name]
    if value is None or (type(value) is int and value >= 1):
        return value
    raise TrainingError(f"{name} must be an integer from 1 or null, not {value!r}")


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise RunError(f"cannot read {path}: {error.strerror}; expected a run directory") from error
