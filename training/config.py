"""Everything that decides a fit, as frozen dataclasses, with a strict JSON round trip.

`--set model.latent_size=8` arrives here as text; the annotations of the dataclasses say how to
read it, so a new field needs no parser.
"""

import dataclasses
import math
import types
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field, fields, is_dataclass, replace
from typing import Any, Literal, Union, cast, get_args, get_origin, get_type_hints

from training.errors import TrainingError


@dataclass(frozen=True)
class DataConfig:
    """Which data set, and the directory or file it is read from where it ships with no library.

    `train_limit` and `test_limit` take the first items of a split only; None takes all.
    `image_size` (pixels, square) and `channels` (1 gray, 3 RGB) are for sets that can be had in
    several; None takes what suits the set. `seed` decides what a set leaves to chance: its split,
    order or draws. docs/data.md says which set reads which.
    """

    name: Literal["digits", "mnist", "imagefolder", "arrays", "shapes", "linear-gaussian"] = (
        "digits"
    )
    path: str | None = None
    train_limit: int | None = None
    test_limit: int | None = None
    image_size: int | None = None
    channels: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("train_limit", "test_limit", "image_size"):
            value = getattr(self, name)
            _require(value is None or value >= 1, f"data.{name} must be at least 1")
        _require(self.channels in (None, 1, 3), "data.channels must be 1 (gray) or 3 (RGB)")
        _require(0 <= self.seed < 2**63, "data.seed must be between 0 and 2**63 - 1")

    def at(self, path: str) -> "DataConfig":
        """The same data set in another directory."""
        return replace(self, path=path)


@dataclass(frozen=True)
class ModelConfig:
    """The architecture of a `training.models.Vae`.

    `hidden_sizes` are the dense layers from observation to latents; the decoder mirrors them.
    `channels` are the stages of family "conv", each of which halves height and width.
    `gaussian_std` fixes the standard deviation of a Gaussian likelihood, in units of observations
    in [0, 1]; None learns one scalar. Bernoulli ignores it.
    """

    family: Literal["mlp", "conv"] = "mlp"
    latent_size: int = 8
    hidden_sizes: tuple[int, ...] = (200, 200)
    channels: tuple[int, ...] = ()
    likelihood: Literal["bernoulli", "gaussian"] = "bernoulli"
    activation: Literal["relu", "tanh", "silu", "gelu"] = "tanh"
    gaussian_std: float | None = None

    def __post_init__(self) -> None:
        _require(self.latent_size >= 1, "model.latent_size must be at least 1")
        _require(min(self.hidden_sizes, default=1) >= 1, "model.hidden_sizes must be at least 1")
        _require(min(self.channels, default=1) >= 1, "model.channels must be at least 1")
        _require(self.family == "conv" or not self.channels, "model.channels needs family conv")
        _require(self.family == "mlp" or bool(self.channels), "family conv needs model.channels")
        _require(
            self.gaussian_std is None or 0 < self.gaussian_std < math.inf,
            "model.gaussian_std must be positive and finite",
        )


