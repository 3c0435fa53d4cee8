"""The batcher on the caller's thread: wakes it once for what waits, a go of batches a call."""

import threading
from collections.abc import Callable

import numpy as np
import pytest

from service.batching import Arrays, Batcher, BatchingOptions, Entry
from service.errors import Draining, QueueFull


class Observer:
    """Counts nothing."""

    def batch_done(self, items: int, padding: int, requests: int, seconds: float) -> None: ...
    def batch_failed(self, requests: int) -> None: ...
    def entry_started(self, queue_delay: float) -> None: ...
    def entries_cancelled(self, count: int) -> None: ...
    def entry_rejected(self, reason: str, level: int) -> None: ...


class Clock:
    """Time passes when it is told to."""

    def __init__(self) -> None:
        self.time = 0.0

    def now(self) -> float:
        return self.time

    def pass_time(self, seconds: float) -> None:
        self.time += seconds

    def wait(self, condition: threading.Condition, timeout: float | None) -> None:
        """Nobody waits on the caller's thread."""


class Bench:
    """An inline batcher of batches up to 4, and what happened to it."""

    def __init__(self) -> None:
        self.woken: list[Callable[[], bool]] = []
        self.batches: list[list[float]] = []
        self.answers: dict[float, list[float]] = {}
        self.answered_after: dict[float, int] = {}  # so many batches
        self.clock = Clock()
        self.seconds = 0.0  # of a batch
        self.failing = False
        options = BatchingOptions(buckets=(1, 2, 4), max_queue_items=100)
        self.batcher = Batcher(
            self.run, options, Observer(), clock=self.clock, wake=self.woken.append
        )

    def run(self, inputs: Arrays) -> Arrays:
        rows = inputs["x"]
        self.clock.pass_time(self.seconds)
        if self.failing:
            raise RuntimeError("no")
        self.batches.append([float(row) for row in rows])
        return {"y": rows * 10}

    def submit(self, *rows: float) -> None:
        def done(entry: Entry) -> None:
            if entry.outputs is None:
                self.answers[rows[0]] = []
                return
            self.answered_after[rows[0]] = len(self.batches)
            self.answers[rows[0]] = [float(value) for value in entry.outputs["y"]]

        self.batcher.submit({"x": np.array(rows)}, len(rows), done)


@pytest.fixture
def bench() -> Bench:
    return Bench()


def test_nothing_runs_before_it_is_called(bench: Bench) -> None:
    bench.submit(1)

    assert bench.batches == []
    assert len(bench.woken) == 1


def test_requests_that_wait_run_together(bench: Bench) -> None:
    bench.submit(1)
    bench.submit(2)

    assert bench.woken[0]() is False
    assert bench.batches == [[1, 2]]
    assert bench.answers == {1: [10], 2: [20]}


def test_only_the_first_of_those_that_wait_wakes(bench: Bench) -> None:
    bench.submit(1)
    bench.submit(2)
    bench.woken[0]()
    bench.submit(3)

    assert len(bench.woken) == 2


def test_a_full_batch_waits_for_its_turn_too(bench: Bench) -> None:
    for row in (1, 2, 3, 4, 5):
        bench.submit(row)

    assert bench.batches == []
    assert bench.woken[0]() is True
    assert bench.batches == [[1, 2, 3, 4]]


def test_a_request_larger_than_a_batch_runs_one_batch_a_turn(bench: Bench) -> None:
    bench.submit(1, 2, 3, 4, 5, 6)

    assert bench.woken[0]() is True
    assert bench.woken[0]() is False
    assert bench.batches == [[1, 2, 3, 4], [5, 6]]
    assert bench.answers == {1: [10, 20, 30, 40, 50, 60]}


def test_it_says_when_more_waits(bench: Bench) -> None:
    bench.submit(*range(1, 11))

    assert [bench.woken[0]() for _ in range(3)] == [True, True, False]
    assert len(bench.answers[1]) == 10


def test_while_two_full_batches_wait_they_run_before_anybody_gets_an_answer(bench: Bench) -> None:
    for first in (1, 5, 9, 13):
        bench.submit(first, first + 1, first + 2, first + 3)

    assert bench.woken[0]() is True
    assert [batch[0] for batch in bench.batches] == [1, 5, 9]  # the last stays for the next call
    assert bench.answered_after == {1: 3, 5: 3, 9: 3}
    assert bench.woken[0]() is False
    assert bench.answers[13] == [130, 140, 150, 160]


@pytest.mark.parametrize(("seconds", "batches"), [(0.0004, 3), (0.0006, 2), (0.001, 1)])
def test_no_batch_begins_a_millisecond_after_the_first(
    bench: Bench, seconds: float, batches: int
) -> None:
    bench.seconds = seconds
    for first in range(1, 41, 4):
        bench.submit(first, first + 1, first + 2, first + 3)

    assert bench.woken[0]() is True
    assert len(bench.batches) == len(bench.answers) == batches


def test_a_batch_that_fails_fails_its_own_entries_only(bench: Bench) -> None:
    bench.failing = True
    for first in (1, 5, 9):
        bench.submit(first, first + 1, first + 2, first + 3)

    assert bench.woken[0]() is True
    assert bench.answers == {1: [], 5: []}
    bench.failing = False
    assert bench.woken[0]() is False
    assert bench.answers[9] == [90, 100, 110, 120]


def test_a_call_without_anything_to_do_is_harmless(bench: Bench) -> None:
    assert bench.batcher.run_due() is False
    assert bench.batches == []


def test_the_expected_drain_time_counts_what_answers_take_of_the_thread() -> None:
    clock = Clock()
    woken: list[Callable[[], bool]] = []
    batcher = Batcher(
        lambda inputs: {"y": inputs["x"]},
        BatchingOptions(buckets=(1,), max_queue_items=3),
        Observer(),
        clock=clock,
        wake=woken.append,
    )

    def submit() -> None:
        batcher.submit({"x": np.zeros(1)}, 1, lambda entry: clock.pass_time(2.0))

    for _ in range(3):
        submit()
    woken[0]()  # two batches, as two are full and one more waits
    submit()
    submit()
    with pytest.raises(QueueFull) as caught:
        submit()
    assert caught.value.drain_seconds == 3 * 2.0


def test_drain_runs_what_waits_and_closes_the_door(bench: Bench) -> None:
    bench.submit(1)
    bench.batcher.drain()

    assert bench.answers == {1: [10]}
    with pytest.raises(Draining):
        bench.submit(2)
