"""Explicit model control: what is served is what was asked for.

That can be kept in a file, for a restart and for the processes that share a port: each looks there
now and then, and does what was asked of another one. A model has a number there that changes when
it is asked for again, so that all load what is new in the repository then.
"""

import contextlib
import fcntl
import json
import os
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from service.errors import ServiceError
from service.repository import RepositoryError
from service.settings import Settings, SettingsError


class Loads(Protocol):
    """Loads and unloads models by name (`service.control.Control`).

    Raises ServiceError for what it cannot do, and load RepositoryError if nobody can say.
    """

    def load(self, name: str) -> None: ...
    def unload(self, name: str) -> None: ...


def wanted_file(settings: Settings) -> Path | None:
    """Where what is wanted can be kept, if it shall be. Raises SettingsError if it cannot."""
    path = settings.wanted_file
    if path is not None and not os.access(path.parent, os.W_OK | os.X_OK):
        raise SettingsError(f"--wanted-file: {path.parent} is no folder that can be written to")
    return path


class WantedModels:
    """Does what it is asked for, and what others were asked for that share its file."""

    def __init__(self, loads: Loads, path: Path | None) -> None:
        self._loads = loads
        self._path = path
        self._done: dict[str, int] = {}
        self._lock = threading.Lock()

    def load(self, name: str) -> None:
        """Serves a model from now on. Raises what `loads` does; then nobody else is told."""
        with self._lock:
            self._loads.load(name)
            self._done[name] = self._change(name, wanted=True)

    def unload(self, name: str) -> None:
        """Serves a model no longer. Raises what `loads` does; then nobody else is told."""
        with self._lock:
            self._loads.unload(name)
            self._done.pop(name, None)
            self._change(name, wanted=False)

    def follow(self) -> None:
        """Does what others were asked for; failures are in the log of loads, and not repeated.

        Raises RepositoryError if the file is damaged or the repository cannot be read; what has not
        been done then is left for the next time.
        """
        with self._lock:
            wanted = self._read()
            for name in self._done.keys() - wanted.keys():
                del self._done[name]
                with contextlib.suppress(ServiceError):  # it could not be loaded here
                    self._loads.unload(name)
            for name, number in wanted.items():
                if self._done.get(name) != number:
                    with contextlib.suppress(ServiceError):
                        self._loads.load(name)
                    self._done[name] = number

    def _read(self) -> Mapping[str, int]:
        if self._path is None:
            return dict(self._done)
        try:
            read = json.loads(self._path.read_bytes())
        except FileNotFoundError:
            return {}
        except (OSError, ValueError) as error:
            raise RepositoryError(f"{self._path} cannot be read: {error}") from error
        if not isinstance(read, dict) or not all(type(each) is int for each in read.values()):
            raise RepositoryError(f"{self._path} is no JSON object of names with numbers")
        return read

    def _change(self, name: str, *, wanted: bool) -> int:
        number = time.time_ns()
        if self._path is None:
            return number
        with self._path.with_name(f"{self._path.name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # another process may change it as well
            models = {key: value for key, value in self._read().items() if key != name}
            if wanted:
                models[name] = number
            beside = self._path.with_name(f"{self._path.name}.new")
            beside.write_text(json.dumps(models, sort_keys=True))
            os.replace(beside, self._path)
        return number
