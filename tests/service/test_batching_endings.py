"""How batches fail and how the batcher ends (rules 9 to 11 of the design)."""

import numpy as np
import pytest

from service import batching
from service.batching import Arrays, Entry
from service.errors import Draining, InferenceFailed
from tests.service.fakes import Bench, MakeBench, Waits, elsewhere, join

# Rule 9: a failing batch fails its own entries; the loop lives on.


def test_a_failing_batch_fails_its_own_entries_only(bench: Bench) -> None:
    before = bench.occupy()
    failed = [bench.call(1, items=2), bench.call(3, items=2)]
    after = bench.call(5)
    bench.end_batch()
    bench.expect_batch(1, 2, 3, 4)
    bench.end_batch(error=RuntimeError("out of memory"))
    bench.expect_batch(5)
    bench.end_batch()
    for caller in failed:
        with pytest.raises(InferenceFailed):
            caller.answer()
    assert (before.answer(), after.answer()) == (before.expected(), after.expected())


def test_a_failing_batch_does_not_fail_the_batch_of_another_instance(
    make_bench: MakeBench,
) -> None:
    bench = make_bench(instances=2)
    failed = bench.call(1)
    bench.expect_batch(1)
    other = bench.call(2)
    bench.expect_batch(2)
    bench.end_batch(error=RuntimeError())
    bench.end_batch()
    with pytest.raises(InferenceFailed):
        failed.answer()
    assert other.answer() == other.expected()


def test_the_error_of_a_failed_batch_holds_its_cause_but_does_not_show_it(bench: Bench) -> None:
    caller = bench.occupy()
    cause = RuntimeError("/secret/path")
    bench.end_batch(error=cause)
    with pytest.raises(InferenceFailed) as caught:
        caller.answer()
    assert str(caught.value) == "the batch failed"
    assert caught.value.__cause__ is cause


def test_a_failing_part_fails_its_request_and_the_rest_leaves(bench: Bench) -> None:
    large, small = bench.call(1, items=10), bench.call(50)
    bench.expect_batch(1, 2, 3, 4)
    bench.end_batch(error=RuntimeError())
    bench.expect_batch(50)
    bench.end_batch()
    with pytest.raises(InferenceFailed):
        large.answer()
    assert small.answer() == small.expected()
    assert (bench.batcher.queued_items, bench.observer.cancelled) == (0, 0)


def test_a_request_of_which_two_parts_fail_fails_once(make_bench: MakeBench) -> None:
    bench = make_bench(instances=2)
    caller = bench.call(1, items=8)
    bench.expect_batch(1, 2, 3, 4)
    bench.expect_batch(5, 6, 7, 8)
    bench.end_batch(error=RuntimeError())
    bench.expect_idle()
    bench.end_batch(error=RuntimeError())
    bench.expect_idle()
    with pytest.raises(InferenceFailed):
        caller.answer()
    assert bench.observer.failed == [1, 0]


@pytest.mark.parametrize("outputs", [{"y": np.zeros((3, 1))}, {"y": np.zeros(())}, {"y": None}])
def test_outputs_with_another_number_of_rows_fail_the_batch(bench: Bench, outputs: Arrays) -> None:
    caller = bench.call(1, items=4)
    bench.expect_batch(1, 2, 3, 4)
    bench.end_batch(outputs=outputs)
    bench.expect_idle()
    with pytest.raises(InferenceFailed):
        caller.answer()


@pytest.mark.parametrize("second", [{"y": np.zeros((4, 2))}, {"z": np.zeros((4, 1))}])
def test_parts_that_cannot_be_put_together_fail_their_request(bench: Bench, second: Arrays) -> None:
    caller, after = bench.call(1, items=8), bench.call(9)
    bench.expect_batch(1, 2, 3, 4)
    bench.end_batch()
    bench.expect_batch(5, 6, 7, 8)
    bench.end_batch(outputs=second)
    bench.expect_batch(9)
    bench.end_batch()
    with pytest.raises(InferenceFailed):
        caller.answer()
    assert after.answer() == after.expected()


def test_requests_whose_inputs_do_not_fit_together_fail_and_the_loop_lives_on(
    bench: Bench,
) -> None:
    bench.occupy()
    narrow = bench.call(1)
    bench.batcher.submit({"x": np.zeros((1, 2), np.float32)}, 1, lambda entry: None)
    bench.end_batch()
    bench.expect_idle()
    with pytest.raises(InferenceFailed):
        narrow.answer()
    after = bench.occupy()
    bench.end_batch()
    assert after.answer() == after.expected()