@dataclass(frozen=True)
class FitConfig:
    """One fit. The learning rate decays along a cosine to zero at the last step.

    `kl_weight` multiplies the rate in the loss (beta of Higgins et al. 2017; 1 is the ELBO), and
    grows linearly from 0 over the first `kl_warmup_epochs`. `evaluate_every` is in epochs.
    """

    preset: str
    data: DataConfig = field(default_factory=DataConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    epochs: int = 100
    batch_size: int = 100
    learning_rate: float = 1e-3
    kl_weight: float = 1.0
    kl_warmup_epochs: int = 0
    evaluate_every: int = 10
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size", "evaluate_every"):
            _require(getattr(self, name) >= 1, f"{name} must be at least 1")
        _require(0 < self.learning_rate < math.inf, "learning_rate must be positive and finite")
        _require(0 <= self.kl_weight < math.inf, "kl_weight must be finite and not negative")
        _require(self.kl_warmup_epochs >= 0, "kl_warmup_epochs must not be negative")
        _require(0 <= self.seed < 2**63, "seed must be between 0 and 2**63 - 1")


def to_json(config: FitConfig) -> dict[str, Any]:
    """The configuration as JSON values; tuples become lists."""
    return cast("dict[str, Any]", _plain(dataclasses.asdict(config)))


def from_json(document: Mapping[str, Any]) -> FitConfig:
    """Inverse of `to_json`. Raises TrainingError for unknown keys and values of a wrong type."""
    return cast("FitConfig", _build(FitConfig, document, ""))


def with_overrides(config: FitConfig, overrides: Mapping[str, str]) -> FitConfig:
    """The configuration with dotted keys replaced by parsed text.

    A tuple is written "200,200" and an absent value "none". Raises TrainingError for a key that
    does not exist, naming those that do, and for text that does not fit the key's type.
    """
    hints = _leaves(FitConfig, "")
    document = to_json(config)
    for key, text in overrides.items():
        if key not in hints:
            known = ", ".join(sorted(hints))
            raise TrainingError(f"unknown setting {key!r}; known settings: {known}")
        section, _, name = key.rpartition(".")
        target = document[section] if section else document
        target[name] = _plain(_parse(hints[key], text, key))
    return from_json(document)


def _require(holds: bool, message: str) -> None:
    if not holds:
        raise TrainingError(message)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return list(value) if isinstance(value, tuple) else value


def _leaves(owner: type, prefix: str) -> dict[str, Any]:
    hints = get_type_hints(owner)
    leaves: dict[str, Any] = {}
    for name, hint in hints.items():
        if is_dataclass(hint):
            leaves |= _leaves(cast("type", hint), f"{prefix}{name}.")
        elif name != "preset":  # says where the settings came from; is none itself
            leaves[prefix + name] = hint
    return leaves


def _build(owner: type, document: object, prefix: str) -> object:
    if not isinstance(document, Mapping):
        raise TrainingError(f"configuration {prefix or 'document'!r} must be an object")
    hints = get_type_hints(owner)
    unknown = sorted(set(document) - set(hints))
    if unknown:
        raise TrainingError(f"unknown configuration key {prefix + unknown[0]!r}")
    missing = [item.name for item in fields(owner) if item.name not in document]
    if missing:
        raise TrainingError(f"missing configuration key {prefix + missing[0]!r}")
    values = {
        name: _build(hint, document[name], f"{prefix}{name}.")
        if isinstance(hint, type) and is_dataclass(hint)
        else _checked(hint, document[name], prefix + name)
        for name, hint in hints.items()
    }
    return owner(**values)


def _checked(hint: Any, value: Any, key: str) -> Any:
    """A JSON value as the annotated type; bool is no int, and an int is a fine float."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        inner = next(argument for argument in arguments if argument is not type(None))
        return None if value is None else _checked(inner, value, key)
    if origin is Literal:
        if value in arguments:
            return value
        raise TrainingError(f"{key} must be one of {', '.join(arguments)}, not {value!r}")
    if origin is tuple and isinstance(value, list):
        return tuple(_checked(arguments[0], item, key) for item in value)
    if hint is float and type(value) is int:
        with suppress(OverflowError):  # larger than any float: refused below
            return float(value)
    if type(value) is hint:
        return value
    raise TrainingError(f"{key} must be {_describe(hint)}, not {value!r}")


def _parse(hint: Any, text: str, key: str) -> Any:
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        inner = next(argument for argument in arguments if argument is not type(None))
        return None if text.lower() == "none" else _parse(inner, text, key)
    if origin is Literal:
        return _checked(hint, text, key)
    if origin is tuple:
        return tuple(_parse(arguments[0], item, key) for item in text.split(",") if item.strip())
    try:
        return hint(text)
    except ValueError:
        raise TrainingError(f"{key} must be {_describe(hint)}, not {text!r}") from None


def _describe(hint: Any) -> str:
    names = {int: "an integer", float: "a number", str: "text"}
    return names.get(hint, "a list of integers")
