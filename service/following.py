"""When what is served is looked at again, by `--model-control`."""

from collections.abc import Callable
from typing import Final

from service.control import Control
from service.errors import ServiceError
from service.repository import RepositoryError
from service.settings import Settings
from service.wanted import WantedModels

_WANTED_SECONDS: Final = 0.5  # between looks at what another process was asked for


def load_first(settings: Settings, control: Control, wanted: WantedModels) -> None:
    """Loads what is served from the start.

    Raises what keeps the service from starting: an unreadable repository, a model that cannot be
    loaded unless the repository is polled for a better one, or no model unless some may come.
    """
    failures = control.follow()
    if settings.model_control == "explicit":
        for name in settings.load_models.split(",") if settings.load_models else ():
            try:
                wanted.load(name)
            except ServiceError as error:
                raise RepositoryError(f"--load-models: {name}: {error}") from error
        wanted.follow()
    elif settings.model_control == "none":
        if failures:
            raise failures[0]
        if not control.states:
            place = settings.repository
            raise RepositoryError(
                f"{place} holds no model; expected {place}/NAME/VERSION/manifest.json"
            )


def following(
    settings: Settings, control: Control, wanted: WantedModels
) -> tuple[float | None, Callable[[], object]]:
    """Seconds until what is served is looked at again, None for never, and how."""
    if settings.model_control == "poll":
        return settings.repository_poll_seconds, control.follow
    if settings.wanted_file is not None and settings.model_control == "explicit":
        return _WANTED_SECONDS, wanted.follow
    return None, control.follow
