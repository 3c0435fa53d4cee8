"""A batcher of short runs whose caller hands them to a thread, for as long as that pays."""

import queue
from collections.abc import Callable, Iterator

import numpy as np
import pytest

from service.batching import Batcher, BatchingOptions
from service.errors import InferenceFailed
from tests.service.fakes import (
    PATIENCE,
    Caller,
    Ending,
    Events,
    FakeClock,
    FakeObserver,
    FakeSession,
    Runs,
    Waits,
    elsewhere,
    join,
)

ITEM_SECONDS = 2e-4  # two items are a long batch


class Bench:
    """Batches of 4; what the batcher asks the caller's thread to do is in `woken` and `posted`."""

    def __init__(self, item_seconds: float | None = ITEM_SECONDS) -> None:
        self.events: Events = queue.SimpleQueue()
        clock = FakeClock(self.events)
        self.session = FakeSession(self.events, clock)
        self.observer = FakeObserver()
        self.woken: list[Callable[[], bool]] = []
        self.posted: queue.SimpleQueue[Callable[[], object]] = queue.SimpleQueue()
        self.batcher = Batcher(
            self.session.run,
            BatchingOptions(buckets=(1, 2, 4), max_queue_items=1000),
            self.observer,
            clock=clock,
            post=self.posted.put,
            wake=self.woken.append,
            item_seconds=item_seconds,
        )

    def submit(self, first: int, items: int) -> Caller:
        caller = Caller(np.arange(first, first + items, dtype=np.float32)[:, None])
        self.batcher.submit({"x": caller.items}, items, caller.on_done)
        return caller

    def hand_over(self) -> list[Caller]:
        """Two requests of two items, whose batch runs on the thread now."""
        callers = [self.submit(1, 2), self.submit(3, 2)]
        assert self.woken.pop()() is False
        assert self.next_event() == Runs([1, 2, 3, 4])
        return callers

    def next_event(self) -> Runs | Waits:
        return self.events.get(timeout=PATIENCE)

    def run_posted(self) -> None:
        """What the caller's thread does next."""
        self.posted.get(timeout=PATIENCE)()


@pytest.fixture
def bench() -> Iterator[Bench]:
    made = Bench()
    yield made
    made.session.end_all()
    made.batcher.stop()


def test_large_requests_that_wait_together_run_on_a_thread(bench: Bench) -> None:
    callers = bench.hand_over()
    bench.session.end(0, Ending())
    bench.run_posted()

    assert [caller.answer() for caller in callers] == [[3, 5], [7, 9]]
    assert bench.observer.batches == [(4, 0, 0.0)]


def test_nobody_is_answered_but_by_the_thread_that_sends(bench: Bench) -> None:
    callers = bench.hand_over()
    bench.session.end(0, Ending())
    posted = bench.posted.get(timeout=PATIENCE)

    assert not any(caller.answers for caller in callers)
    posted()
    assert all(caller.answers for caller in callers)


def test_while_the_thread_runs_a_batch_the_caller_runs_none(bench: Bench) -> None:
    bench.hand_over()
    bench.submit(5, 1)

    assert bench.woken == []
    assert bench.batcher.run_due() is False
    assert len(bench.session.batches) == 1


def test_the_thread_runs_on_while_what_waits_is_long(bench: Bench) -> None:
    bench.hand_over()
    later = bench.submit(5, 2)
    bench.session.end(0, Ending())

    assert bench.next_event() == Runs([5, 6])
    bench.run_posted()
    bench.session.end(0, Ending())
    bench.run_posted()
    assert later.answer() == later.expected()


def test_the_thread_leaves_what_is_short_to_the_caller(bench: Bench) -> None:
    bench.hand_over()
    short = bench.submit(5, 1)
    bench.session.end(0, Ending())
    bench.run_posted()
    bench.run_posted()

    assert bench.next_event() == Waits(None)
    bench.session.automatic = True
    assert bench.woken.pop()() is False
    assert short.answer() == short.expected()
    assert bench.posted.empty()


def test_the_thread_is_there_for_the_next_ones_too(bench: Bench) -> None:
    for _ in range(2):
        callers = bench.hand_over()
        bench.session.end(0, Ending())
        bench.run_posted()
        assert bench.next_event() == Waits(None)
        assert [caller.answer() for caller in callers] == [[3, 5], [7, 9]]


@pytest.mark.parametrize(
    ("requests", "items", "item_seconds"),
    [
        pytest.param(1, 4, ITEM_SECONDS, id="a request alone"),
        pytest.param(2, 1, 1.4e-4, id="a short batch"),
        pytest.param(10, 1, 4e-5, id="requests that take longer than their items"),
        pytest.param(2, 2, None, id="no core to spare"),
    ],
)
def test_what_does_not_pay_stays_with_the_caller(
    requests: int, items: int, item_seconds: float | None
) -> None:
    bench = Bench(item_seconds)
    bench.session.automatic = True
    callers = [bench.submit(10 * number, items) for number in range(requests)]
    [run_due] = bench.woken
    while run_due():
        pass

    assert [caller.answer() for caller in callers] == [caller.expected() for caller in callers]
    assert bench.posted.empty()


def test_a_batch_that_fails_on_the_thread_fails_its_own_requests(bench: Bench) -> None:
    callers = bench.hand_over()
    later = bench.submit(5, 2)
    bench.session.end(0, Ending(error=RuntimeError()))

    assert bench.next_event() == Runs([5, 6])
    for caller in callers:
        with pytest.raises(InferenceFailed):
            caller.answer()
    assert bench.observer.failed == [2]
    bench.session.end(0, Ending())
    bench.run_posted()
    bench.run_posted()
    assert later.answer() == later.expected()


def test_drain_waits_for_the_thread_and_runs_what_is_left(bench: Bench) -> None:
    callers = [*bench.hand_over(), bench.submit(5, 2), bench.submit(7, 1)]
    draining = elsewhere(bench.batcher.drain)
    bench.session.end_all()
    join(draining)
    while not bench.posted.empty():
        bench.run_posted()

    assert [caller.answer() for caller in callers] == [caller.expected() for caller in callers]
