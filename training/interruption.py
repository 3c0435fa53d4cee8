"""Ctrl-C and SIGTERM as a wish to stop that a fit asks for after every step."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class Wish:
    """Whether somebody wants the fit to stop."""

    def __init__(self) -> None:
        self.stop = False


@contextmanager
def stop_wishes() -> Iterator[Wish]:
    """Turn the signals into a wish; a second one of the kind interrupts at once."""
    wish = Wish()
    if threading.current_thread() is not threading.main_thread():
        yield wish
        return
    before = {int(number): signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def want(number: int, frame: FrameType | None) -> None:
        wish.stop = True
        signal.signal(number, before[number])

    for number in before:
        signal.signal(number, want)
    try:
        yield wish
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
