"""docs/capacity.md says what the measurements say, and its fleets bear their loads."""

import math

import pytest

from scripts.arrivals import Arrivals
from scripts.capacity import (
    ARRIVALS,
    CUDA,
    GPUS,
    LEAST,
    PAGE,
    RESULT,
    SHARE,
    WORKLOADS,
    Measured,
    Replica,
    Workload,
    behind_a_gpu,
    fleet,
    on_a_core,
    page,
    served,
)
from scripts.queues import simulate
from scripts.rendered import one, render

MEASURED = Measured(RESULT)


def test_the_page_is_what_the_script_writes() -> None:
    text = PAGE.read_text()
    assert page(text, MEASURED, served(CUDA), Arrivals(ARRIVALS)) == text


@pytest.mark.parametrize("workload", WORKLOADS, ids=lambda workload: str(workload.title))
def test_a_fleet_bears_its_load_with_one_replica_away(workload: Workload) -> None:
    for replica in (on_a_core(workload, MEASURED), behind_a_gpu(workload, served(CUDA))):
        for rate in (1e3, 1e5, 1e7):
            made = fleet(workload, replica, rate)
            assert (made.replicas - 1) * replica.items * SHARE >= rate
            assert made.replicas - 1 == max(LEAST, math.ceil(rate / replica.items / SHARE))


def test_a_replica_behind_a_gpu_bears_what_its_best_load_got() -> None:
    row = {"model": "mlp", "items": 64, "observations": "float32", "precision": "float32"}
    row |= {"runs": "captured", "processes": 1, "server_cpu_us": 640.0, "gpu_busy_percent": 20.0}
    rows = [row | {"items_per_second": rate} for rate in (50_000.0, 100_000.0)]
    rows += [row | {"runs": "plain", "items_per_second": 150_000.0}]
    rows += [row | {"items": 1, "items_per_second": 150_000.0}]
    rows += [row | {"processes": 4, "items_per_second": 150_000.0}]
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
    cost = MEASURED.cost()
    [trigger] = one(render("overlays/gpu"), "ScaledObject")["spec"]["triggers"]
    waiting = simulate(cost, SHARE * cost.most()).waiting
    assert round(waiting) == int(trigger["metadata"]["threshold"])
