"""What a process more adds, by measured costs and simulated connections."""

import pytest

from benchmarks.records import Record, Subject
from benchmarks.scale import ScalePlan, connections_needed, cost_ratios, report, simulate


def records(goal: str, one: list[float], two: list[float]) -> list[Record]:
    return [
        Record(
            Subject(goal, "mlp", "Poisson 1/s", "load", server, "Decode"),
            number,
            {"server CPU us/request": cost},
            {},
        )
        for server, costs in (("service", one), ("service, 2 processes", two))
        for number, cost in enumerate(costs)
    ]


def test_a_ratio_of_costs_is_the_median_of_those_of_the_rounds() -> None:
    (ratio,) = cost_ratios(records("4 scale, same load", [90, 10, 100], [100, 20, 100])).values()

    assert ratio == pytest.approx(0.9)


def test_with_many_connections_a_core_more_gives_what_its_cost_says() -> None:
    (law,) = simulate(0.9, [2], [2**17])

    assert law.fixed == pytest.approx(0.8, abs=0.02)  # 2 x 0.9 - 1
    assert law.waiting == pytest.approx(0.8)


def test_one_connection_reaches_one_process_only() -> None:
    (law,) = simulate(1.0, [8], [1])

    assert law.fixed == law.fixed_low == law.waiting == 0


def test_two_connections_reach_two_processes_half_the_time() -> None:
    (law,) = simulate(1.0, [2], [2])

    assert law.waiting == pytest.approx(0.5, abs=0.05)


def test_more_processes_need_more_connections_and_dear_ones_cannot_reach_the_goal() -> None:
    needed = [connections_needed(1.0, processes) for processes in (2, 8, 32)]

    assert needed == sorted(needed, key=lambda count: count or 0)
    assert connections_needed(0.8, 2) is None


def test_the_law_takes_the_worst_ratio_at_equal_load_of_each_and_nothing_above_one() -> None:
    equal = records("4 scale, same load of each process", [90], [100])
    thinned = records("4 scale, same load", [70], [100])

    _, about = report(ScalePlan(), equal + thinned)
    _, better = report(ScalePlan(), records("4 scale, same load of each process", [120], [100]))

    assert about["cost_ratio"] == pytest.approx(0.9)
    assert better["cost_ratio"] == 1.0
