"""The bound of the latency under overload."""

import pytest

from benchmarks.load import LoadReport
from benchmarks.overload import latency_bound, longest_run
from benchmarks.records import Subject
from benchmarks.scenarios import record_of

METRICS = """# TYPE vae_batch_duration_seconds histogram
vae_batch_duration_seconds_bucket{graph="decoder",le="0.025",model="conv"} 3.0
vae_batch_duration_seconds_bucket{graph="decoder",le="0.05",model="conv"} 9.0
vae_batch_duration_seconds_bucket{graph="decoder",le="0.1",model="conv"} 9.0
vae_batch_duration_seconds_bucket{graph="decoder",le="+Inf",model="conv"} 9.0
vae_batch_duration_seconds_bucket{graph="decoder",le="+Inf",model="mlp"} 99.0
"""


def test_the_longest_run_is_rounded_up_to_a_bucket() -> None:
    assert longest_run(METRICS) == 0.05


def test_the_bound_is_that_of_the_batchers_docstring() -> None:
    # D + R + ceil(C / B) R + ceil(1 / B) R + R
    assert latency_bound(0.05, 64, 0.01, queue_items=130) == pytest.approx(0.01 + 6 * 0.05)
    assert latency_bound(0.05, 16, 0.01, queue_items=130) == pytest.approx(0.01 + 12 * 0.05)


def test_a_refusal_is_a_figure_and_no_error() -> None:
    report = LoadReport(
        requests=10,
        errors={"REFUSED_STREAM": 1, "RESOURCE_EXHAUSTED": 2, "INTERNAL": 3},
        seconds=1.0,
        requests_per_second=4.0,
        p50_ms=1.0,
        p90_ms=1.0,
        p99_ms=1.0,
        max_ms=1.0,
        lag_p99_ms=0.1,
        refused_p99_ms=2.0,
        client_cpu_us=1.0,
    )

    record = record_of(Subject("1", "mlp", "", "load", "service"), 0, 1, report)

    assert record.errors == {"INTERNAL": 3}
    assert record.metrics["refused %"] == 30
    assert record.metrics["refused p99 ms"] == 2.0
