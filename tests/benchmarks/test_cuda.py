"""Goal 7 where there is no GPU: what does not need one, on onnxruntime's CPU provider."""

from pathlib import Path

import pytest

from benchmarks import device_memory, device_service
from benchmarks.__main__ import main
from benchmarks.device_memory import Memory
from benchmarks.device_runs import (
    BOUND,
    CAPTURED,
    NO_COPIES,
    PAGEABLE,
    PLAIN,
    Latency,
    Make,
    measure,
    service_ways,
    table,
    timed,
    without_copies,
)
from benchmarks.device_service import Served
from benchmarks.load import LoadReport
from service.repository import Graph, read_version
from service.session import CPU, SessionOptions

BUCKETS = (1, 4)


@pytest.fixture(scope="module")
def decoder(digits_repository: Path) -> Graph:
    return read_version(digits_repository, "digits", 1).graphs["decoder"]


def test_every_way_runs_every_bucket(decoder: Graph) -> None:
    notes: list[str] = []
    ways = {
        **service_ways(decoder, SessionOptions(CPU, 1), BUCKETS),
        NO_COPIES: lambda: without_copies(decoder, CPU),
    }
    latencies = measure("digits", "decoder", ways, BUCKETS, 0.001, notes.append)
    assert notes == []
    assert [(latency.way, latency.items) for latency in latencies] == [
        (way, items) for way in (PLAIN, BOUND, CAPTURED, PAGEABLE, NO_COPIES) for items in BUCKETS
    ]
    assert all(0 < latency.p50_ms <= latency.p99_ms for latency in latencies)


def test_a_way_that_fails_ends_in_a_note_and_the_others_go_on() -> None:
    def broken() -> Make:
        raise RuntimeError("no kernel image")

    def works() -> Make:
        return lambda items: lambda: items

    notes: list[str] = []
    latencies = measure("mlp", "decoder", {"a": broken, "b": works}, (1,), 0.001, notes.append)
    assert [latency.way for latency in latencies] == ["b"]
    assert notes == ["mlp decoder, a: RuntimeError: no kernel image"]


def test_a_run_longer_than_its_time_is_measured_once() -> None:
    runs: list[int] = []
    assert timed(lambda: runs.append(0), 0.0)[0] > 0
    assert len(runs) == 2  # one to warm up


def test_latencies_are_a_line_for_each_bucket_with_a_column_for_each_way() -> None:
    rows = [
        Latency("mlp", "decoder, float32", "plain", 1, 0.25, 0.5),
        Latency("mlp", "decoder, float32", "plain", 64, 0.5, 0.5),
        Latency("mlp", "decoder, float32", "captured", 64, 0.125, 0.5),
    ]
    assert table(rows).splitlines()[2:] == [
        "| mlp | decoder, float32 | 1 | 0.250 |  |",
        "| mlp | decoder, float32 | 64 | 0.500 | 0.125 |",
    ]


@pytest.mark.parametrize(("busy", "cell"), [(37.0, "37.00"), (None, "")])
def test_loads_are_a_line_each(busy: float | None, cell: str) -> None:
    row = Served(
        "mlp",
        "float16",
        "captured",
        "uint8",
        64,
        4,
        100.0,
        6400.0,
        1.5,
        None,
        20.0,
        busy,
        {"INTERNAL": 2},
    )
    assert device_service.table([row]).splitlines()[-1] == (
        "| mlp | float16, uint8 | captured | 1 | 64 x 4 | 100 | 6,400 | 1.50 |  | 20.00 "
        f"| {cell} | 2 |"
    )


def test_generators_that_load_one_server_together_are_one_load() -> None:
    def report(requests: int, errors: dict[str, int], p99: float | None, cpu: float) -> LoadReport:
        return LoadReport(
            requests, errors, 2.0, requests / 2, 1.0, 1.0, p99, 9.0, None, None, 5.0, cpu
        )

    # The server used 0.006 s of CPU while each of them looked.
    few, many = report(100, {"INTERNAL": 1}, None, 60.0), report(300, {}, 4.0, 20.0)
    both = device_service.together([few, many])
    assert (both.requests, both.requests_per_second, both.errors) == (400, 200.0, {"INTERNAL": 1})
    assert (both.p50_ms, both.p99_ms, both.server_cpu_us) == (1.0, 4.0, 15.0)
    assert device_service.together([few]) == few


@pytest.mark.parametrize(
    ("device", "cells"), [((500.0, 500.5), "| 500 | 0.5 |"), (None, "|  |  |")]
)
def test_memory_is_a_line_for_each_model(device: tuple[float, float] | None, cells: str) -> None:
    row = Memory("conv", 100_000, device, (300.0, 299.0))
    assert device_memory.table([row]).splitlines()[-1] == f"| conv | 100,000 {cells} 299 | -1.0 |"


def test_without_a_gpu_it_says_so_in_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert main(["cuda", "--results", str(tmp_path)]) == 2
    error = "error: this machine has no NVIDIA GPU: there is no nvidia-smi\n"
    assert capsys.readouterr().err == error
    assert list(tmp_path.iterdir()) == []
