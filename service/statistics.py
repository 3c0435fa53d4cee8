"""What a batcher reports, summed up: for Prometheus, and for the counters of Triton's protocol.

A batch costs a lock and a few additions; sums of the sums are made when somebody asks.
"""

import threading
import time
from dataclasses import dataclass, field
from itertools import product

from service.distribution import Distribution

SECONDS = (
    0.0001,
    0.00025,
    0.0005,
    0.001,
    0.0025,
    0.005,
    0.01,
    0.025,
    0.05,
    0.1,
    0.25,
    0.5,
    1,
    2.5,
    10,
)
_REASONS = ("queue_full", "draining", "expired")


@dataclass
class GraphCounts:
    """Counts of one graph since the start.

    batches: by items without padding, how many ran and their seconds in all. requests: those that
    have ended well, and request_seconds what their last batches took. failed: those of batches that
    failed. rejected: by reason and level. last_batch: when the last batch ended, in seconds since
    the epoch; 0 before.
    """

    batches: dict[int, tuple[int, float]] = field(default_factory=dict)
    requests: int = 0
    request_seconds: float = 0.0
    padding: int = 0
    failed: int = 0
    cancelled: int = 0
    rejected: dict[tuple[str, int], int] = field(default_factory=dict)
    last_batch: float = 0.0


class GraphStatistics:
    """A batcher's observer (`service.batching.Observer`). Can be asked from any thread."""

    def __init__(self) -> None:
        self.queue_delays = Distribution(SECONDS)
        self.batch_seconds = Distribution(SECONDS)
        self.entry_started = self.queue_delays.add
        self._counts = GraphCounts()
        self._lock = threading.Lock()

    def add_levels(self, levels: int) -> None:
        """Counts rejections by priority, of 1 to levels, from 0 on."""
        with self._lock:
            for key in product(_REASONS, range(1, levels + 1)):
                self._counts.rejected.setdefault(key, 0)

    def batch_done(self, items: int, padding: int, requests: int, seconds: float) -> None:
        """A batch ran."""
        counts = self._counts
        with self._lock:
            batches, total = counts.batches.get(items, (0, 0.0))
            counts.batches[items] = (batches + 1, total + seconds)
            counts.requests += requests
            counts.request_seconds += requests * seconds
            counts.padding += padding
            counts.last_batch = time.time()
        self.batch_seconds.add(seconds)

    def batch_failed(self, requests: int) -> None:
        """A batch failed."""
        with self._lock:
            self._counts.failed += requests

    def entries_cancelled(self, count: int) -> None:
        """Requests left the queue as their clients had gone."""
        with self._lock:
            self._counts.cancelled += count

    def entry_rejected(self, reason: str, level: int) -> None:
        """A request of a level was refused."""
        if reason not in _REASONS:
            raise KeyError(reason)
        rejected, key = self._counts.rejected, (reason, level)
        with self._lock:
            rejected[key] = rejected.get(key, 0) + 1

    def snapshot(self) -> GraphCounts:
        """The counts as they are now, smallest batches first."""
        with self._lock:
            counts = GraphCounts(**vars(self._counts))
            counts.batches = dict(sorted(counts.batches.items()))
            counts.rejected = dict(counts.rejected)
        return counts
