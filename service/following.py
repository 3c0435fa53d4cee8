"""When what is served is looked at again, by `--model-control`."""

import time
from collections.abc import Callable
from typing import Final

from service.control import Control
from service.errors import ServiceError
from service.logs import Logger
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


class Looks:
    """Looks again at what is to be served, now and then.

    A look that fails leaves what is served as it is. It is logged once, and the first that succeeds
    again; `readable` is what the last one was.
    """

    def __init__(
        self, settings: Settings, control: Control, wanted: WantedModels, log: Logger
    ) -> None:
        self.seconds, self._follow = _following(settings, control, wanted)  # None: never
        self._log = log
        self._control = control
        self._failing_since: float | None = None

    @property
    def readable(self) -> bool:
        """Whether the last look succeeded. From any thread."""
        return self._failing_since is None

    def look(self) -> None:
        """Does what is to be done since the last look."""
        try:
            self._follow()
        except Exception as error:  # noqa: BLE001 - a reload's boundary: what is served goes on
            if self._failing_since is None:
                self._failing_since = time.monotonic()
                known = isinstance(error, RepositoryError)
                self._log.error(
                    "repository_unreadable",
                    reason=str(error),
                    kept=self._control.served,
                    exc_info=None if known else error,
                )
        else:
            if self._failing_since is not None:
                seconds = round(time.monotonic() - self._failing_since, 3)
                self._failing_since = None
                self._log.info("repository_readable", seconds=seconds)


def _following(
    settings: Settings, control: Control, wanted: WantedModels
) -> tuple[float | None, Callable[[], object]]:
    """Seconds between looks, None for none, and what one does."""
    if settings.model_control == "poll":
        return settings.repository_poll_seconds, control.follow
    if settings.wanted_file is not None and settings.model_control == "explicit":
        return _WANTED_SECONDS, wanted.follow
    return None, control.follow