def test_an_on_done_that_raises_does_not_kill_the_loop(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    def raises(entry: Entry) -> None:
        raise ValueError("the caller broke its promise")

    bench.occupy()
    bench.batcher.submit({"x": np.ones((1, 1), np.float32)}, 1, raises)
    neighbour = bench.call(2)
    bench.end_batch()
    bench.expect_batch(1, 2)
    bench.end_batch()
    bench.expect_idle()
    after = bench.occupy()
    bench.end_batch()
    assert (neighbour.answer(), after.answer()) == (neighbour.expected(), after.expected())
    assert [record.message for record in caplog.records] == ["on_done raised"]


# Rule 10: drain() closes the door, finishes, returns; stop() rejects the rest; both twice.


def test_a_drain_finishes_what_was_admitted_and_returns(bench: Bench) -> None:
    callers = [bench.occupy(), bench.call(1, items=6)]
    drain = elsewhere(bench.batcher.drain)
    bench.end_batch()
    bench.expect_batch(1, 2, 3, 4)
    bench.end_batch()
    bench.expect_batch(5, 6)
    assert drain.is_alive()
    bench.end_batch()
    join(drain)
    assert [caller.answer() for caller in callers] == [caller.expected() for caller in callers]


def test_a_drain_does_not_wait_for_the_window(make_bench: MakeBench) -> None:
    bench = make_bench(delay=0.5)
    caller = bench.call(1)
    assert bench.next_event() == Waits(0.5)
    drain = elsewhere(bench.batcher.drain)
    bench.expect_batch(1)
    bench.end_batch()
    join(drain)
    assert caller.answer() == caller.expected()


def test_after_a_drain_submit_raises_draining(bench: Bench) -> None:
    bench.batcher.drain()
    with pytest.raises(Draining):
        bench.call(1)
    assert bench.observer.rejected == ["draining"]


def test_during_a_drain_submit_raises_draining(make_bench: MakeBench) -> None:
    bench = make_bench(delay=0.5)
    bench.call(1)
    assert bench.next_event() == Waits(0.5)
    drain = elsewhere(bench.batcher.drain)
    bench.expect_batch(1)  # the drain has begun, and cannot return
    with pytest.raises(Draining):
        bench.call(2)
    bench.end_batch()
    join(drain)


def test_a_drain_ends_every_instance(make_bench: MakeBench) -> None:
    bench = make_bench(instances=3)
    caller = bench.occupy()
    drain = elsewhere(bench.batcher.drain)
    bench.end_batch()
    join(drain)
    assert caller.answer() == caller.expected()


def test_a_stop_rejects_what_waits_and_finishes_what_runs(bench: Bench) -> None:
    running = bench.occupy()
    waiting = [bench.call(1), bench.call(2, items=6)]
    stop = elsewhere(bench.batcher.stop)
    for caller in waiting:
        with pytest.raises(Draining):
            caller.answer()
    assert stop.is_alive()
    bench.end_batch()
    join(stop)
    assert running.answer() == running.expected()
    assert (len(bench.session.batches), bench.batcher.queued_items) == (1, 0)


def test_a_stop_rejects_a_request_of_which_a_part_runs_once(bench: Bench) -> None:
    caller = bench.call(1, items=6)
    bench.expect_batch(1, 2, 3, 4)
    stop = elsewhere(bench.batcher.stop)
    with pytest.raises(Draining):
        caller.answer()
    bench.end_batch()
    join(stop)
    assert len(caller.answers) == 1


def test_after_a_stop_submit_raises_draining(bench: Bench) -> None:
    bench.batcher.stop()
    with pytest.raises(Draining):
        bench.call(1)


@pytest.mark.parametrize("first", ["drain", "stop"])
@pytest.mark.parametrize("second", ["drain", "stop"])
def test_drain_and_stop_can_be_called_again(bench: Bench, first: str, second: str) -> None:
    getattr(bench.batcher, first)()
    getattr(bench.batcher, second)()
    with pytest.raises(Draining):
        bench.call(1)


def test_a_stop_cuts_a_drain_short(make_bench: MakeBench) -> None:
    bench = make_bench(delay=0.5)
    running = bench.call(1, items=6)
    bench.expect_batch(1, 2, 3, 4)
    drain, stop = elsewhere(bench.batcher.drain), elsewhere(bench.batcher.stop)
    with pytest.raises(Draining):
        running.answer()
    bench.end_batch()
    join(drain)
    join(stop)
    assert len(bench.session.batches) == 1


# Rule 11: the latency bound. test_batching_properties.py checks that it holds.


def test_the_docstring_states_the_latency_bound_as_a_formula_of_the_knobs() -> None:
    text = " ".join((batching.__doc__ or "").split())
    assert "D + R + ceil(C / B) x R seconds" in text
    assert "ceil(n / B) x R + R seconds more" in text
    assert "max_batch_size B items, max_queue_delay D seconds, max_queue_items C items" in text
