"""Decode through the service on a device, and the share of time that a GPU is busy meanwhile."""

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from benchmarks.gpu import Reading, busy, watched_gpu
from benchmarks.load import Load, run_load
from benchmarks.messages import decode, decode_uint8
from benchmarks.models import MODELS
from benchmarks.servers import Server


@dataclass(frozen=True)
class Served:
    """Decode through the service. runs: its --cuda-runs. observations: their type in the answers.

    gpu_busy_percent: see `benchmarks.gpu`; None in a rehearsal.
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


def measure(
    server: Server,
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
                    warmup=warmup,
                    duration=duration,
                    watch=server.pid,
                )
                with _watched(on_cuda) as readings:
                    report = run_load(server.target, make(model, items), load)
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
                )


def table(rows: Sequence[Served]) -> str:
    """A line for each load."""
    lines = [
        "| model | graphs, answers | runs | items x callers | requests/s | items/s | p50 ms | "
        "p99 ms | server CPU us | GPU busy % | errors |",
        "| --- " * 11 + "|",
    ]
    for row in rows:
        numbers = (row.requests_per_second, row.items_per_second)
        rest = (row.p50_ms, row.p99_ms, row.server_cpu_us, row.gpu_busy_percent)
        cells = [
            row.model,
            f"{row.precision}, {row.observations}",
            row.runs,
            f"{row.items} x {row.callers}",
            *(f"{number:,.0f}" for number in numbers),
            *("" if number is None else f"{number:,.2f}" for number in rest),
            str(sum(row.errors.values())),
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _watched(on_cuda: bool) -> contextlib.AbstractContextManager[list[Reading]]:
    return watched_gpu() if on_cuda else contextlib.nullcontext([])
