"""The dynamic batcher: makes batches from the items of many requests.

Words are Triton's. A request brings items (rows of its arrays); the batcher runs them together
with those of other requests and gives every request its own rows back. It knows nothing of gRPC,
onnxruntime or Prometheus.

Knobs (`BatchingOptions`): max_batch_size B items, max_queue_delay D seconds, max_queue_items C
items, buckets, priority_levels, default_priority_level.

Order. Requests of more urgent levels first, 1 is the most urgent; first in, first out within a
level. A request that is larger than a batch lets more urgent ones pass between its batches. Where
the queue is full, a request makes room for itself among those that are less urgent and have not
started: the youngest of the least urgent are refused in its place.

Latency bound. With R the longest time that one batch runs, a request of n <= C items of the most
urgent level that is admitted starts within

    D + R + ceil(C / B) x R    seconds,    and ends within    ceil(n / B) x R + R    seconds more,

because at most C items wait before it, and one batch is running; its last rows may share a batch
with others. What else the thread has to do that answers comes on top. The same holds of every level
while nothing more urgent comes. A less urgent request waits for R more with every B items that are
more urgent and admitted before it starts: while those come faster than they run it starves, until
it makes room or its deadline passes. With `wake`, R is
the sum over the batchers that share the thread, and over what is read between their batches; and
since answers wait for the end of a go (`Batcher.run_due`), at most 2 ms and R are added.

With D = 0 an idle session never waits. A longer D helps only where requests arrive faster than one
in D and batches are cheaper per item; when the session is busy, waiting requests gather by
themselves.

Do not use it where rows of a batch influence each other, as with batch normalization in training
mode.
"""

import logging
import math
import threading
import time
from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray

from service.errors import (
    Draining,
    ExpiredInQueue,
    InferenceFailed,
    InvalidRequest,
    QueueFull,
    ServiceError,
)
from service.waiting import Arrays, Entry, Part, Queue

__all__ = [
    "MOST_LEVELS",
    "Arrays",
    "Batcher",
    "BatchingOptions",
    "Clock",
    "Entry",
    "MonotonicClock",
    "Observer",
]
MOST_LEVELS: Final = 10  # of priority: time series are made for each
_GO: Final = 0.002  # seconds of a go, after which it takes no further batch
# Of a batch that is worth a thread's waking, and what reading and answering a request takes of the
# caller's (docs/performance.md).
_LONG: Final = 0.0003  # seconds
_REQUEST: Final = 25e-6  # seconds
_logger = logging.getLogger(__name__)


class Clock(Protocol):
    """Monotonic time in seconds, and waiting on a condition that is held."""

    def now(self) -> float: ...
    def wait(self, condition: threading.Condition, timeout: float | None) -> None: ...


class MonotonicClock:
    """The machine's monotonic clock."""

    def now(self) -> float:
        """Seconds since some fixed moment."""
        return time.monotonic()

    def wait(self, condition: threading.Condition, timeout: float | None) -> None:
        """Waits until condition is notified, at most timeout seconds."""
        condition.wait(timeout)


class Observer(Protocol):
    """What a batcher reports, for metrics. Called where requests are answered; must be quick.

    requests: how many of a batch's entries end with it, well or not. level: of the entry.
    """

    def batch_done(self, items: int, padding: int, requests: int, seconds: float) -> None: ...
    def batch_failed(self, requests: int) -> None: ...
    def entry_started(self, queue_delay: float) -> None: ...
    def entries_cancelled(self, count: int) -> None: ...
    def entry_rejected(self, reason: str, level: int) -> None: ...


