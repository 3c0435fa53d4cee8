"""What surrounds a batcher in its tests: a clock, a session and callers that obey the test.

No test waits for time to pass: the batcher's thread reports every step as an event, and stands
still until the test lets it go on.
"""

import queue
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from service.batching import Arrays, Batcher, BatchingOptions, Entry

PATIENCE = 10.0  # seconds until a test that waits for something that never comes is failed


@dataclass(frozen=True)
class Waits:
    """The event of a batcher's thread that waits, at most timeout seconds."""

    timeout: float | None


@dataclass(frozen=True)
class Runs:
    """The event of a batch that starts. rows: its items' numbers, with padding."""

    rows: list[float]


Events = queue.SimpleQueue[Waits | Runs]


class FakeClock:
    """Time stands still until advance()."""

    def __init__(self, events: Events) -> None:
        self._events = events
        self._now = 100.0
        self._waiting: threading.Condition | None = None

    def now(self) -> float:
        return self._now

    def wait(self, condition: threading.Condition, timeout: float | None) -> None:
        self._waiting = condition
        self._events.put(Waits(timeout))
        condition.wait()

    def advance(self, seconds: float) -> None:
        """Time passes, and whoever waits looks at the clock again."""
        assert self._waiting is not None
        with self._waiting:
            self._now += seconds
            self._waiting.notify_all()


@dataclass(frozen=True)
class Ending:
    """How a batch ends: after seconds, with its own rows, with other outputs or an error."""

    seconds: float = 0.0
    outputs: Arrays | None = None
    error: Exception | None = None


class FakeSession:
    """Gives y = 2 x + 1 for every row, when the test ends the batch; at once where automatic."""

    def __init__(self, events: Events, clock: FakeClock) -> None:
        self.automatic = False
        self.batches: list[Arrays] = []
        self._events = events
        self._clock = clock
        self._running: list[queue.SimpleQueue[Ending]] = []

    def run(self, inputs: Arrays) -> Arrays:
        """What the batcher calls."""
        x = inputs["x"]
        mine: queue.SimpleQueue[Ending] = queue.SimpleQueue()
        self._running.append(mine)
        self.batches.append(inputs)
        self._events.put(Runs(x.ravel().tolist()))
        ending = Ending() if self.automatic else mine.get(timeout=PATIENCE)
        if ending.seconds:
            self._clock.advance(ending.seconds)
        if ending.error is not None:
            raise ending.error
        return {"y": 2 * x + 1} if ending.outputs is None else ending.outputs

    def end(self, batch: int, ending: Ending) -> None:
        """Ends one of the batches that run; 0 is the oldest."""
        self._running.pop(batch).put(ending)

    def end_all(self) -> None:
        """Ends the batches that run, and from now on every batch at once."""
        self.automatic = True
        for running in self._running:
            running.put(Ending())


@dataclass
class FakeObserver:
    """Keeps what a batcher reports."""

    batches: list[tuple[int, int, float]] = field(default_factory=list)
    requests: list[int] = field(default_factory=list)
    failed: list[int] = field(default_factory=list)
    queue_delays: list[float] = field(default_factory=list)
    cancelled: int = 0
    rejected: list[str] = field(default_factory=list)
    rejected_levels: list[int] = field(default_factory=list)

    def batch_done(self, items: int, padding: int, requests: int, seconds: float) -> None:
        self.batches.append((items, padding, seconds))
        self.requests.append(requests)

    def batch_failed(self, requests: int) -> None:
        self.failed.append(requests)

    def entry_started(self, queue_delay: float) -> None:
        self.queue_delays.append(queue_delay)

    def entries_cancelled(self, count: int) -> None:
        self.cancelled += count

    def entry_rejected(self, reason: str, level: int) -> None:
        self.rejected.append(reason)
        self.rejected_levels.append(level)


