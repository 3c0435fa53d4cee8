"""Named configurations, one TOML file each. A preset says which numbers its fit must reach."""

import json
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from importlib.resources import files
from pathlib import Path
from typing import Any, Final

from training.config import FitConfig, to_json
from training.documents import from_document, nearest
from training.errors import TrainingError

_AT_MOST: Final = {
    "elbo_gap",
    "log_likelihood_gap",
    "rate",
    "negative_elbo",
    "negative_log_likelihood",
    "mean_squared_error",
}


@dataclass(frozen=True)
class Goals:
    """What a fit must reach on the test split; None where nothing is asked.

    At most: `negative_elbo`, `rate` and `negative_log_likelihood` in nats per item (a Gaussian
    likelihood is a density, so its bound may be below zero), the gaps of the bounds to a known
    log-likelihood, and `mean_squared_error` of
    reconstructions in [0, 1]. At least: `active_units`, `mutual_information_gap`, and the shares
    `label_agreement` of samples that a classifier reads as asked, `used_codes` of a codebook, and
    `gradient_energy` of reconstructions, which is less than 1 where they are blurred.
    """

    negative_elbo: float | None = None
    rate: float | None = None
    negative_log_likelihood: float | None = None
    mean_squared_error: float | None = None
    active_units: int | None = None
    elbo_gap: float | None = None
    log_likelihood_gap: float | None = None
    mutual_information_gap: float | None = None
    label_agreement: float | None = None
    gradient_energy: float | None = None
    used_codes: float | None = None

    def __str__(self) -> str:
        stated = {name: value for name, value in vars(self).items() if value is not None}
        return ", ".join(f"{name.replace('_', ' ')} {value:g}" for name, value in stated.items())


@dataclass(frozen=True)
class Outcome:
    """What a fit reached of a goal; `value` and `met` are None if it was not measured."""

    metric: str
    goal: float
    at_most: bool
    value: float | None
    met: bool | None


def outcomes(goals: Goals, measured: Mapping[str, float | None]) -> list[Outcome]:
    """Every goal beside what was measured: the numbers of an evaluation by their names."""
    values = dict(measured)
    for bound in ("elbo", "log_likelihood"):
        value = values.get(bound)
        if value is not None:
            values[f"negative_{bound}"] = -value
    found = []
    for metric, goal in vars(goals).items():
        if goal is None:
            continue
        at_most, value = metric in _AT_MOST, values.get(metric)
        met = None if value is None else (value <= goal if at_most else value >= goal)
        found.append(Outcome(metric, goal, at_most, value, met))
    return found


@dataclass(frozen=True)
class Preset:
    """A configuration, what it is for, what it must reach, and what `source` reports of such a
    model fitted in full."""

    config: FitConfig
    description: str
    goals: Goals
    paper: Goals
    source: str


def presets() -> dict[str, Preset]:
    """All presets by name."""
    folder = files("training") / "presets"
    texts = {item.name: item.read_text() for item in folder.iterdir()}
    names = sorted(name.removesuffix(".toml") for name in texts if name.endswith(".toml"))
    return {name: read_preset(name, texts[f"{name}.toml"]) for name in names}


def read_preset(name: str, text: str) -> Preset:
    """A preset from its TOML text: `description`, [goals], [paper] and the settings of FitConfig.

    Settings that are left out take their defaults. Raises TrainingError, naming the preset, for
    whatever else is in it.
    """
    try:
        document: dict[str, Any] = tomllib.loads(text)
        description = str(document.pop("description", ""))
        goals = from_document(Goals, document.pop("goals", {}), "goals.")
        paper = document.pop("paper", {})
        source = str(paper.pop("source", ""))
        reported = from_document(Goals, paper, "paper.")
        config = from_document(FitConfig, document | {"preset": name})
    except (tomllib.TOMLDecodeError, TrainingError) as error:
        raise TrainingError(f"preset {name}: {error}") from error
    return Preset(config, description, goals, reported, source)


def find_preset(name: str) -> Preset:
    """A preset by its name, or by the path of a file of one's own, which ends in .toml.

    The file's name without that is then the preset's. Raises TrainingError if there is none.
    """
    path = Path(name)
    if path.suffix == ".toml":
        try:
            return read_preset(path.stem, path.read_text())
        except (OSError, UnicodeDecodeError) as error:
            raise TrainingError(f"cannot read the preset {name}: {error}") from error
    known = presets()
    if name not in known:
        raise TrainingError(f"unknown preset {name!r}{nearest(name, known)}")
    return known[name]


def written(config: FitConfig) -> str:
    """All settings as TOML that `read_preset` reads, one dotted key a line as `--set` takes it.

    A setting without a value is a comment.
    """
    lines = []
    for key, value in settings_of(config).items():
        if key == "preset":
            continue
        comment = "# " if value is None else ""
        lines.append(f"{comment}{key} = {'none' if value is None else json.dumps(value)}\n")
    return "".join(lines)


def settings_of(config: FitConfig) -> dict[str, Any]:
    """The value of each setting by its dotted key, as JSON has it."""
    return _flat(to_json(config))


def _flat(document: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    values: dict[str, Any] = {}
    for key, value in document.items():
        values |= (
            _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
        )
    return values


def smoke(config: FitConfig) -> FitConfig:
    """The same in seconds: few items and epochs."""
    data = replace(config.data, train_limit=2000, test_limit=200)
    held_out = min(config.held_out, 200)
    return replace(config, data=data, epochs=3, least_steps=0, evaluate_every=1, held_out=held_out)