@dataclass(frozen=True)
class BatchingOptions:
    """Knobs of a batcher. buckets: ascending sizes to pad to; the last is the largest batch.

    default_priority_level: of requests that ask for none; 0 is the middle one.
    """

    buckets: tuple[int, ...] = (1, 2, 4, 8, 16, 32, 64)
    max_queue_delay: float = 0.0
    max_queue_items: int = 4096
    priority_levels: int = 3
    default_priority_level: int = 0

    def __post_init__(self) -> None:
        if (
            not self.buckets
            or list(self.buckets) != sorted(set(self.buckets))
            or self.buckets[0] < 1
        ):
            raise ValueError(f"buckets must be ascending and at least 1, not {self.buckets}")
        if self.max_queue_delay < 0 or self.max_queue_items < 1:
            raise ValueError("max_queue_delay must be at least 0 and max_queue_items at least 1")
        if not 1 <= self.priority_levels <= MOST_LEVELS:
            raise ValueError(f"priority_levels must be 1 to {MOST_LEVELS}")
        if not 0 <= self.default_priority_level <= self.priority_levels:
            raise ValueError("default_priority_level must be 0 to priority_levels")

    @property
    def max_batch_size(self) -> int:
        """Most items in one batch."""
        return self.buckets[-1]

    def bucket(self, items: int) -> int:
        """The smallest batch size to pad to that holds the items."""
        return self.buckets[bisect_left(self.buckets, items)]

    def level(self, priority: int) -> int:
        """The level of a request's priority, 0 stands for the default. Raises InvalidRequest."""
        if not 0 <= priority <= self.priority_levels:
            raise InvalidRequest(
                "priority",
                f"expected 1, the most urgent, to {self.priority_levels}, or 0 for the default",
            )
        return priority or self.default_priority_level or self.priority_levels // 2 + 1


def _at_once(callback: Callable[[], object]) -> object:
    return callback()


