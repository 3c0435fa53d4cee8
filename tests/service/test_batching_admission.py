"""The batcher's door (rule 1 of the design)."""

import pytest

from service.errors import QueueFull
from tests.service.fakes import Bench, MakeBench

# Rule 1: capacity counts items, not requests, and is decided at the door.


def test_capacity_counts_items_and_not_requests(make_bench: MakeBench) -> None:
    bench = make_bench(capacity=5)
    bench.occupy()
    bench.call(1, items=3)
    bench.call(4, items=2)
    with pytest.raises(QueueFull):
        bench.call(6, items=1)


def test_a_queue_takes_as_many_small_requests_as_it_holds_items(make_bench: MakeBench) -> None:
    bench = make_bench(capacity=5)
    bench.occupy()
    for first in range(5):
        bench.call(first)
    assert bench.batcher.queued_items == 5


def test_a_refused_request_is_refused_at_the_door(make_bench: MakeBench) -> None:
    bench = make_bench(capacity=2)
    bench.occupy()
    bench.call(1, items=2)
    with pytest.raises(QueueFull):
        bench.call(3)
    assert bench.batcher.queued_items == 2
    assert bench.observer.rejected == ["queue_full"]


def test_a_refused_request_never_runs(make_bench: MakeBench) -> None:
    bench = make_bench(capacity=2)
    bench.occupy()
    bench.call(1, items=2)
    with pytest.raises(QueueFull):
        bench.call(3)
    bench.end_batch()
    bench.expect_batch(1, 2)


def test_items_that_run_take_no_room_in_the_queue(make_bench: MakeBench) -> None:
    bench = make_bench(capacity=2)
    bench.occupy()
    bench.call(1, items=2)
    bench.end_batch()
    bench.expect_batch(1, 2)
    bench.call(3, items=2)
    assert bench.batcher.queued_items == 2


def test_an_empty_queue_takes_a_request_larger_than_the_queue(make_bench: MakeBench) -> None:
    bench = make_bench(capacity=2)
    caller = bench.call(1, items=5)
    bench.expect_batch(1, 2, 3, 4)
    bench.end_batch()
    bench.expect_batch(5)
    bench.end_batch()
    assert caller.answer() == caller.expected()


@pytest.mark.parametrize(
    ("waiting", "refused", "batches"),
    [(12, 1, 4), (9, 4, 4), (8, 5, 3), (1, 12, 2)],
)
def test_queue_full_carries_the_expected_drain_time(
    bench: Bench, waiting: int, refused: int, batches: int
) -> None:
    bench.occupy()
    bench.end_batch(seconds=2.0)
    bench.expect_idle()
    bench.occupy()
    bench.call(1, items=waiting)
    with pytest.raises(QueueFull) as caught:
        bench.call(100, items=refused)
    assert caught.value.drain_seconds == 2.0 * batches  # those that wait, and the one that runs


def test_the_expected_drain_time_follows_the_batches(bench: Bench) -> None:
    bench.occupy()
    bench.end_batch(seconds=2.0)
    bench.expect_idle()
    bench.occupy()
    bench.end_batch(seconds=12.0)
    bench.expect_idle()
    bench.occupy()
    bench.call(1, items=12)
    with pytest.raises(QueueFull) as caught:
        bench.call(100)
    assert caught.value.drain_seconds == pytest.approx(4 * (2.0 + 0.1 * 10.0))


def test_the_expected_drain_time_is_shared_by_the_instances(make_bench: MakeBench) -> None:
    bench = make_bench(instances=2)
    bench.occupy()
    bench.end_batch(seconds=2.0)
    bench.expect_idle()  # the instance that looked at the clock, as time passed
    bench.expect_idle()  # the one that ran
    bench.occupy()
    bench.occupy()
    bench.call(1, items=12)
    with pytest.raises(QueueFull) as caught:
        bench.call(100)
    assert caught.value.drain_seconds == (3 + 2) * 2.0 / 2
