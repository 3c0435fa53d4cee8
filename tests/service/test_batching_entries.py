"""How entries of the batcher are answered, and how they leave (rules 2 and 3)."""

import pytest

from service.errors import ExpiredInQueue
from tests.service.fakes import Bench, MakeBench

# Rule 2: an entry holds its own completion.


@pytest.mark.parametrize("gone", [0, 1, 2, 3])
def test_cancelling_one_of_four_waiting_callers_leaves_the_others_answered(
    bench: Bench, gone: int
) -> None:
    bench.occupy()
    submitted = [bench.submit(first) for first in range(1, 5)]
    submitted[gone][1].cancel()
    bench.end_batch()
    bench.expect_batch(*(first for first in range(1, 5) if first != gone + 1), 0)
    bench.end_batch()
    bench.expect_idle()
    others = [caller for index, (caller, _) in enumerate(submitted) if index != gone]
    assert [caller.answer() for caller in others] == [caller.expected() for caller in others]
    assert submitted[gone][0].answers == []


@pytest.mark.parametrize("gone", [0, 1, 2, 3])
def test_cancelling_one_of_four_callers_in_a_running_batch_leaves_the_others_answered(
    bench: Bench, gone: int
) -> None:
    bench.occupy()
    submitted = [bench.submit(first) for first in range(1, 5)]
    bench.end_batch()
    bench.expect_batch(1, 2, 3, 4)
    submitted[gone][1].cancel()
    bench.end_batch()
    bench.expect_idle()
    others = [caller for index, (caller, _) in enumerate(submitted) if index != gone]
    assert [caller.answer() for caller in others] == [caller.expected() for caller in others]


def test_two_callers_with_equal_items_get_an_answer_each(bench: Bench) -> None:
    bench.occupy()
    callers = [bench.call(7), bench.call(7)]
    bench.end_batch()
    bench.expect_batch(7, 7)
    bench.end_batch()
    assert [caller.answer() for caller in callers] == [[15.0], [15.0]]


# Rule 3: cancelled and expired entries leave when a batch is cut, are counted, harm nobody.


def test_a_cancelled_entry_leaves_when_a_batch_is_cut_and_is_counted(bench: Bench) -> None:
    bench.occupy()
    _, entry = bench.submit(1, items=3)
    entry.cancel()
    assert (bench.batcher.queued_items, bench.observer.cancelled) == (3, 0)
    bench.end_batch()
    bench.expect_idle()
    assert (bench.batcher.queued_items, bench.observer.cancelled) == (0, 1)


def test_every_cancelled_entry_of_a_cut_is_counted(bench: Bench) -> None:
    bench.occupy()
    gone = [bench.submit(first)[1] for first in (1, 2)]
    bench.call(3)
    for entry in gone:
        entry.cancel()
    bench.end_batch()
    bench.expect_batch(3)
    assert bench.observer.cancelled == 2


def test_cancelled_entries_leave_their_room_in_the_batch_to_those_behind(bench: Bench) -> None:
    bench.occupy()
    _, gone = bench.submit(1, items=4)
    bench.call(5, items=4)
    gone.cancel()
    bench.end_batch()
    bench.expect_batch(5, 6, 7, 8)


@pytest.mark.parametrize(("passed", "expired"), [(0.75, False), (1.0, True), (1.25, True)])
def test_an_entry_expires_when_its_deadline_is_reached_in_the_queue(
    bench: Bench, passed: float, expired: bool
) -> None:
    bench.occupy()
    bench.call(1, deadline=1.0)
    bench.end_batch(seconds=passed)
    if expired:
        bench.expect_idle()
    else:
        bench.expect_batch(1)
    assert bench.observer.rejected == ["expired"] * expired


def test_an_expired_caller_learns_it_once(bench: Bench) -> None:
    bench.occupy()
    caller = bench.call(1, deadline=1.0)
    bench.end_batch(seconds=2.0)
    bench.expect_idle()
    with pytest.raises(ExpiredInQueue):
        caller.answer()
    assert bench.batcher.queued_items == 0


def test_an_expired_entry_never_harms_its_neighbours(bench: Bench) -> None:
    bench.occupy()
    before, late, behind = bench.call(1), bench.call(2, items=2, deadline=1.0), bench.call(4)
    bench.end_batch(seconds=1.0)
    bench.expect_batch(1, 4)
    bench.end_batch()
    assert (before.answer(), behind.answer()) == (before.expected(), behind.expected())
    with pytest.raises(ExpiredInQueue):
        late.answer()


def test_a_deadline_that_passes_while_the_batch_runs_does_not_matter(bench: Bench) -> None:
    caller = bench.call(1, deadline=1.0)
    bench.expect_batch(1)
    bench.end_batch(seconds=5.0)
    assert caller.answer() == caller.expected()


def test_the_rest_of_a_request_that_is_cancelled_half_way_leaves(bench: Bench) -> None:
    _, entry = bench.submit(1, items=10)
    bench.expect_batch(1, 2, 3, 4)
    entry.cancel()
    neighbour = bench.call(50)
    bench.end_batch()
    bench.expect_batch(50)
    bench.end_batch()
    assert neighbour.answer() == neighbour.expected()
    assert bench.batcher.queued_items == 0


def test_a_request_that_expires_half_way_fails_once_as_a_whole(bench: Bench) -> None:
    caller = bench.call(1, items=6, deadline=1.0)
    bench.expect_batch(1, 2, 3, 4)
    bench.end_batch(seconds=1.0)
    bench.expect_idle()
    with pytest.raises(ExpiredInQueue):
        caller.answer()
    assert bench.batcher.queued_items == 0


def test_an_entry_that_expired_while_its_first_part_runs_elsewhere_fails_once(
    make_bench: MakeBench,
) -> None:
    bench = make_bench(instances=2)
    bench.occupy()
    caller = bench.call(1, items=6, deadline=1.0)
    bench.expect_batch(1, 2, 3, 4)
    bench.end_batch(seconds=1.0)
    bench.expect_idle()
    bench.end_batch()
    bench.expect_idle()
    with pytest.raises(ExpiredInQueue):
        caller.answer()


def test_a_queue_of_cancelled_and_expired_entries_runs_no_batch(bench: Bench) -> None:
    bench.occupy()
    bench.submit(1)[1].cancel()
    bench.call(2, deadline=0.5)
    bench.end_batch(seconds=0.5)
    bench.expect_idle()
    assert len(bench.session.batches) == 1
