"""A server without a socket, on a clock that only moves when somebody waits."""

from collections import deque
from collections.abc import Callable


class FakeServer:
    """A Client of `benchmarks.loops` with its own clock; serves one call at a time.

    `seconds` is how long a call takes that starts at a given time, `code` how it ends.
    """

    def __init__(self, seconds: Callable[[float], float], code: str = "OK") -> None:
        self.now = 0.0
        self._seconds = seconds
        self._code = code
        self._busy_until = 0.0
        self._ends: deque[tuple[float, float]] = deque()  # end, token
        self.submitted: list[float] = []
        self.most_outstanding = 0

    def clock(self) -> float:
        """Seconds."""
        return self.now

    def submit(self, token: float) -> None:
        """The call waits for those before it."""
        self.submitted.append(token)
        start = max(self.now, self._busy_until)
        self._busy_until = start + self._seconds(start)
        self._ends.append((self._busy_until, token))
        self.most_outstanding = max(self.most_outstanding, len(self._ends))

    def poll(self, timeout: float) -> list[tuple[float, str]]:
        """Moves the clock to the next end, or by timeout."""
        until = self.now + timeout
        if self._ends:
            until = min(until, self._ends[0][0])
        self.now = max(self.now, until)
        ended = []
        while self._ends and self._ends[0][0] <= self.now:
            ended.append((self._ends.popleft()[1], self._code))
        return ended
