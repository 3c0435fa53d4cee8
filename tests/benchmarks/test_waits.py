"""How long processes wait for a core."""

import os
from pathlib import Path

import pytest

from benchmarks.waits import sample, since, waited


def _thread(proc: Path, name: str, nanoseconds: int) -> None:
    folder = proc / "7" / "task" / name
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "schedstat").write_text(f"123456 {nanoseconds} 42\n")


def test_what_the_threads_waited_is_added_up_and_read_anew(tmp_path: Path) -> None:
    _thread(tmp_path, "7", 1_500_000)
    _thread(tmp_path, "8", 500_000)

    with waited(7, tmp_path) as seconds:
        first = seconds()
        _thread(tmp_path, "8", 2_500_000)
        second = seconds()

    assert (first, second) == (pytest.approx(0.002), pytest.approx(0.004))


def test_a_process_that_is_there_can_be_asked() -> None:
    with waited(os.getpid()) as seconds:
        assert seconds() >= 0.0


def test_samples_are_taken_until_nothing_runs(tmp_path: Path) -> None:
    _thread(tmp_path, "7", 1_000_000)
    answers = iter([True, True, True, False])

    with waited(7, tmp_path) as seconds:
        samples = sample((seconds, seconds), lambda: next(answers), interval=0.0)

    assert [values for _, *values in samples] == [[0.001, 0.001]] * 3
    assert sorted(samples) == samples


def test_waits_count_from_the_beginning_and_short_ones_not_at_all() -> None:
    samples = [
        (9.0, 0.0, 0.0),
        (9.5, 1.0, 1.0),  # before the beginning
        (10.25, 1.5, 1.0),
        (10.5, 1.5, 1.00005),
        (10.75, 1.75, 2.0),
    ]

    service, generator = since(samples, begin=10.0, least=0.001)

    assert service == [[0.25, 0.5], [0.75, 0.25]]
    assert generator == [[0.75, 0.99995]]
