"""The directory of a fit that goes on: what a later process needs to continue it.

    RUN/fit.json            configuration and data set, written at the start
    RUN/state.safetensors   the last good state, replaced whole by a rename
    RUN/metrics.jsonl       one JSON object for each epoch
    RUN/events.out.*        the same for TensorBoard

The first two go when the fit is done and `training.checkpoint` has written the run.
"""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any, cast

import safetensors.torch
from safetensors import SafetensorError, safe_open
from tensorboardX import SummaryWriter

from training.config import FitConfig, from_json, to_json
from training.data import Dataset
from training.distributed import process_index
from training.errors import RunError
from training.files import replace_durably
from training.state import FitState

DESCRIPTION = "fit.json"
STATE = "state.safetensors"
METRICS = "metrics.jsonl"
FORMAT_VERSION = 1
EpochMetrics = dict[str, float | int]


class Journal:
    """Where the first of the processes writes; every other one, and none at all, writes nothing."""

    def __init__(self, path: Path, config: FitConfig) -> None:
        self.path = path
        self._config = config
        self._writes = process_index() == 0
        self._events = SummaryWriter(str(path), flush_secs=30) if self._writes else None

    def add(self, metrics: EpochMetrics) -> None:
        """Note an epoch's metrics."""
        if self._events is not None:
            with _as_run_error(self.path), (self.path / METRICS).open("a") as file:
                file.write(json.dumps(metrics) + "\n")
            for name, value in metrics.items():
                if name not in ("epoch", "step"):
                    self._events.add_scalar(name, value, metrics["step"])

    def rewrite(self, history: list[EpochMetrics]) -> None:
        """Replace the metrics by those of these epochs."""
        if self._writes:
            content = "".join(json.dumps(metrics) + "\n" for metrics in history)
            with _as_run_error(self.path):
                replace_durably(self.path / METRICS, content.encode())

    def save(self, state: FitState) -> None:
        """Replace the state. Raises RunError if it cannot be written; the old one is whole then."""
        if self._writes:
            metadata = {
                "preset": self._config.preset,
                "family": self._config.model.family,
                "counters": json.dumps(asdict(state.counters)),
            }
            tensors = {name: value.contiguous() for name, value in state.snapshot()[0].items()}
            content = safetensors.torch.save(tensors, metadata)
            with _as_run_error(self.path):
                replace_durably(self.path / STATE, content)

    def close(self) -> None:
        """Let TensorBoard's file reach the disk."""
        if self._events is not None:
            with suppress(OSError):  # a full disk: the metrics are in the other file, too
                self._events.close()


def begin_journal(path: Path, config: FitConfig, dataset: Dataset) -> Journal:
    """Make the directory of a fresh fit. Raises RunError if it cannot be written."""
    if process_index() == 0:
        description = {
            "format_version": FORMAT_VERSION,
            "config": to_json(config),
            "dataset_sha256": dataset.sha256(),
        }
        with _as_run_error(path):
            path.mkdir(parents=True, exist_ok=True)
            content = json.dumps(description, indent=2) + "\n"
            replace_durably(path / DESCRIPTION, content.encode())
    return Journal(path, config)


def read_description(path: Path) -> tuple[FitConfig, str]:
    """The configuration of a fit that was interrupted, and the digest of its data set.

    Raises RunError, naming the file, if there is none or it is damaged.
    """
    file = path / DESCRIPTION
    try:
        document = json.loads(file.read_bytes())
        if document["format_version"] != FORMAT_VERSION:
            raise RunError(f"{file} has format version {document['format_version']}")
        return from_json(document["config"]), str(document["dataset_sha256"])
    except OSError as error:
        raise RunError(f"cannot read {file}: {error.strerror}; nothing to resume here") from error
    except (ValueError, KeyError, TypeError) as error:
        raise RunError(f"{file} describes no fit: {error}") from error


def continue_journal(
    path: Path, config: FitConfig, state: FitState
) -> tuple[Journal, list[EpochMetrics]]:
    """Put the saved state into `state`; the metrics of the epochs before it.

    A fit that was interrupted before its first state starts over. Raises RunError if the state is
    damaged or one of another model, which it names.
    """
    history: list[EpochMetrics] = []
    if (path / STATE).exists():
        _restore(path / STATE, config, state)
        with suppress(FileNotFoundError):
            lines = map(json.loads, (path / METRICS).read_text().splitlines())
            history = [line for line in lines if line["step"] <= state.counters.step]
    journal = Journal(path, config)
    journal.rewrite(history)
    return journal, history


def remove_journal(path: Path) -> None:
    """Remove what a finished run needs no more."""
    for name in (STATE, DESCRIPTION):
        (path / name).unlink(missing_ok=True)


def _restore(path: Path, config: FitConfig, state: FitState) -> None:
    try:
        with safe_open(path, framework="pt") as file:
            metadata: Mapping[str, str] = file.metadata() or {}
            theirs = (metadata.get("preset"), metadata.get("family"))
            ours = (config.preset, config.model.family)
            if theirs != ours:
                raise RunError(
                    f"{path} is the state of preset {theirs[0]} (family {theirs[1]}), "
                    f"not of {ours[0]} (family {ours[1]})"
                )
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        counters = cast("dict[str, Any]", json.loads(metadata["counters"]))
        state.restore(tensors, counters)
    except RunError:
        raise
    except (OSError, SafetensorError, ValueError, KeyError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise RunError(f"cannot continue from {path}: {reason}") from error


@contextmanager
def _as_run_error(path: Path) -> Iterator[None]:
    """Turn an OSError into a RunError that names the directory."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or error
        kept = f"; the last state is whole: resume {path}" if (path / STATE).exists() else ""
        raise RunError(f"cannot write {path}: {reason}{kept}") from error
