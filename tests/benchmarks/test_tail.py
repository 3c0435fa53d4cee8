"""Where slow requests spend their time."""

import pytest

from benchmarks.tail import Call, render, summary


def test_the_slowest_hundredth_is_taken_apart() -> None:
    quick = [Call(0.001, 0.0001, 0.0002)] * 198
    slow = [Call(0.1, 0.06, 0.01), Call(0.2, 0.1, 0.03)]

    tail = summary("a situation", [*slow, *quick], {0.001: 195.0, 0.25: 4.0, 0.5: 1.0}, streamed=7)

    assert (tail.calls, tail.streamed) == (200, 7)
    assert (tail.p50, tail.slowest) == (1.0, 200.0)
    assert (tail.queue, tail.run, tail.rest) == (80.0, 20.0, 50.0)
    assert tail.service == 250.0
    assert "queue 80.0, run 20.0, rest 50.0" in render(tail)


def test_replicas_that_answered_nothing_have_no_tail() -> None:
    with pytest.raises(ValueError, match="no calls"):
        summary("a situation", [Call(0.1, 0.0, 0.0)], {}, streamed=0)
