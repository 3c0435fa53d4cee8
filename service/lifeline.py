"""Ties processes to the one that started them: if it ends, however it ends, so do they.

The parent holds one end of a pipe and never writes. Its death, even by SIGKILL, closes that end,
which the others read as the end of the file. Without this they would keep the port: a service that
is started again would share it with them and their old models.
"""

import asyncio
import contextlib
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator


@contextlib.contextmanager
def lifeline() -> Iterator[int]:
    """A descriptor for processes to inherit; its other end closes with the block or the process."""
    theirs, ours = os.pipe()  # neither is inherited unless somebody says so
    try:
        yield theirs
    finally:
        os.close(ours)
        os.close(theirs)


def hold(
    descriptor: int,
    loop: asyncio.AbstractEventLoop,
    on_cut: Callable[[], None],
    seconds: float,
    exit_now: Callable[[int], None] = os._exit,
) -> None:
    """Calls on_cut on loop when the other end of a lifeline closes; exits if it is not enough.

    A thread waits, so a loop that hangs cannot keep the process: it ends `seconds` later with 1.
    """

    def wait() -> None:
        with contextlib.suppress(OSError):
            while os.read(descriptor, 1):
                pass
        _silence()
        with contextlib.suppress(RuntimeError):  # the loop has closed: the process ends by itself
            loop.call_soon_threadsafe(on_cut)
        time.sleep(seconds)
        exit_now(1)

    threading.Thread(target=wait, name="lifeline", daemon=True).start()


def _silence() -> None:
    """Standard error went to the parent, and a log line must not fail the drain."""
    with contextlib.suppress(OSError), open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), sys.stderr.fileno())
