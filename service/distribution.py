"""A histogram that costs a request next to nothing: one bisect and two additions under a lock.

prometheus_client's own takes 2 us for an observation and 3 us more to find its labels, which is a
tenth of a request here. These numbers become a metric family only when somebody scrapes.
"""

import threading
from bisect import bisect_left
from collections.abc import Sequence
from itertools import accumulate


class Distribution:
    """How often values fell below each of some bounds. Can be added to from any thread."""

    __slots__ = ("_bounds", "_counts", "_lock", "_sum")

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds = tuple(bounds)
        self._counts = [0] * (len(bounds) + 1)
        self._sum = 0.0
        self._lock = threading.Lock()

    def add(self, value: float) -> None:
        """Counts a value."""
        index = bisect_left(self._bounds, value)
        with self._lock:
            self._counts[index] += 1
            self._sum += value

    def snapshot(self) -> tuple[list[tuple[str, float]], float]:
        """Cumulative counts by upper bound, as Prometheus has them, and the sum of all values."""
        with self._lock:
            counts, total = list(self._counts), self._sum
        names = [*(str(float(bound)) for bound in self._bounds), "+Inf"]
        return list(zip(names, map(float, accumulate(counts)), strict=True)), total