@dataclass
class Caller:
    """One who submitted a request of items first, first + 1, ... and got `answers`."""

    items: NDArray[np.float32]
    answers: list[Entry] = field(default_factory=list)
    answered: threading.Event = field(default_factory=threading.Event)

    def on_done(self, entry: Entry) -> None:
        self.answers.append(entry)
        self.answered.set()

    def answer(self) -> list[float]:
        """The rows of the one answer; raises its error."""
        assert self.answered.wait(PATIENCE), "no answer"
        [entry] = self.answers
        if entry.error is not None:
            raise entry.error
        assert entry.outputs is not None
        return [float(value) for value in entry.outputs["y"].ravel()]

    def expected(self) -> list[float]:
        """The rows that the session gives for the caller's own items."""
        return [float(value) for value in 2 * self.items.ravel() + 1]


class Idle:
    """A transport that never has anything else to do."""

    def when_idle(self, callback: Callable[[], bool]) -> None:
        while callback():
            pass

    def call_soon(self, callback: Callable[[], object]) -> None:
        callback()


class Bench:
    """A batcher under test, with the fakes around it. Every thread of it waits at the start."""

    def __init__(self, options: BatchingOptions, instances: int = 1) -> None:
        self.events: Events = queue.SimpleQueue()
        self.clock = FakeClock(self.events)
        self.session = FakeSession(self.events, self.clock)
        self.observer = FakeObserver()
        self.batcher = Batcher(
            self.session.run, options, self.observer, clock=self.clock, instances=instances
        )
        for _ in range(instances):
            self.expect_idle()

    def submit(
        self, first: int, items: int = 1, deadline: float | None = None, priority: int = 0
    ) -> tuple[Caller, Entry]:
        """Submits the items first, first + 1, ... deadline: seconds from now."""
        caller = Caller(np.arange(first, first + items, dtype=np.float32)[:, None])
        moment = None if deadline is None else self.clock.now() + deadline
        inputs = {"x": caller.items}
        entry = self.batcher.submit(inputs, items, caller.on_done, moment, priority)
        return caller, entry

    def call(
        self, first: int, items: int = 1, deadline: float | None = None, priority: int = 0
    ) -> Caller:
        """Submits, for tests that do not need the entry."""
        return self.submit(first, items, deadline, priority)[0]

    def next_event(self) -> Waits | Runs:
        """What the batcher's thread does next."""
        return self.events.get(timeout=PATIENCE)

    def expect_idle(self) -> None:
        """The thread found nothing to do and waits until it is notified."""
        assert self.next_event() == Waits(None)

    def expect_batch(self, *rows: float) -> None:
        """A batch of these rows starts, padding included."""
        assert self.next_event() == Runs(list(rows))

    def end_batch(
        self,
        seconds: float = 0.0,
        outputs: Arrays | None = None,
        error: Exception | None = None,
        batch: int = 0,
    ) -> None:
        """A batch that runs, the oldest unless said, ends."""
        self.session.end(batch, Ending(seconds, outputs, error))

    def occupy(self) -> Caller:
        """Starts a batch of the single item 999, so that what comes next has to wait."""
        caller = self.call(999)
        self.expect_batch(999)
        return caller

    def close(self) -> None:
        """Ends every batch and every thread."""
        self.session.end_all()
        self.batcher.stop()


class MakeBench(Protocol):
    """The fixture make_bench."""

    def __call__(
        self,
        buckets: tuple[int, ...] = (1, 2, 4),
        delay: float = 0.0,
        capacity: int = 12,
        instances: int = 1,
    ) -> Bench: ...


def elsewhere(action: Callable[[], None]) -> threading.Thread:
    """Starts an action that returns only when batches have ended, on another thread."""
    thread = threading.Thread(target=action, daemon=True)
    thread.start()
    return thread


def join(thread: threading.Thread) -> None:
    """Waits until the action of elsewhere() has returned."""
    thread.join(PATIENCE)
    assert not thread.is_alive(), "the action never returned"
