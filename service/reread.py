"""Files that are read again when they change: no restart for a new certificate, token or key."""

import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, Generic, TypeVar

from service.logs import Logger

T = TypeVar("T")
LOOK: Final = 0.5  # seconds between looks at the files


class Reread(Generic[T]):
    """What files say together. While what is new cannot be used the old stays, as the log says.

    read: of all paths; raises OSError or ValueError if they cannot be used. clock: seconds of
    time.monotonic.
    """

    def __init__(
        self,
        paths: Sequence[Path],
        read: Callable[[], T],
        log: Logger,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._paths = paths
        self._read = read
        self._log = log
        self._clock = clock
        self._stamps = [_stamp(path) for path in paths]
        self._content = read()
        self._looked = clock()
        self._turn = threading.Lock()

    def content(self) -> T:
        """The newest that could be used. From any thread."""
        now = self._clock()
        if now - self._looked >= LOOK and self._turn.acquire(blocking=False):
            try:
                self._looked = now
                self._look()
            finally:
                self._turn.release()
        return self._content

    def _look(self) -> None:
        stamps = [_stamp(path) for path in self._paths]
        if stamps == self._stamps:
            return
        self._stamps = stamps  # first, so that files are complained of once
        try:
            self._content = self._read()
        except (OSError, ValueError) as error:
            self._log.error("file_not_reloaded", file=str(self._paths[0]), reason=str(error))
        else:
            self._log.info("file_reloaded", file=str(self._paths[0]))


def _stamp(path: Path) -> tuple[int, int, int, int] | None:
    """Changes with the file or its mode: Kubernetes replaces a link, others write in place."""
    try:
        stat = path.stat()
    except OSError:
        return None  # reading it will say why
    return stat.st_ino, stat.st_mtime_ns, stat.st_size, stat.st_mode
