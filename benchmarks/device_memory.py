"""Memory of device and process while encoder and decoder alternate."""

import os
import random
from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.gpu import read_gpu
from benchmarks.processes import resident_bytes
from service.batching import BatchingOptions
from service.repository import ModelVersion
from service.session import SessionOptions
from service.warming import noise, warm_up

_MIB = 2**20


@dataclass(frozen=True)
class Memory:
    """MiB after a tenth of the batches, by which everything is allocated, and after all of them."""

    model: str
    batches: int
    device_mib: tuple[float, float] | None
    resident_mib: tuple[float, float]


def measure(
    version: ModelVersion,
    options: SessionOptions,
    buckets: tuple[int, ...],
    batches: int,
    on_cuda: bool,
) -> Memory:
    """Runs encoder and decoder in turns, in buckets drawn anew for every batch."""
    pair = {kind: version.graphs[kind] for kind in ("encoder", "decoder")}
    batching = BatchingOptions(buckets)
    runs = {
        kind: warm_up(version.name, {kind: graph}, options, batching, 1).runs[kind]
        for kind, graph in pair.items()
    }
    inputs = {
        (kind, items): noise(graph, items) for kind, graph in pair.items() for items in buckets
    }
    draws = random.Random(0)  # noqa: S311 - a schedule needs no cryptography

    def alternate(count: int) -> tuple[float, float]:
        for number in range(count):
            kind = ("encoder", "decoder")[number % 2]
            runs[kind](inputs[kind, draws.choice(buckets)])
        used = read_gpu().used_mib if on_cuda else 0.0
        return used, resident_bytes([os.getpid()]) / _MIB

    before = alternate(batches // 10)
    after = alternate(batches - batches // 10)
    device = (before[0], after[0]) if on_cuda else None
    return Memory(version.name, batches, device, (before[1], after[1]))


def table(rows: Sequence[Memory]) -> str:
    """A line for each model."""
    lines = ["| model | batches | GPU MiB | its growth | resident MiB | its growth |"]
    lines.append("| --- " * 6 + "|")
    for row in rows:
        pairs = [row.device_mib, row.resident_mib]
        shown = [
            cell
            for pair in pairs
            for cell in (
                ("", "") if pair is None else (f"{pair[1]:.0f}", f"{pair[1] - pair[0]:.1f}")
            )
        ]
        lines.append("| " + " | ".join([row.model, f"{row.batches:,}", *shown]) + " |")
    return "\n".join(lines)
