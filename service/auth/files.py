"""Files that are read again when they change: no restart for a new token or key."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Final, Generic, TypeVar

from service.logs import Logger

T = TypeVar("T")
_LOOK: Final = 1.0  # seconds between looks at a file


class Reread(Generic[T]):
    """What a file says. While the new content cannot be used the old stays, and the log says so.

    read: raises OSError or ValueError for a file that cannot be used. clock: seconds of
    time.monotonic.
    """

    def __init__(
        self,
        path: Path,
        read: Callable[[Path], T],
        log: Logger,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._path = path
        self._read = read
        self._log = log
        self._clock = clock
        self._stamp = _stamp(path)
        self._content = read(path)
        self._looked = clock()

    def content(self) -> T:
        """The newest that could be used."""
        now = self._clock()
        if now - self._looked >= _LOOK:
            self._looked = now
            self._look()
        return self._content

    def _look(self) -> None:
        stamp = _stamp(self._path)
        if stamp == self._stamp:
            return
        self._stamp = stamp  # first, so that a file is complained of once
        try:
            self._content = self._read(self._path)
        except (OSError, ValueError) as error:
            self._log.error("file_not_reloaded", file=str(self._path), reason=str(error))
        else:
            self._log.info("file_reloaded", file=str(self._path))


def _stamp(path: Path) -> tuple[int, int, int, int] | None:
    """Changes with the file or its mode: Kubernetes replaces a link, others write in place."""
    try:
        stat = path.stat()
    except OSError:
        return None  # reading it will say why
    return stat.st_ino, stat.st_mtime_ns, stat.st_size, stat.st_mode
