"""The batcher on the caller's thread: wakes it once for what waits, one batch for each call."""

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
        options = BatchingOptions(buckets=(1, 2, 4), max_queue_items=100)
        self.batcher = Batcher(self.run, options, Observer(), wake=self.woken.append)

    def run(self, inputs: Arrays) -> Arrays:
        rows = inputs["x"]
        self.batches.append([float(row) for row in rows])
        return {"y": rows * 10}

    def submit(self, *rows: float) -> None:
        def done(entry: Entry) -> None:
            assert entry.outputs is not None
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
    woken[0]()
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