class Batcher:
    """Runs `run` on batches cut from a queue of entries.

    On a thread of its own for each of `instances`. It gives what ends a batch's entries to `post`,
    to be called on the thread that sends answers, and runs the next batch meanwhile.

    Or, for runs so short that handing them to a thread would cost more, on the caller's: then
    `wake` gets `run_due` whenever the queue stops being empty, to call it in turn with those of
    other batchers, once nothing else is to be admitted at this moment, and as long as it returns
    True. max_queue_delay does not hold then: nobody would wait for it. With `item_seconds`, what an
    item takes in a large batch, a thread takes over for as long as that pays: while several
    requests wait whose items run longer than it takes to read and answer them.

    run takes arrays [bucket, ...] by input name and returns arrays [bucket, ...] by output name; it
    is called by `instances` threads at once. Every thread prepares its batch only when it is free
    to run it, so a waiting batch keeps growing until a session takes it.
    """

    def __init__(
        self,
        run: Callable[[Arrays], Arrays],
        options: BatchingOptions,
        observer: Observer,
        *,
        clock: Clock | None = None,
        instances: int = 1,
        post: Callable[[Callable[[], object]], object] = _at_once,
        wake: Callable[[Callable[[], bool]], None] | None = None,
        item_seconds: float | None = None,
        on_admitted: Callable[[Entry], None] | None = None,
        name: str = "batcher",
    ) -> None:
        """on_admitted: sees every entry on its caller's thread, before anything happens to it."""
        self._run = run
        self._options = options
        self._observer = observer
        self._clock = clock or MonotonicClock()
        self._lock = threading.Lock()
        self._condition = threading.Condition(self._lock)  # something waits, or never will again
        self._queue = Queue(options.max_queue_items)
        self._default_level = options.level(0)
        self._running = 0
        self._closed = False
        self._seconds_per_batch = 0.0
        self._weight = 1.0
        self._instances = instances
        self._post = post
        self._wake = wake
        self._item_seconds = item_seconds
        self._on_admitted = on_admitted
        self._name = name
        self._turn = threading.RLock()  # one go at a time, where wake is given
        self._taken_over = False  # by the thread, from whoever calls run_due
        self._threads: list[threading.Thread] = []
        for _ in range(instances if wake is None else 0):
            self._start_thread()

    @property
    def options(self) -> BatchingOptions:
        """The knobs."""
        return self._options

    @property
    def queued_items(self) -> int:
        """Items that wait for a batch."""
        return self._queue.items

    def queued_by_level(self) -> Mapping[int, int]:
        """The same by level."""
        return self._queue.by_level()

    def submit(
        self,
        inputs: Arrays,
        items: int,
        on_done: Callable[[Entry], None],
        deadline: float | None = None,
        priority: int = 0,
    ) -> Entry:
        """Admits a request. inputs: arrays [items, ...] by name. deadline: on the batcher's clock.
        priority: its level, 1 is the most urgent; 0 for the default.

        Raises InvalidRequest for a level that does not exist, Draining when the door is closed, and
        QueueFull when the items do not fit and less urgent ones do not leave room enough; an empty
        queue takes a request of any size, as otherwise it could never run.
        """
        level = self._options.level(priority) if priority else self._default_level
        queue = self._queue
        leaving: list[Entry] = []
        with self._lock:
            if self._closed:
                self._observer.entry_rejected("draining", level)
                raise Draining("the service is draining; ask another replica")
            first = not queue
            if not queue.has_room(items):
                leaving = queue.make_room(items, level)
                if not leaving:
                    self._observer.entry_rejected("queue_full", level)
                    raise QueueFull(self._drain_seconds())
            entry = Entry(inputs, items, deadline, on_done, self._clock.now(), level)
            if self._on_admitted is not None:
                self._on_admitted(entry)
            queue.add(entry)
            if self._wake is None:
                self._condition.notify()
            wakes = first and not self._taken_over
        if leaving:
            self._send_away(leaving)
        if wakes and self._wake is not None:
            self._wake(self.run_due)
        return entry

    def run_due(self) -> bool:
        """Runs a go of batches of what waits, on this thread; returns whether more waits.

        A go is one batch, and more within its first 2 ms as long as two full ones wait: what
        comes between batches (answers, messages, whatever else shares the thread) throws the
        model's weights out of the caches, and is itself quicker for several batches at a time. The
        last full one stays behind, so that there is work while callers get their answers.
        """
        ran: list[_Batch] = []
        with self._turn:
            began = self._clock.now()
            while True:
                with self._lock:
                    if not self._queue or self._hand_over():
                        break
                    batch = self._take()
                self._dismiss(batch.expired, batch.cancelled)
                self._prepare(batch)
                self._execute(batch)
                ran.append(batch)
                waiting = self._queue.items
                if waiting < 2 * self._options.max_batch_size or self._clock.now() - began >= _GO:
                    break
        for batch in ran:
            self._settle(batch)
        if ran:  # the next batch waits for the answers, too
            self._learn((self._clock.now() - began) / len(ran))
        return bool(self._queue) and not self._taken_over

    def drain(self) -> None:
        """Closes the door, finishes what was admitted and returns. May be called again."""
        with self._lock:
            self._closed = True
            self._condition.notify_all()
        for thread in self._threads:
            thread.join()
        while self._wake is not None and self.run_due():
            pass

    def stop(self) -> None:
        """Closes the door, rejects what waits, finishes what runs. May be called again."""
        with self._lock:
            self._closed = True
            rejected = self._queue.clear()
            self._condition.notify_all()
        for entry in rejected:
            self._fail(entry, Draining("the service stopped before the request ran"))
        for thread in self._threads:
            thread.join()

    def _learn(self, seconds: float) -> None:
        """A moving average over about ten batches, which starts at the first one."""
        self._seconds_per_batch += (seconds - self._seconds_per_batch) * self._weight
        self._weight = 0.1

    def _drain_seconds(self) -> float:
        batches = math.ceil(self._queue.items / self._options.max_batch_size) + self._running
        return batches * self._seconds_per_batch / self._instances

    def _start_thread(self) -> None:
        name = f"{self._name}-{len(self._threads)}"
        thread = threading.Thread(target=self._loop, name=name, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _hand_over(self) -> bool:
        """Whether the thread has taken over, which it does if that pays. With the lock held."""
        if self._taken_over or self._closed or len(self._queue) < 2 or not self._pays():
            return self._taken_over
        self._taken_over = True
        if not self._threads:
            self._start_thread()
        self._condition.notify()
        return True

    def _pays(self) -> bool:
        """Whether what waits runs so long that a thread should do it beside this one."""
        if self._item_seconds is None:
            return False
        queue = self._queue
        return queue.items * self._item_seconds >= max(_LONG, 2 * _REQUEST * len(queue))

    def _loop(self) -> None:
        ended: _Batch | None = None
        while True:
            with self._lock:
                batch, gives_back = self._next()
            if batch is not None:
                if batch.expired or batch.cancelled:
                    self._post(partial(self._dismiss, batch.expired, batch.cancelled))
                self._prepare(batch)
            # Not before all is ready for the next run: from here on the other thread wants the GIL.
            if ended is not None:
                self._post(partial(self._settle, ended))
            if gives_back and self._wake is not None:
                self._post(partial(self._wake, self.run_due))
            ended = batch
            if batch is not None:
                self._execute(batch)
                if batch.outputs:
                    self._learn(batch.seconds)
            elif not self._wait():
                return

    def _next(self) -> "tuple[_Batch | None, bool]":
        """The thread's next batch if it is due, and whether it leaves what waits to the caller's.

        With the lock held.
        """
        if self._taken_over and not (self._closed or self._pays()):
            self._taken_over = False
            return None, bool(self._queue)
        if not self._has_work() or self._remaining() > 0:
            return None, False
        batch = self._take()
        if self._queue:
            self._condition.notify()
        return batch, False

    def _wait(self) -> bool:
        """Waits until a batch is due for the thread; False if none ever will be."""
        with self._lock:
            while True:
                if self._has_work():
                    remaining = self._remaining()
                    if remaining <= 0:
                        return True
                    self._clock.wait(self._condition, remaining)
                elif self._closed:
                    return False
                else:
                    self._clock.wait(self._condition, None)

    def _has_work(self) -> bool:
        """Whether something waits that is the thread's to run."""
        return bool(self._queue) and (self._wake is None or self._taken_over)

    def _remaining(self) -> float:
        """Seconds for which what waits may wait for a fuller batch."""
        delay = self._options.max_queue_delay
        full = self._queue.items >= self._options.max_batch_size
        if not delay or full or self._closed:
            return 0.0
        return self._queue.oldest + delay - self._clock.now()

    def _take(self) -> "_Batch":
        """What is due now. With the lock held."""
        self._running += 1
        parts, expired, cancelled = self._queue.take(
            self._options.max_batch_size, self._clock.now()
        )
        items = sum([part.stop - part.start for part in parts])
        return _Batch(parts, expired, cancelled, items, self._options.bucket(items))

    def _send_away(self, entries: Sequence[Entry]) -> None:
        """Refuses those that made room for a more urgent one."""
        for entry in entries:
            if entry.cancelled:
                self._observer.entries_cancelled(1)
                continue
            self._observer.entry_rejected("queue_full", entry.level)
            self._fail(entry, QueueFull(self._drain_seconds()))

    def _dismiss(self, expired: Sequence[Entry], cancelled: int) -> None:
        """Tells of those that left the queue without running."""
        for entry in expired:
            self._observer.entry_rejected("expired", entry.level)
            self._fail(entry, ExpiredInQueue("the deadline passed in the queue"))
        if cancelled:
            self._observer.entries_cancelled(cancelled)

    def _prepare(self, batch: "_Batch") -> None:
        """Puts the inputs of a batch together, unless it is empty."""
        if batch.parts:
            try:
                batch.inputs = _assemble(batch.parts, batch.bucket - batch.items)
            except Exception as error:  # noqa: BLE001 - a batch fails its own entries alone
                self._break(batch, error)

    def _execute(self, batch: "_Batch") -> None:
        """Runs a batch that is prepared; what came of it is in it then."""
        started = self._clock.now()
        try:
            if batch.inputs:
                outputs = self._run(batch.inputs)
                if any(len(array) != batch.bucket for array in outputs.values()):
                    raise InferenceFailed("the model gave another number of items than it took")
                batch.outputs = outputs
        except Exception as error:  # noqa: BLE001 - a batch fails its own entries; the loop lives on
            self._break(batch, error)
        finally:
            batch.seconds = self._clock.now() - started
            batch.inputs = {}
            with self._lock:
                self._running -= 1

    def _break(self, batch: "_Batch", error: Exception) -> None:
        """Fails the entries of a batch at once: nothing that still waits of them is to run."""
        # Each its own error: threads raise them.
        failed = [self._fail(part.entry, _failure(error)) for part in batch.parts]
        self._observer.batch_failed(sum(failed))

    def _settle(self, batch: "_Batch") -> None:
        """Tells of a batch that has run, and gives every entry in it its rows."""
        for part in batch.parts:
            started = part.entry.started
            if not part.start and started is not None:
                self._observer.entry_started(started - part.entry.admitted)
        if not batch.outputs:
            return
        requests = row = 0
        for part in batch.parts:
            entry = part.entry
            entry.seconds += batch.seconds
            entry.batch_items = max(entry.batch_items, batch.items)
            requests += part.stop == entry.items
        padding = batch.bucket - batch.items
        self._observer.batch_done(batch.items, padding, requests, batch.seconds)
        for part in batch.parts:
            count = part.stop - part.start
            rows = {name: array[row : row + count] for name, array in batch.outputs.items()}
            row += count
            self._answer(part, rows)

    def _answer(self, part: Part, rows: Arrays) -> None:
        entry = part.entry
        with self._lock:
            entry.parts.append((part.start, rows))
            entry.answered += part.stop - part.start
            if entry.answered < entry.items or entry.error is not None:
                return
        try:
            entry.outputs = _join(entry.parts)
        except Exception as error:  # noqa: BLE001 - parts that do not fit fail their entry only
            self._fail(entry, _failure(error))
            return
        _notify(entry)

    def _fail(self, entry: Entry, error: ServiceError) -> bool:
        """Ends entry, unless it has ended; returns whether it did."""
        with self._lock:
            if entry.error is not None or entry.outputs is not None:
                return False
            entry.error = error
        _notify(entry)
        return True


@dataclass(slots=True)
class _Batch:
    """What left the queue together, items to pad to a bucket, and what came of it."""

    parts: Sequence[Part]
    expired: Sequence[Entry]
    cancelled: int
    items: int
    bucket: int
    inputs: Arrays = field(default_factory=dict)
    outputs: Arrays = field(default_factory=dict)
    seconds: float = 0.0


def _done(entry: Entry) -> None:
    """Called for nobody: an entry ends once."""


def _failure(error: Exception) -> InferenceFailed:
    failure = InferenceFailed("the batch failed")
    failure.__cause__ = error
    return failure


def _notify(entry: Entry) -> None:
    on_done, entry.on_done = entry.on_done, _done  # or entry and caller hold each other for ever
    try:
        on_done(entry)
    except Exception:
        # The caller broke its promise; the batch's other entries still get their answers.
        _logger.exception("on_done raised")


def _assemble(parts: Sequence[Part], padding: int) -> Arrays:
    """The rows of all parts and zeros: padding happens here alone."""
    first = parts[0]
    if len(parts) == 1 and not padding:
        return {name: array[first.start : first.stop] for name, array in first.entry.inputs.items()}
    batch: dict[str, NDArray[np.generic]] = {}
    for name, like in first.entry.inputs.items():
        rows = [part.entry.inputs[name][part.start : part.stop] for part in parts]
        if padding:
            rows.append(np.zeros((padding, *like.shape[1:]), like.dtype))
        batch[name] = np.concatenate(rows)
    return batch


def _join(parts: list[tuple[int, Arrays]]) -> Arrays:
    if len(parts) == 1:
        return parts[0][1]
    parts.sort(key=lambda part: part[0])
    return {name: np.concatenate([rows[name] for _, rows in parts]) for name in parts[0][1]}
