"""When the batcher starts a batch (rules 5 to 7 of the design)."""

import threading
import time

from service.batching import MonotonicClock
from tests.service.fakes import Bench, MakeBench, Waits

# Rule 5: with delay 0 an idle session never waits; a window starts at the oldest admission.


def test_without_a_delay_an_idle_session_never_waits(bench: Bench) -> None:
    bench.call(1)
    bench.expect_batch(1)  # and not Waits


def test_without_a_delay_a_session_that_becomes_free_never_waits(bench: Bench) -> None:
    bench.occupy()
    bench.call(1)
    bench.end_batch()
    bench.expect_batch(1)


def test_with_a_delay_a_request_waits_for_others(make_bench: MakeBench) -> None:
    bench = make_bench(delay=0.5)
    bench.call(1)
    assert bench.next_event() == Waits(0.5)
    bench.clock.advance(0.5)
    bench.expect_batch(1)


def test_the_window_starts_at_the_oldest_admission(make_bench: MakeBench) -> None:
    bench = make_bench(delay=0.5)
    bench.call(1)
    assert bench.next_event() == Waits(0.5)
    bench.clock.advance(0.375)
    assert bench.next_event() == Waits(0.125)
    bench.call(2)
    assert bench.next_event() == Waits(0.125)
    bench.clock.advance(0.125)
    bench.expect_batch(1, 2)


def test_a_window_passes_while_the_session_is_busy(make_bench: MakeBench) -> None:
    bench = make_bench(delay=0.5)
    bench.call(1, items=4)
    bench.expect_batch(1, 2, 3, 4)
    bench.call(5)
    bench.end_batch(seconds=0.5)
    bench.expect_batch(5)


def test_what_is_left_of_a_window_is_waited_after_a_batch(make_bench: MakeBench) -> None:
    bench = make_bench(delay=0.5)
    bench.call(1, items=4)
    bench.expect_batch(1, 2, 3, 4)
    bench.call(5)
    bench.end_batch(seconds=0.375)
    assert bench.next_event() == Waits(0.125)


def test_a_full_batch_does_not_wait_for_the_window(make_bench: MakeBench) -> None:
    bench = make_bench(delay=0.5)
    bench.call(1, items=3)
    assert bench.next_event() == Waits(0.5)
    bench.call(4)
    bench.expect_batch(1, 2, 3, 4)


def test_an_idle_instance_runs_what_another_one_left_in_the_queue(make_bench: MakeBench) -> None:
    bench = make_bench(instances=2)
    bench.call(1, items=6)
    bench.expect_batch(1, 2, 3, 4)
    bench.expect_batch(5, 6)


# Rule 6: late binding.


def test_a_waiting_batch_grows_until_the_session_is_free(bench: Bench) -> None:
    bench.occupy()
    for first in (1, 2, 3):
        bench.call(first)
    assert bench.batcher.queued_items == 3  # nothing is set aside for the next batch
    bench.call(4)
    bench.end_batch()
    bench.expect_batch(1, 2, 3, 4)


def test_no_batch_starts_while_every_instance_is_busy(make_bench: MakeBench) -> None:
    bench = make_bench(instances=2)
    bench.occupy()
    bench.occupy()
    bench.call(1, items=4)
    bench.call(5, items=4)
    assert (len(bench.session.batches), bench.batcher.queued_items) == (2, 8)


# Rule 7: events and a monotonic, injectable clock; no polling.


def test_an_idle_batcher_waits_without_a_timeout(bench: Bench) -> None:
    bench.call(1)
    bench.expect_batch(1)
    bench.end_batch()
    assert bench.next_event() == Waits(None)


def test_a_batcher_wakes_only_when_something_happens(make_bench: MakeBench) -> None:
    bench = make_bench(delay=0.5)
    bench.call(1)
    assert bench.next_event() == Waits(0.5)
    bench.clock.advance(0.5)
    bench.expect_batch(1)
    bench.end_batch()
    bench.expect_idle()
    assert bench.events.empty()


def test_the_clock_of_a_service_is_monotonic() -> None:
    before = time.monotonic()
    now = MonotonicClock().now()
    assert before <= now <= time.monotonic()


def test_the_clock_of_a_service_waits_at_most_as_long_as_it_is_told() -> None:
    condition = threading.Condition()
    with condition:
        MonotonicClock().wait(condition, 0.0)  # nobody notifies
