"""The simulation of a replica's queue follows queueing theory, and what was measured."""

import math
from statistics import fmean

import pytest

from scripts.arrivals import Arrivals, Round
from scripts.capacity import ARRIVALS, RESULT, Measured
from scripts.queues import BATCH, BatchCost, observe, poisson, simulate

MEASURED = Measured(RESULT)
NOTHING = BatchCost(0.0, 0.0)


@pytest.fixture(scope="module")
def rounds() -> list[Round]:
    return list(Arrivals(ARRIVALS).rounds())


def test_the_cost_of_a_batch_gives_back_what_it_was_made_from() -> None:
    cost = MEASURED.cost()
    assert cost.batch(1) == pytest.approx(MEASURED.cpu("mlp", "1 callers"))
    assert cost.batch(BATCH) / BATCH == pytest.approx(MEASURED.cpu("mlp", "64 callers"))


def test_the_cost_of_a_batch_foretells_a_load_that_it_was_not_made_from() -> None:
    said = MEASURED.cost().batch(16) / 16
    assert said == pytest.approx(MEASURED.cpu("mlp", "16 callers"), rel=0.1)


def test_where_batching_saves_nothing_the_queue_is_that_of_single_requests() -> None:
    # Without a fixed cost, work in the queue is that of an M/D/1 queue whatever its batches are, so
    # the server is busy for the load's share of the time.
    queue = simulate(BatchCost(0.0, 100.0), rate=5000)
    assert queue.busy == pytest.approx(0.5, abs=0.01)
    assert queue.cpu == pytest.approx(100.0)


def test_a_light_load_is_served_one_by_one_without_waiting() -> None:
    cost = BatchCost(160.0, 34.0)
    queue = simulate(cost, rate=10)
    assert queue.p50 == pytest.approx(cost.batch(1) / 1000)
    assert queue.waiting < 0.001


def test_a_generator_that_costs_nothing_sees_what_the_replica_does() -> None:
    cost = BatchCost(160.0, 34.0)
    alone = simulate(cost, rate=4000, requests=5000)
    seen = observe(cost, NOTHING, poisson(4000, 5000))
    assert (seen.p50, seen.p99) == (pytest.approx(alone.p50), pytest.approx(alone.p99))
    assert seen.lag == 0.0


def test_a_generator_that_is_busy_is_late_and_adds_its_own_time() -> None:
    cost, generator = BatchCost(160.0, 34.0), BatchCost(70.0, 6.0)
    light = observe(cost, generator, poisson(1, 100))
    assert light.p50 == pytest.approx((cost.batch(1) + generator.batch(1)) / 1000)
    assert light.lag == 0.0
    assert observe(cost, generator, poisson(4000, 5000)).lag > 0.01


def test_a_load_beyond_what_a_replica_bears_never_stops_growing() -> None:
    cost = BatchCost(160.0, 34.0)
    short = simulate(cost, rate=1.2 * cost.most(), requests=10_000)
    long = simulate(cost, rate=1.2 * cost.most(), requests=40_000)
    assert long.p99 > 3 * short.p99
    assert long.cpu == pytest.approx(cost.batch(BATCH) / BATCH, rel=0.02)


def test_a_wait_for_a_core_makes_late_whatever_starts_next() -> None:
    cost, due = BatchCost(100.0, 0.0), [1000.0, 2000.0, 3000.0]

    seen = observe(cost, NOTHING, due, waits=[(1500.0, 50.0), (1600.0, 250.0)])
    sender = observe(cost, NOTHING, due, generator_waits=[(1500.0, 300.0)])

    assert seen.p50 == sender.p50 == pytest.approx(0.1)
    assert seen.p99 == pytest.approx(0.1 + 0.98 * 0.3)
    assert seen.lag == 0.0
    assert sender.lag == pytest.approx(0.98 * 0.3)


def test_calls_of_the_warm_up_are_not_counted() -> None:
    cost, due = BatchCost(100.0, 0.0), [1000.0, 2000.0, 3000.0]
    assert observe(cost, NOTHING, due, waits=[(0.0, 700.0)], begin=1500.0).p99 == 0.1


def test_the_waits_for_a_core_explain_most_of_what_the_measured_tail_has_more(
    rounds: list[Round],
) -> None:
    def error(name: str) -> float:
        return fmean(abs(math.log(getattr(each, name).p99 / each.measured.p99)) for each in rounds)

    assert error("disturbed") < 0.6 * error("calm")


def test_the_simulation_meets_the_median_where_the_cores_are_not_taken_away(
    rounds: list[Round],
) -> None:
    quiet = [each for each in rounds if each.rate > 2000 and sum(each.waits) < 30]
    assert len(quiet) > len(rounds) / 3
    for each in quiet:
        assert each.calm.p50 == pytest.approx(each.measured.p50, rel=0.15)
