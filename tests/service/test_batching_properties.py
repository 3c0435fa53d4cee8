"""What holds of the batcher whatever happens, in whatever order.

The state machine runs a batcher beside a model of the design's rules, and compares every batch.
"""

import math
import threading
from dataclasses import dataclass

import hypothesis.strategies as st
import numpy as np
from hypothesis import given, settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from service.batching import BatchingOptions, Entry
from service.errors import ExpiredInQueue, InferenceFailed, QueueFull
from tests.service.fakes import Bench, Caller, Runs, Waits, elsewhere, join

BUCKETS = (1, 2, 4)
LARGEST = BUCKETS[-1]
CAPACITY = 10
LONGEST_RUN = 2.0


@dataclass(eq=False)
class Request:
    """What the model knows of a request. outcome: None, or how it ended."""

    first: int
    items: int
    level: int
    admitted: float
    deadline: float | None
    caller: Caller
    entry: Entry
    taken: int = 0
    started: float | None = None
    outcome: str | None = None


class BatcherMachine(RuleBasedStateMachine):
    """Every event of the batcher's thread is the one that the rules ask for."""

    @initialize(delay=st.sampled_from([0.0, 1.5]))
    def start(self, delay: float) -> None:
        self.delay = delay
        self.bench = Bench(BatchingOptions(BUCKETS, delay, CAPACITY))
        self.requests: list[Request] = []
        self.queue: list[Request] = []
        self.running: list[Request] = []
        self.counted = {"queue_full": 0, "expired": 0, "cancelled": 0}
        self.next_item = 1

    @rule(
        items=st.integers(1, 13),
        deadline=st.none() | st.integers(0, 8),
        priority=st.sampled_from([0, 0, 1, 3]),
    )
    def submit(self, items: int, deadline: int | None, priority: int) -> None:
        level = priority or 2
        leaving = self.making_room(items, level)
        first = self.next_item
        try:
            caller, entry = self.bench.submit(first, items, deadline, priority)
        except QueueFull:
            assert leaving is None
            self.counted["queue_full"] += 1
            return
        assert leaving is not None
        for request in leaving:
            self.queue.remove(request)
            self.counted["cancelled" if request.entry.cancelled else "queue_full"] += 1
            self.resolve([request], "refused")
        now = self.bench.clock.now()
        moment = None if deadline is None else now + deadline
        request = Request(first, items, level, now, moment, caller, entry)
        self.next_item += items
        self.requests.append(request)
        self.queue.append(request)
        self.queue.sort(key=lambda request: request.level)
        if not self.running:
            self.follow()

    def making_room(self, items: int, level: int) -> list[Request] | None:
        """The requests that leave for one of so many items, or None if it is refused."""
        if not self.queue or self.queued_items() + items <= CAPACITY:
            return []
        leaving: list[Request] = []
        needed = self.queued_items() + min(items, CAPACITY) - CAPACITY
        for request in reversed(self.queue):
            if request.level > level and not request.taken and needed > 0:
                leaving.append(request)
                needed -= request.items
        return leaving if needed <= 0 else None

    @precondition(lambda self: self.queue or self.running)
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        request = data.draw(st.sampled_from(self.queue + self.running))
        request.entry.cancel()

    @precondition(lambda self: self.running)
    @rule(
        quarters=st.integers(0, int(4 * LONGEST_RUN)), fails=st.sampled_from([False] * 4 + [True])
    )
    def end_batch(self, quarters: int, fails: bool) -> None:
        batch, self.running = self.running, []
        self.bench.end_batch(quarters / 4, error=RuntimeError() if fails else None)
        last = [request for request in batch if request.taken == request.items]
        self.resolve(batch if fails else last, "failed" if fails else "answered")
        self.follow()

    @precondition(lambda self: not self.running)
    @rule(quarters=st.integers(1, 6))
    def pass_time(self, quarters: int) -> None:
        seconds = quarters / 4
        if self.queue:  # a real clock wakes the thread when the window ends
            seconds = min(seconds, self.due() - self.bench.clock.now())
        self.bench.clock.advance(seconds)
        self.follow()

    def queued_items(self) -> int:
        return sum(request.items - request.taken for request in self.queue)

    def resolve(self, requests: list[Request], outcome: str) -> None:
        for request in requests:
            request.outcome = request.outcome or outcome

    def follow(self) -> None:
        """Expects what the rules let the thread do next; it stands still afterwards."""
        event = self.bench.next_event()
        now = self.bench.clock.now()
        if self.queue and self.queued_items() < LARGEST and now < self.due():
            assert event == Waits(self.due() - now)
            return
        rows = self.cut(now)
        if rows:
            padding = next(bucket for bucket in BUCKETS if bucket >= len(rows)) - len(rows)
            assert event == Runs([float(row) for row in rows] + [0.0] * padding)
        else:  # nothing waits, or only cancelled and expired requests did
            assert event == Waits(None)

    def due(self) -> float:
        return min(request.admitted for request in self.queue) + self.delay

    def cut(self, now: float) -> list[int]:
        rows: list[int] = []
        for request in list(self.queue):
            if request.deadline is not None and request.deadline <= now:
                self.queue.remove(request)
                self.counted["cancelled"] += request.entry.cancelled
                if not request.entry.cancelled and request.outcome is None:
                    self.counted["expired"] += 1
                    self.resolve([request], "expired")
        while self.queue and len(rows) < LARGEST:
            request = self.queue[0]
            if request.outcome is not None or request.entry.cancelled:
                self.counted["cancelled"] += request.entry.cancelled
                self.queue.pop(0)
            else:
                count = min(request.items - request.taken, LARGEST - len(rows))
                start = request.first + request.taken
                rows += range(start, start + count)
                request.taken += count
                self.running.append(request)
                if request.started is None:
                    request.started = now
                    self.check_bound(request)
                if request.taken == request.items:
                    self.queue.pop(0)
        return rows

    def check_bound(self, request: Request) -> None:
        """The latency bound of the module's docstring, up to the start of an urgent request."""
        assert request.started is not None
        bound = self.delay + LONGEST_RUN + math.ceil(CAPACITY / LARGEST) * LONGEST_RUN
        waited = request.started - request.admitted
        assert request.level > 1 or request.items > CAPACITY or waited <= bound

    @invariant()
    def callers_know_what_the_model_knows(self) -> None:
        for request in getattr(self, "requests", []):
            answers = request.caller.answers
            if request.entry.cancelled:
                assert len(answers) <= 1
            else:
                assert len(answers) == (request.outcome is not None)
            for entry in answers:
                check_answer(request.caller, entry, request.outcome)

    @invariant()
    def the_queue_and_its_counts_are_those_of_the_model(self) -> None:
        if hasattr(self, "bench"):
            observer = self.bench.observer
            counted = {reason: observer.rejected.count(reason) for reason in self.counted}
            assert counted | {"cancelled": observer.cancelled} == self.counted
            assert self.bench.batcher.queued_items == self.queued_items()

    def teardown(self) -> None:
        if not hasattr(self, "bench"):
            return
        drain = elsewhere(self.bench.batcher.drain)
        self.bench.session.end_all()
        join(drain)
        assert self.bench.batcher.queued_items == 0
        for request in self.requests:
            assert len(request.caller.answers) == 1 or request.entry.cancelled


