"""How rounds become one table."""

import pytest

from benchmarks.records import Record, Subject, comparisons, medians, table

OURS = Subject("1 one item", "mlp", "64 callers", "load", "service", "Decode")
TRITON = Subject("1 one item", "mlp", "64 callers", "load", "triton", "ModelInfer")
OTHER_CLIENT = Subject("1 one item", "mlp", "64 callers", "perf_analyzer", "triton", "ModelInfer")
LOOP = Subject("1 one item", "mlp", "64 callers", "loop", "onnxruntime")


def rounds(subject: Subject, metric: str, *values: float) -> list[Record]:
    return [Record(subject, number, {metric: value}, {}) for number, value in enumerate(values)]


def test_a_number_is_the_median_of_its_rounds() -> None:
    assert medians(rounds(OURS, "p50 ms", 3.0, 1.0, 2.0)) == {OURS: {"p50 ms": 2.0}}


def test_a_ratio_is_the_median_of_the_ratios_of_the_rounds() -> None:
    """The machine was half as fast in the second round: for both."""
    records = rounds(OURS, "requests/s", 80, 50, 90) + rounds(TRITON, "requests/s", 100, 50, 100)

    (line,) = comparisons(records)

    assert (line.ours, line.theirs) == (80, 100)
    assert line.ratio == pytest.approx(0.9)
    assert line.ratios == pytest.approx((0.8, 0.9, 1.0))


def test_what_another_client_saw_is_not_compared_but_onnxruntime_alone_is() -> None:
    records = [
        *rounds(OURS, "items/s", 10),
        *rounds(OTHER_CLIENT, "items/s", 20),
        *rounds(LOOP, "items/s", 40),
    ]

    (line,) = comparisons(records)

    assert line.peer is LOOP
    assert line.ratio == 0.25


def test_what_may_be_negative_has_no_ratio() -> None:
    records = rounds(OURS, "growth MiB", 3.0) + rounds(TRITON, "growth MiB", -1.0)

    (line,) = comparisons(records)

    assert line.ratio is None


def test_rounds_that_only_one_side_has_are_left_out_of_the_ratio() -> None:
    records = rounds(OURS, "requests/s", 80, 70) + rounds(TRITON, "requests/s", 100)

    (line,) = comparisons(records)

    assert line.ratios == (0.8,)


def test_the_table_has_a_line_for_each_comparison() -> None:
    text = table(comparisons(rounds(OURS, "p99 ms", 2) + rounds(TRITON, "p99 ms", 4)))

    head, line = text.splitlines()
    assert head.split()[0] == "goal"
    assert "p99 ms, less is better" in line
    assert line.split()[-5:] == ["2.00", "4.00", "triton", "0.50", "0.50-0.50"]
