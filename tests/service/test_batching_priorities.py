"""Which requests the batcher runs first, and which make room: levels 1 to 3, 2 unless asked for."""

import pytest

from service.batching import BatchingOptions
from service.errors import ExpiredInQueue, InvalidRequest, QueueFull
from tests.service.fakes import Bench, Caller, MakeBench, Waits

URGENT, BULK = 1, 3


def refused(caller: Caller) -> bool:
    [entry] = caller.answers
    return isinstance(entry.error, QueueFull)


def test_more_urgent_requests_run_first_and_those_of_a_level_in_their_order(bench: Bench) -> None:
    bench.occupy()
    for first, priority in [(10, BULK), (20, 0), (30, URGENT), (40, 2), (50, BULK), (60, URGENT)]:
        bench.call(first, priority=priority)
    bench.end_batch()
    bench.expect_batch(30, 60, 20, 40)
    bench.end_batch()
    bench.expect_batch(10, 50)


@pytest.mark.parametrize(("levels", "middle"), [(1, 1), (2, 2), (3, 2), (4, 3)])
def test_a_request_that_asks_for_no_level_has_the_middle_one(levels: int, middle: int) -> None:
    assert BatchingOptions(priority_levels=levels).level(0) == middle


def test_the_default_level_can_be_set() -> None:
    assert BatchingOptions(priority_levels=5, default_priority_level=4).level(0) == 4


@pytest.mark.parametrize("priority", [-1, 4, 2**31 - 1])
def test_a_level_that_does_not_exist_is_refused(bench: Bench, priority: int) -> None:
    with pytest.raises(InvalidRequest, match="expected 1, the most urgent, to 3") as caught:
        bench.call(1, priority=priority)
    assert caught.value.field == "priority"
    assert bench.batcher.queued_items == 0


@pytest.mark.parametrize(("levels", "default"), [(2, 3), (0, 0), (11, 1), (3, -1)])
def test_levels_out_of_range_are_refused(levels: int, default: int) -> None:
    with pytest.raises(ValueError, match="priority_levels"):
        BatchingOptions(priority_levels=levels, default_priority_level=default)


def test_urgent_requests_pass_between_the_batches_of_a_large_one(bench: Bench) -> None:
    large = bench.call(1, items=6)
    bench.expect_batch(1, 2, 3, 4)
    urgent = bench.call(50, items=3, priority=URGENT)
    bench.end_batch()
    bench.expect_batch(50, 51, 52, 5)
    bench.end_batch()
    bench.expect_batch(6)
    bench.end_batch()
    assert (urgent.answer(), large.answer()) == (urgent.expected(), large.expected())


def test_a_full_queue_makes_room_by_the_youngest_of_the_least_urgent(make_bench: MakeBench) -> None:
    bench = make_bench(capacity=4)
    bench.occupy()
    bulk = [bench.call(first, priority=BULK) for first in (10, 11)]
    normal = [bench.call(first) for first in (20, 21)]
    bench.call(30, priority=URGENT)
    assert [refused(caller) for caller in bulk if caller.answers] == [True]
    assert not bulk[0].answers
    bench.end_batch()
    bench.expect_batch(30, 20, 21, 10)
    bench.end_batch()
    assert [caller.answer() for caller in normal] == [caller.expected() for caller in normal]
    assert (bench.observer.rejected, bench.observer.rejected_levels) == (["queue_full"], [BULK])


def test_as_many_make_room_as_are_needed_and_learn_when_to_come_back(make_bench: MakeBench) -> None:
    bench = make_bench(capacity=4)
    bench.occupy()
    bench.end_batch(seconds=2.0)
    bench.expect_idle()
    bench.occupy()
    bulk = [bench.call(first, priority=BULK) for first in range(10, 14)]
    bench.call(30, items=2, priority=URGENT)
    assert [bool(caller.answers) for caller in bulk] == [False, False, True, True]
    error = bulk[3].answers[0].error
    assert isinstance(error, QueueFull)
    assert error.drain_seconds == 2.0 * 2  # a full batch that waits, and the one that runs
    assert bench.batcher.queued_by_level() == {URGENT: 2, BULK: 2}


def test_nobody_leaves_for_a_request_that_would_not_fit_all_the_same(make_bench: MakeBench) -> None:
    bench = make_bench(capacity=4)
    bench.occupy()
    bench.call(10, items=3, priority=URGENT)
    bench.call(20, priority=BULK)
    with pytest.raises(QueueFull):
        bench.call(30, items=2, priority=URGENT)
    bench.end_batch()
    bench.expect_batch(10, 11, 12, 20)


@pytest.mark.parametrize("priority", [0, BULK])
def test_requests_of_the_same_level_or_a_more_urgent_one_make_no_room(
    make_bench: MakeBench, priority: int
) -> None:
    bench = make_bench(capacity=2)
    bench.occupy()
    bench.call(10, items=2)
    with pytest.raises(QueueFull):
        bench.call(20, priority=priority)
    assert bench.batcher.queued_items == 2


def test_a_request_that_has_started_stays(make_bench: MakeBench) -> None:
    bench = make_bench(capacity=4)
    started = bench.call(1, items=6, priority=BULK)
    bench.expect_batch(1, 2, 3, 4)
    behind = bench.call(10, items=2, priority=BULK)
    bench.call(30, items=2, priority=URGENT)
    assert refused(behind)
    bench.end_batch()
    bench.expect_batch(30, 31, 5, 6)
    bench.end_batch()
    assert started.answer() == started.expected()


def test_a_request_larger_than_the_queue_takes_the_place_of_all_that_is_less_urgent(
    make_bench: MakeBench,
) -> None:
    bench = make_bench(capacity=2)
    bench.occupy()
    bulk = bench.call(10, priority=BULK)
    urgent = bench.call(30, items=3, priority=URGENT)
    assert refused(bulk)
    bench.end_batch()
    bench.expect_batch(30, 31, 32, 0)
    bench.end_batch()
    assert urgent.answer() == urgent.expected()


def test_a_cancelled_request_that_makes_room_is_counted_as_cancelled(make_bench: MakeBench) -> None:
    bench = make_bench(capacity=1)
    bench.occupy()
    gone, entry = bench.submit(10, priority=BULK)
    entry.cancel()
    bench.call(30, priority=URGENT)
    assert (bench.observer.cancelled, bench.observer.rejected, gone.answers) == (1, [], [])


def test_a_deadline_holds_on_a_level_whose_turn_never_comes(bench: Bench) -> None:
    bench.occupy()
    late, gone = bench.call(10, deadline=1.0, priority=BULK), bench.submit(11, 1, 1.0, BULK)[1]
    bench.call(12, priority=BULK)
    gone.cancel()
    bench.call(20, items=4, priority=URGENT)
    bench.end_batch(seconds=1.0)
    bench.expect_batch(20, 21, 22, 23)
    with pytest.raises(ExpiredInQueue):
        late.answer()
    assert bench.batcher.queued_by_level() == {BULK: 1}
    assert (bench.observer.rejected_levels, bench.observer.cancelled) == ([BULK], 1)


def test_the_window_starts_at_the_oldest_admission_of_all_levels(make_bench: MakeBench) -> None:
    bench = make_bench(delay=0.5)
    bench.call(1, priority=BULK)
    assert bench.next_event() == Waits(0.5)
    bench.clock.advance(0.375)
    assert bench.next_event() == Waits(0.125)
    bench.call(2, priority=URGENT)
    assert bench.next_event() == Waits(0.125)
    bench.clock.advance(0.125)
    bench.expect_batch(2, 1)
