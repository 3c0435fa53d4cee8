"""Named configurations, one TOML file each. A preset says which numbers its fit must reach."""

import tomllib
from dataclasses import dataclass, replace
from importlib.resources import files
from typing import Any

from training.config import FitConfig
from training.documents import from_document
from training.errors import TrainingError


@dataclass(frozen=True)
class Goals:
    """What a fit must reach on the test split; None where nothing is asked.

    At most: `negative_elbo` and `negative_log_likelihood` in nats per item (a Gaussian likelihood
    is a density, so its bound may be below zero) and `mean_squared_error` of reconstructions in
    [0, 1]. At least: `active_units`, `mutual_information_gap`, and the shares `label_agreement` of
    samples that a classifier reads as asked and `used_codes` of a codebook.
    """

    negative_elbo: float | None = None
    negative_log_likelihood: float | None = None
    mean_squared_error: float | None = None
    active_units: int | None = None
    mutual_information_gap: float | None = None
    label_agreement: float | None = None
    used_codes: float | None = None

    def __str__(self) -> str:
        stated = {name: value for name, value in vars(self).items() if value is not None}
        return ", ".join(f"{name.replace('_', ' ')} {value:g}" for name, value in stated.items())


@dataclass(frozen=True)
class Preset:
    """A configuration, what it is for, and what it must reach."""

    config: FitConfig
    description: str
    goals: Goals


def presets() -> dict[str, Preset]:
    """All presets by name."""
    folder = files("training") / "presets"
    texts = {item.name: item.read_text() for item in folder.iterdir()}
    names = sorted(name.removesuffix(".toml") for name in texts if name.endswith(".toml"))
    return {name: read_preset(name, texts[f"{name}.toml"]) for name in names}


def read_preset(name: str, text: str) -> Preset:
    """A preset from its TOML text: `description`, [goals], and the settings of FitConfig.

    Settings that are left out take their defaults. Raises TrainingError, naming the preset, for
    whatever else is in it.
    """
    try:
        document: dict[str, Any] = tomllib.loads(text)
        description = str(document.pop("description"))
        goals = from_document(Goals, document.pop("goals", {}), "goals.", complete=False)
        config = from_document(FitConfig, document | {"preset": name}, complete=False)
    except (tomllib.TOMLDecodeError, KeyError, TrainingError) as error:
        raise TrainingError(f"preset {name}: {error}") from error
    return Preset(config, description, goals)


def smoke(config: FitConfig) -> FitConfig:
    """The same in seconds: few items and epochs."""
    data = replace(config.data, train_limit=2000, test_limit=500)
    held_out = min(config.held_out, 200)
    return replace(config, data=data, epochs=3, evaluate_every=1, held_out=held_out)