def check_answer(caller: Caller, entry: Entry, outcome: str | None) -> None:
    """An answer has the outcome that the model gave it, and rows of its own items only."""
    errors = {"expired": ExpiredInQueue, "failed": InferenceFailed, "refused": QueueFull}
    assert outcome is not None
    if outcome == "answered":
        assert entry.error is None
        assert caller.answer() == caller.expected()
    else:
        assert type(entry.error) is errors[outcome]
        assert entry.outputs is None


TestBatcher = BatcherMachine.TestCase
TestBatcher.settings = settings(max_examples=150, stateful_step_count=30, deadline=None)


@given(
    sizes=st.lists(st.integers(1, 11), max_size=30),
    gone=st.sets(st.integers(0, 29)),
    instances=st.integers(1, 3),
)
@settings(max_examples=100, deadline=None)
def test_every_admitted_request_is_answered_once_with_the_function_of_its_own_items(
    sizes: list[int], gone: set[int], instances: int
) -> None:
    bench = Bench(BatchingOptions(BUCKETS, 0.0, 1000), instances)
    bench.session.automatic = True
    callers: list[tuple[Caller, Entry]] = []
    first = 1
    for index, items in enumerate(sizes):
        callers.append(bench.submit(first, items))
        first += items
        if index in gone:
            callers[-1][1].cancel()
    bench.batcher.drain()
    for caller, entry in callers:
        assert len(caller.answers) == 1 or (entry.cancelled and not caller.answers)
        if caller.answers:
            assert caller.answer() == caller.expected()
    assert bench.batcher.queued_items == 0


@given(sizes=st.lists(st.integers(1, 11), min_size=1, max_size=30))
@settings(max_examples=100, deadline=None)
def test_the_rows_of_all_batches_are_the_items_in_the_order_of_their_admission(
    sizes: list[int],
) -> None:
    bench = Bench(BatchingOptions(BUCKETS, 0.0, 1000))
    bench.session.automatic = True
    first = 1
    for items in sizes:
        bench.call(first, items)
        first += items
    bench.batcher.drain()
    rows = np.concatenate([batch["x"].ravel() for batch in bench.session.batches])
    assert rows[rows > 0].tolist() == list(range(1, first))


def test_callers_on_many_threads_are_each_answered_once() -> None:
    bench = Bench(BatchingOptions(BUCKETS, 0.0, 10_000), instances=2)
    bench.session.automatic = True
    callers: list[list[Caller]] = [[] for _ in range(4)]

    def call(thread: int) -> None:
        for index in range(200):
            callers[thread].append(bench.call(1000 * thread + index + 1, items=1 + index % 7))

    threads = [threading.Thread(target=call, args=(thread,)) for thread in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    bench.batcher.drain()
    every = [caller for mine in callers for caller in mine]
    assert [caller.answer() for caller in every] == [caller.expected() for caller in every]
    assert bench.batcher.queued_items == 0
