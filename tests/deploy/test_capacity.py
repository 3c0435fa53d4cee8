"""docs/capacity.md says what the measurements say, and its simulation follows queueing theory."""

import math

import pytest

from scripts.capacity import (
    BATCH,
    CUDA,
    GPUS,
    LEAST,
    PAGE,
    RESULT,
    SHARE,
    WORKLOADS,
    BatchCost,
    Measured,
    Replica,
    Workload,
    behind_a_gpu,
    fleet,
    observe,
    on_a_core,
    page,
    served,
    simulate,
)
from scripts.rendered import one, render

MEASURED = Measured(RESULT)


def test_the_page_is_what_the_script_writes() -> None:
    text = PAGE.read_text()
    assert page(text, MEASURED, served(CUDA)) == text


def test_the_cost_of_a_batch_gives_back_what_it_was_made_from() -> None:
    cost = BatchCost.of(MEASURED)
    assert cost.batch(1) == pytest.approx(MEASURED.cpu("mlp", "1 callers"))
    assert cost.batch(BATCH) / BATCH == pytest.approx(MEASURED.cpu("mlp", "64 callers"))


def test_the_cost_of_a_batch_foretells_a_load_that_it_was_not_made_from() -> None:
    said = BatchCost.of(MEASURED).batch(16) / 16
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
    seen = observe(cost, BatchCost(0.0, 0.0), rate=4000, requests=5000)
    assert (seen.p50, seen.p99) == (pytest.approx(alone.p50), pytest.approx(alone.p99))
    assert seen.lag == 0.0


def test_a_generator_that_is_busy_is_late_and_adds_its_own_time() -> None:
    cost, generator = BatchCost(160.0, 34.0), BatchCost(70.0, 6.0)
    light = observe(cost, generator, rate=1, requests=100)
    assert light.p50 == pytest.approx((cost.batch(1) + generator.batch(1)) / 1000)
    assert light.lag == 0.0
    assert observe(cost, generator, rate=4000, requests=5000).lag > 0.01


def test_a_load_beyond_what_a_replica_bears_never_stops_growing() -> None:
    cost = BatchCost(160.0, 34.0)
    short = simulate(cost, rate=1.2 * cost.most(), requests=10_000)
    long = simulate(cost, rate=1.2 * cost.most(), requests=40_000)
    assert long.p99 > 3 * short.p99
    assert long.cpu == pytest.approx(cost.batch(BATCH) / BATCH, rel=0.02)


@pytest.mark.parametrize("workload", WORKLOADS, ids=lambda workload: str(workload.title))
def test_a_fleet_bears_its_load_with_one_replica_away(workload: Workload) -> None:
    for replica in (on_a_core(workload, MEASURED), behind_a_gpu(workload, served(CUDA))):
        for rate in (1e3, 1e5, 1e7):
            made = fleet(workload, replica, rate)
            assert (made.replicas - 1) * replica.items * SHARE >= rate
            assert made.replicas - 1 == max(LEAST, math.ceil(rate / replica.items / SHARE))


def test_a_replica_behind_a_gpu_bears_what_its_best_load_got() -> None:
    row = {"model": "mlp", "items": 64, "observations": "float32", "precision": "float32"}
    row |= {"runs": "captured", "server_cpu_us": 640.0, "gpu_busy_percent": 20.0}
    rows = [row | {"items_per_second": rate} for rate in (50_000.0, 100_000.0)]
    rows += [row | {"runs": "plain", "items_per_second": 150_000.0}]
    rows += [row | {"items": 1, "items_per_second": 150_000.0}]
    [workload] = (each for each in WORKLOADS if each.title == "dense, 64 items")

    replica = behind_a_gpu(workload, rows)

    assert replica == Replica(100_000.0, cpu=10.0, gpu=2.0, node=GPUS)
    assert replica.limit == "CPU"


def test_what_limits_a_fleet_first() -> None:
    dense = WORKLOADS[1]
    small, slow = Replica(1e6, 1.0, 0.9, GPUS), Replica(1e3, 100.0, 1000.0, GPUS)
    assert fleet(dense, small, 1e3).bottleneck == "none"
    assert fleet(dense, small, 1e8).bottleneck == "network of a node"
    assert fleet(dense, slow, 1e5).bottleneck == "GPU"
    assert fleet(dense, slow, 1e7).bottleneck == "connections"


def test_autoscaling_waits_for_the_queue_of_the_share_that_fleets_are_sized_for() -> None:
    cost = BatchCost.of(MEASURED)
    [trigger] = one(render("overlays/gpu"), "ScaledObject")["spec"]["triggers"]
    waiting = simulate(cost, SHARE * cost.most()).waiting
    assert round(waiting) == int(trigger["metadata"]["threshold"])
