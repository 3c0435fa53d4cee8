"""Closed and open loops, on a fake server with a fake clock."""

import itertools
import math

import pytest

from benchmarks.loops import Window, closed_loop, open_loop, percentile, poisson_arrivals
from tests.benchmarks.fakes import FakeServer


def every(gap: float, duration: float) -> list[float]:
    return [number * gap for number in range(round(duration / gap))]


@pytest.mark.parametrize(
    ("percent", "expected"), [(0, 1), (1, 1), (50, 50), (50.5, 51), (99, 99), (100, 100)]
)
def test_a_percentile_is_the_nearest_rank(percent: float, expected: float) -> None:
    assert percentile([float(value) for value in range(1, 101)], percent) == expected


def test_nothing_has_no_percentile() -> None:
    assert math.isnan(percentile([], 50))


def test_poisson_arrivals_ascend_within_the_duration_and_repeat_with_their_seed() -> None:
    arrivals = list(poisson_arrivals(1000.0, 10.0, seed=1))

    assert arrivals == sorted(arrivals)
    assert arrivals[0] >= 0
    assert arrivals[-1] < 10
    assert arrivals == list(poisson_arrivals(1000.0, 10.0, seed=1))
    assert arrivals != list(poisson_arrivals(1000.0, 10.0, seed=2))


def test_poisson_arrivals_have_the_rate_and_the_spread_of_their_gaps() -> None:
    arrivals = list(poisson_arrivals(1000.0, 10.0, seed=1))
    gaps = [after - before for before, after in itertools.pairwise(arrivals)]
    mean = sum(gaps) / len(gaps)
    deviation = math.sqrt(sum((gap - mean) ** 2 for gap in gaps) / len(gaps))

    assert len(arrivals) == pytest.approx(10_000, rel=0.05)
    assert deviation == pytest.approx(mean, rel=0.05)  # as of an exponential distribution


def test_a_closed_loop_keeps_its_concurrency_and_counts_the_window_only() -> None:
    server = FakeServer(lambda start: 0.01)

    tally = closed_loop(server, server.clock, 4, Window(warmup=1.0, duration=2.0))

    assert server.most_outstanding == 4
    assert tally.seconds == pytest.approx(2.0)
    assert tally.codes["OK"] == pytest.approx(200, abs=1)
    assert percentile(sorted(tally.latencies), 50) == pytest.approx(0.04)


def test_a_closed_loop_ends_with_the_number_of_requests() -> None:
    server = FakeServer(lambda start: 0.01)

    tally = closed_loop(server, server.clock, 4, Window(0.0, 100.0, requests=50))

    assert tally.codes.total() == 50
    assert tally.seconds == pytest.approx(0.5)


def test_calls_that_fail_are_counted_by_code_and_have_no_latency() -> None:
    server = FakeServer(lambda start: 0.01, code="UNAVAILABLE")

    tally = closed_loop(server, server.clock, 1, Window(0.0, 1.0))

    assert set(tally.codes) == {"UNAVAILABLE"}
    assert tally.latencies == []


def test_the_window_is_marked_at_both_ends() -> None:
    server = FakeServer(lambda start: 0.01)
    marks: list[float] = []

    closed_loop(server, server.clock, 1, Window(1.0, 2.0), lambda: marks.append(server.now))

    assert marks == [pytest.approx(1.0), pytest.approx(3.0)]


def test_an_open_loop_charges_a_stall_to_everybody_who_came_meanwhile() -> None:
    """The server stands still for a second; a closed loop would see one slow call."""
    server = FakeServer(lambda start: 1.0 if 0.995 < start < 1.005 else 0.0001)

    tally = open_loop(server, server.clock, iter(every(0.01, 3.0)), Window(0.0, 3.0))

    slow = [latency for latency in tally.latencies if latency > 0.05]
    assert len(slow) == pytest.approx(96, abs=2)
    assert max(slow) == pytest.approx(1.0, abs=0.01)
    assert sum(slow) / len(slow) == pytest.approx(0.52, abs=0.02)


def test_an_open_loop_submits_with_the_scheduled_time_even_when_it_is_late() -> None:
    server = FakeServer(lambda start: 0.001)
    arrivals = [0.1, 0.2, 0.3]
    times = iter([0.0, 0.25])  # the generator itself stands still from 0.0 to 0.25

    def clock() -> float:
        server.now = max(server.now, next(times, 0.0))
        return server.now

    tally = open_loop(server, clock, iter(arrivals), Window(0.0, 0.4))

    assert server.submitted == pytest.approx(arrivals)
    assert sorted(tally.latencies)[-1] >= 0.15  # of the call that was due at 0.1
    assert max(tally.lags) == pytest.approx(0.15)


def test_an_open_loop_leaves_out_what_is_scheduled_in_the_warmup() -> None:
    server = FakeServer(lambda start: 0.001)

    tally = open_loop(server, server.clock, iter(every(0.01, 3.0)), Window(1.0, 2.0))

    assert tally.codes.total() == pytest.approx(200, abs=1)
    assert len(server.submitted) == 300


def test_calls_that_never_end_are_counted_and_infinitely_late() -> None:
    server = FakeServer(lambda start: math.inf if start > 0.5 else 0.001)

    tally = open_loop(server, server.clock, iter(every(0.1, 1.0)), Window(0.0, 1.0, grace=2.0))

    assert tally.codes["OK"] + tally.codes["UNFINISHED"] == 10
    assert tally.codes["UNFINISHED"] >= 4
    assert math.isinf(percentile(sorted(tally.latencies), 99))


def test_an_overloaded_server_is_measured_until_it_has_answered() -> None:
    server = FakeServer(lambda start: 0.02)  # 50 a second, where 100 arrive

    tally = open_loop(server, server.clock, iter(every(0.01, 2.0)), Window(0.0, 2.0))

    assert tally.codes["OK"] == 200
    assert tally.codes["OK"] / tally.seconds == pytest.approx(50, rel=0.01)
