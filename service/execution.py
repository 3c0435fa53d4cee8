"""What one request costs on its way through the graphs, for its answer."""

from dataclasses import dataclass

from service.waiting import Entry


@dataclass(slots=True)
class Execution:
    """deadline: seconds of `time.monotonic`, or None. priority: 1 is the most urgent level, 0 the
    default. The rest adds up over the graphs that run.

    queue_seconds: admission to the start of a first batch. compute_seconds: runs of batches.
    batch_items: items of the largest batch, without padding.
    """

    deadline: float | None
    priority: int = 0
    queue_seconds: float = 0.0
    compute_seconds: float = 0.0
    batch_items: int = 0

    def add(self, entry: Entry) -> None:
        """Counts an entry that ended."""
        started = entry.admitted if entry.started is None else entry.started
        self.queue_seconds += started - entry.admitted
        self.compute_seconds += entry.seconds
        self.batch_items = max(self.batch_items, entry.batch_items)
