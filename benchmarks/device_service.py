"""Decode through the service on a device, and the share of time that a GPU is busy meanwhile."""

import contextlib
import statistics
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

from benchmarks.gpu import Reading, busy, watched_gpu
from benchmarks.load import Load, LoadReport, run_load
from benchmarks.messages import decode, decode_uint8
from benchmarks.models import MODELS
from benchmarks.servers import Server

_CONNECTIONS = 16  # of a generator, so that the kernel gives every process some


@dataclass(frozen=True)
class Served:
    """Decode through the service. runs: its --cuda-runs. observations: their type in the answers.

    Each of its processes has a load generator of its own with so many callers; the latencies are
    those of the slowest. gpu_busy_percent: see `benchmarks.gpu`; None in a rehearsal.
    """

    model: str
    precision: str
    runs: str
    observations: str
    items: int
    callers: int
    requests_per_second: float
    items_per_second: float
    p50_ms: float | None
    p99_ms: float | None
    server_cpu_us: float | None
    gpu_busy_percent: float | None
    errors: dict[str, int]
    processes: int = 1


def measure(
    server: Server,
    processes: int,
    precision: str,
    runs: str,
    loads: Sequence[tuple[int, int]],
    warmup: float,
    duration: float,
    on_cuda: bool,
) -> Iterator[Served]:
    """Every model and type of answers under loads, which are items of a request and callers."""
    for model in MODELS:
        for observations, make in (("float32", decode), ("uint8", decode_uint8)):
            for items, callers in loads:
                load = Load(
                    concurrency=callers,
                    connections=_CONNECTIONS if processes > 1 else 1,
                    warmup=warmup,
                    duration=duration,
                    watch=server.pid,
                )
                method = make(model, items)
                with _watched(on_cuda) as readings, ThreadPoolExecutor(processes) as pool:
                    loads_run = [
                        pool.submit(run_load, server.target, method, load) for _ in range(processes)
                    ]
                    report = together([each.result() for each in loads_run])
                yield Served(
                    model.name,
                    precision,
                    runs,
                    observations,
                    items,
                    callers,
                    report.requests_per_second,
                    report.requests_per_second * items,
                    report.p50_ms,
                    report.p99_ms,
                    report.server_cpu_us,
                    busy(readings),
                    report.errors,
                    processes,
                )


def together(reports: Sequence[LoadReport]) -> LoadReport:
    """What generators saw that loaded one server at the same time, each of which watched it."""
    first = reports[0]
    if len(reports) == 1:
        return first
    requests = sum(report.requests for report in reports)
    errors = sum((Counter(report.errors) for report in reports), Counter[str]())
    cpu = [report.server_cpu_us * report.requests for report in reports if report.server_cpu_us]
    return replace(
        first,
        requests=requests,
        errors=dict(errors),
        requests_per_second=sum(report.requests_per_second for report in reports),
        p50_ms=_slowest([report.p50_ms for report in reports]),
        p99_ms=_slowest([report.p99_ms for report in reports]),
        server_cpu_us=statistics.mean(cpu) / requests if cpu else None,
    )


def _slowest(latencies: Sequence[float | None]) -> float | None:
    return max((value for value in latencies if value is not None), default=None)


def table(rows: Sequence[Served]) -> str:
    """A line for each load."""
    lines = [
        "| model | graphs, answers | runs | processes | items x callers | requests/s | items/s | "
        "p50 ms | p99 ms | server CPU us | GPU busy % | errors |",
        "| --- " * 12 + "|",
    ]
    for row in rows:
        numbers = (row.requests_per_second, row.items_per_second)
        rest = (row.p50_ms, row.p99_ms, row.server_cpu_us, row.gpu_busy_percent)
        cells = [
            row.model,
            f"{row.precision}, {row.observations}",
            row.runs,
            str(row.processes),
            f"{row.items} x {row.callers}" + f", {row.processes} times" * (row.processes > 1),
            *(f"{number:,.0f}" for number in numbers),
            *("" if number is None else f"{number:,.2f}" for number in rest),
            str(sum(row.errors.values())),
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _watched(on_cuda: bool) -> contextlib.AbstractContextManager[list[Reading]]:
    return watched_gpu() if on_cuda else contextlib.nullcontext([])
