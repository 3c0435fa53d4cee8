"""Whether and when a failed call is made again, after what the service said of it.

gRPC itself repeats what no replica took (`channel`), but knows nothing of google.rpc.RetryInfo: a
full queue says when it expects room, a service that loads its models when to ask again.
"""

import random
import time
from collections.abc import Callable
from typing import Final

import grpc

from vae_client.errors import VaeError

_REPEATS: Final = 3
_LONGEST_WAIT: Final = 5.0  # seconds; who is told to wait longer learns that at once
_SPREAD: Final = 0.5  # of the wait, and a moment where there is none: not all come back together
_MOMENT: Final = 0.01
# What grpc's asyncio makes of any status that comes while a request is written, now and then:
# https://github.com/grpc/grpc/issues/36066.
_LOST_STATUS: Final = "Internal error from Core"
_CODES: Final = (grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.UNAVAILABLE)


class Repeats:
    """The repeats of one call, which has `timeout` seconds in all."""

    def __init__(self, timeout: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._deadline = clock() + timeout
        self._left = _REPEATS

    @property
    def remaining(self) -> float:
        """Seconds until the deadline."""
        return max(0.0, self._deadline - self._clock())

    def progress(self) -> None:
        """Something has arrived: what breaks from here on may be repeated as often again."""
        self._left = _REPEATS

    def wait(self, error: VaeError, *, unasked: bool = False) -> float | None:
        """Seconds after which to call again; None to give up.

        unasked: also where the connection broke and the service had no time to ask for it.
        """
        delay = error.retry_delay if error.code in _CODES else None
        lost = error.code is grpc.StatusCode.INTERNAL and _LOST_STATUS in str(error)
        if delay is None and unasked and (lost or error.code is grpc.StatusCode.UNAVAILABLE):
            delay = 0.0
        if delay is None or not self._left:
            return None
        wait = delay + random.uniform(0, max(_SPREAD * delay, _MOMENT))  # noqa: S311
        if delay > _LONGEST_WAIT or wait >= self.remaining:
            return None
        self._left -= 1
        return wait
