"""Settings of one model, from the optional file REPOSITORY/NAME/settings.toml."""

import difflib
import tomllib
from typing import Final, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

from service.batching import MOST_LEVELS
from service.repository import RepositoryError
from service.version_policy import DESCRIPTION, PATTERN

SETTINGS_FILE: Final = "settings.toml"


class ModelSettings(BaseModel):
    """What a model wants otherwise than the service's settings say; None leaves it at those.

    buckets: ascending batch sizes to pad to, instead of the manifest's. instances: batches of one
    graph that run at once. default_priority_level: only together with priority_levels, whose
    middle one it is unless given.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    version_policy: str | None = Field(None, pattern=PATTERN, description=DESCRIPTION)
    max_queue_delay_ms: float | None = Field(None, ge=0, le=1000)
    max_queue_items: int | None = Field(None, ge=1)
    priority_levels: int | None = Field(None, ge=1, le=MOST_LEVELS)
    default_priority_level: int | None = Field(None, ge=1)
    buckets: list[int] | None = None
    instances: int = Field(1, ge=1, le=64)

    @field_validator("buckets")
    @classmethod
    def _ascending(cls, buckets: list[int] | None) -> list[int] | None:
        if buckets is not None and (
            not buckets or buckets[0] < 1 or buckets != sorted(set(buckets))
        ):
            raise ValueError("expected ascending sizes from 1")
        return buckets

    @model_validator(mode="after")
    def _default_exists(self) -> Self:
        default = self.default_priority_level
        if default is not None and default > (self.priority_levels or 0):
            raise ValueError("expected default_priority_level to be one of priority_levels")
        return self


def parse_model_settings(text: bytes, place: str) -> ModelSettings:
    """The settings in the text of a file; place names it in errors.

    Raises RepositoryError that names the key at fault, and for an unknown one the nearest.
    """
    try:
        values = tomllib.loads(text.decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise RepositoryError(f"{place} is not TOML: {error}") from error
    for key in values:
        if key not in ModelSettings.model_fields:
            near = difflib.get_close_matches(key, ModelSettings.model_fields, n=1, cutoff=0)
            raise RepositoryError(f"{place}: {key!r} is no setting; the nearest is {near[0]!r}")
    try:
        return ModelSettings.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        reason = f"{where}: {first['msg']}" if where else first["msg"]
        raise RepositoryError(f"{place}: {reason}") from error
