"""CPU time and memory, from a /proc that a test wrote and from this process."""

import os
from pathlib import Path

import pytest

from benchmarks.processes import cost_per_event, cpu_seconds, family, resident_bytes

TICKS = os.sysconf("SC_CLK_TCK")


@pytest.fixture
def proc(tmp_path: Path) -> Path:
    """1 has the child 20, which has the child 300; 4 has none of them. Each used 2 s and 1 s."""
    for pid, parent in ((300, 20), (1, 0), (20, 1), (4, 0)):
        folder = tmp_path / str(pid)
        folder.mkdir()
        fields = ["S", parent, *["0"] * 9, 2 * TICKS, 1 * TICKS, 0, 0]
        (folder / "stat").write_text(f"{pid} (a) b) " + " ".join(map(str, fields)))
        (folder / "smaps_rollup").write_text(
            "00-ff rollup\nRss: 90 kB\nPss: 40 kB\nPss_Anon: 9 kB\n"
        )
    (tmp_path / "version").write_text("")
    return tmp_path


def test_a_family_is_a_process_and_its_descendants(proc: Path) -> None:
    assert family(1, proc) == [1, 20, 300]
    assert family(4, proc) == [4]


def test_a_process_that_has_ended_is_an_error(proc: Path) -> None:
    with pytest.raises(ProcessLookupError, match="5 has ended"):
        family(5, proc)
    with pytest.raises(ProcessLookupError, match="5 has ended"):
        cpu_seconds([1, 5], proc)


def test_cpu_time_and_memory_add_up(proc: Path) -> None:
    assert cpu_seconds([1, 20, 300], proc) == pytest.approx(9.0)
    assert resident_bytes([1, 20], proc) == 80 * 1024
    assert resident_bytes([], proc) == 0


def test_this_process_has_used_something() -> None:
    assert os.getpid() in family(os.getpid())
    assert cpu_seconds([os.getpid()]) > 0
    assert resident_bytes([os.getpid()]) > 2**20


def test_the_cost_of_an_event_counts_between_the_samples_that_lie_among_events() -> None:
    """The counter grows by 0.5 a time unit; two events come in each."""
    samples = [(time, time / 2) for time in range(0, 1000, 10)]
    events = sorted([*range(200, 600), *range(200, 600)])

    assert cost_per_event(samples, events) == pytest.approx(0.25, rel=0.01)


@pytest.mark.parametrize(("samples", "events"), [([], [1, 2]), ([(1, 1.0), (9, 2.0)], [1, 2])])
def test_too_few_samples_have_no_cost(samples: list[tuple[int, float]], events: list[int]) -> None:
    assert cost_per_event(samples, events) is None
    assert cost_per_event(samples, []) is None
