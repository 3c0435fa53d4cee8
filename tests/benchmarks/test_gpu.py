"""What nvidia-smi says, and what stands in for it here."""

import sys

import pytest

from benchmarks.errors import BenchmarkError
from benchmarks.gpu import Reading, busy, parse, read_gpu, watched_gpu

LINE = "NVIDIA H100 80GB HBM3, 580.159.04, 81559, 1024, 37"
READING = Reading("NVIDIA H100 80GB HBM3", "580.159.04", 81559.0, 1024.0, 37.0)


def saying(code: str) -> list[str]:
    """A program in the place of nvidia-smi."""
    return [sys.executable, "-c", code]


def test_a_line_is_a_reading() -> None:
    assert parse(LINE + "\n") == READING


@pytest.mark.parametrize("line", ["", "No devices were found", "a, b, c, d, e", LINE + ", 1"])
def test_another_line_is_refused(line: str) -> None:
    with pytest.raises(BenchmarkError, match="expected five values"):
        parse(line)


def test_the_gpu_is_read_through_the_drivers_tool() -> None:
    assert read_gpu(saying(f"print({LINE!r})")) == READING


def test_a_machine_without_the_tool_has_no_gpu() -> None:
    with pytest.raises(BenchmarkError, match="this machine has no NVIDIA GPU: there is no nvidia-"):
        read_gpu(["no-such-tool-anywhere"])


def test_a_tool_that_finds_no_device_is_quoted() -> None:
    with pytest.raises(BenchmarkError, match="nvidia-smi said 'No devices were found'"):
        read_gpu(saying("print('No devices were found'); raise SystemExit(6)"))


def test_a_gpu_is_watched_while_a_block_runs_and_a_cut_line_left_out() -> None:
    code = (
        f"print({LINE!r}); print('NVIDIA H1', end='', flush=True); import sys; sys.stdout.close()"
    )
    with watched_gpu(saying(code)) as readings:
        pass
    assert set(readings) <= {READING}


def test_busy_is_the_median_share_and_nothing_without_readings() -> None:
    shares = [Reading("", "", 1, 1, share) for share in (0.0, 90.0, 80.0)]
    assert busy(shares) == 80
    assert busy([]) is None
