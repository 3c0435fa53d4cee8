"""Writes the tables of docs/capacity.md from what `make bench` and `benchmarks cuda` measured.

    python -m scripts.capacity [GOALS.json [CUDA.json [ARRIVALS.json]]]

A fleet is sized by CPU time per item, or by the items/s behind a GPU, which were measured; how
full a replica may run comes from a simulation of its queue (scripts/queues.py), which
scripts/arrivals.py holds against what was measured.
"""

import json
import math
import statistics
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scripts.arrivals import Arrivals, table
from scripts.queues import BATCH, BatchCost, simulate

ROOT = Path(__file__).parent.parent
RESULT = ROOT / "benchmarks" / "results" / "2026-11-27-goals.json"
CUDA = ROOT / "benchmarks" / "results" / "2026-11-26-cuda.json"
ARRIVALS = ROOT / "benchmarks" / "results" / "2026-11-26-arrivals.json"
PAGE = ROOT / "docs" / "capacity.md"
START, END = "<!-- capacity -->", "<!-- end of capacity -->"

SHARE = 0.7  # of what a replica can bear, at the peak
LEAST = 3  # replicas, one for each zone
MANY = 1000  # replicas that no client should hold a connection to each of
RATES = (1_000, 100_000, 10_000_000)
_SUBJECT = ("service", "Decode", "load")  # of the results, what is used here
_CPU = "server CPU us/request"


@dataclass(frozen=True)
class Workload:
    """A way to ask for decoded items. load: its name in the results; the bytes are of one item."""

    title: str
    model: str
    load: str
    items: int
    bytes_in: int
    bytes_out: int
    observations: str = "float32"


@dataclass(frozen=True)
class Node:
    """A machine: how many replicas it holds, and its network in Gbit/s."""

    replicas: int
    gbits: float


CORES, GPUS = Node(16, 25.0), Node(8, 100.0)
_DENSE, _CONV = 28 * 28, 64 * 64 * 3
WORKLOADS = (
    Workload("dense, one item a request", "mlp", "64 callers", 1, 80, 4 * _DENSE),
    Workload("dense, 64 items", "mlp", "64-item requests", 64, 80, 4 * _DENSE),
    Workload("dense, 64 items, uint8", "mlp", "64-item requests, uint8", 64, 80, _DENSE, "uint8"),
    Workload("convolutions, one item a request", "conv", "128 callers", 1, 256, 4 * _CONV),
    Workload("convolutions, 64 items", "conv", "64-item requests", 64, 256, 4 * _CONV),
    Workload(
        "convolutions, 64 items, uint8", "conv", "64-item requests, uint8", 64, 256, _CONV, "uint8"
    ),
)


class Measured:
    """The rounds of the service's Decode in a file of benchmarks/results/."""

    def __init__(self, path: Path) -> None:
        self._rounds: dict[tuple[str, str], list[Mapping[str, float]]] = {}
        for entry in json.loads(path.read_text())["rounds"]:
            subject = entry["subject"]
            if (subject["server"], subject["api"], subject["client"]) == _SUBJECT:
                rounds = self._rounds.setdefault((subject["model"], subject["load"]), [])
                rounds.append(entry["metrics"])

    def cpu(self, model: str, load: str) -> float:
        """The service's microseconds of CPU for a request: the median of the rounds.

        Raises KeyError for a load that was not measured.
        """
        return statistics.median(each[_CPU] for each in self._rounds[model, load])

    def cost(self) -> BatchCost:
        """Of the dense model, with one caller (batches of 1) and with 64 (batches of 64)."""
        return BatchCost.of(self.cpu("mlp", "1 callers"), self.cpu("mlp", f"{BATCH} callers"))


@dataclass(frozen=True)
class Replica:
    """What one replica bears, in items/s, and what an item takes of it.

    cpu, gpu: microseconds; of the GPU it is the time in which any kernel runs. node: where replicas
    stand; on GPUS each has a GPU of its own.
    """

    items: float
    cpu: float
    gpu: float
    node: Node

    @property
    def limit(self) -> str:
        """What it is that a full one has none left of."""
        return "GPU" if self.gpu > self.cpu else "CPU"


def on_a_core(workload: Workload, measured: Measured) -> Replica:
    """As many items as there is CPU time for."""
    cpu = measured.cpu(workload.model, workload.load) / workload.items
    return Replica(1e6 / cpu, cpu, 0.0, CORES)


def behind_a_gpu(workload: Workload, rows: Sequence[Mapping[str, Any]]) -> Replica:
    """As many items as the best load of the workload's kind got through one process; rows are
    those of the service in a result of `python -m benchmarks cuda`."""
    wanted = (workload.model, workload.items, workload.observations, "float32", "captured", 1)
    names = ("model", "items", "observations", "precision", "runs", "processes")
    best = max(
        (row for row in rows if tuple(row[name] for name in names) == wanted),
        key=lambda row: float(row["items_per_second"]),
    )
    items = float(best["items_per_second"])
    gpu = 1e4 * best["gpu_busy_percent"] / items
    return Replica(items, best["server_cpu_us"] / workload.items, gpu, GPUS)


@dataclass(frozen=True)
class Fleet:
    """What it takes to decode `rate` items a second. Bandwidth is of the answers, in Gbit/s."""

    replicas: int
    nodes: int
    gbits: float
    node_gbits: float
    bottleneck: str


def fleet(workload: Workload, replica: Replica, rate: float) -> Fleet:
    """Replicas at SHARE of their limit, and one more that may be away."""
    replicas = max(LEAST, math.ceil(rate / replica.items / SHARE)) + 1
    gbits = rate * workload.bytes_out * 8 / 1e9
    node = replica.node
    node_gbits = gbits / replicas * min(replicas, node.replicas)
    if node_gbits > node.gbits:
        bottleneck = "network of a node"
    elif replicas > MANY:
        bottleneck = "connections"
    else:
        bottleneck = "none" if replicas == LEAST + 1 else replica.limit
    return Fleet(replicas, math.ceil(replicas / node.replicas), gbits, node_gbits, bottleneck)


def tables(measured: Measured, cuda: Sequence[Mapping[str, Any]], arrivals: Arrivals) -> str:
    """All tables of the page."""
    ways = [
        (workload, on_a_core(workload, measured), behind_a_gpu(workload, cuda))
        for workload in WORKLOADS
    ]
    parts = [_cores(ways), _gpus(ways), _queues(measured), table(arrivals), _fleets(ways)]
    return "\n\n".join("\n".join(part) for part in parts)


def _cores(ways: Sequence[tuple[Workload, Replica, Replica]]) -> Iterator[str]:
    yield "| workload | CPU, us/item | core hours for 10^9 items | answers, TB for 10^9 items |"
    yield "| --- " * 4 + "|"
    for workload, core, _ in ways:
        hours, terabytes = _hours(core), workload.bytes_out * 1e9 / 1e12
        yield f"| {workload.title} | {core.cpu:,.1f} | {hours:,.1f} | {terabytes:,.1f} |"


def _gpus(ways: Sequence[tuple[Workload, Replica, Replica]]) -> Iterator[str]:
    yield "| behind a GPU | items/s | CPU, us/item | GPU, us/item | hours for 10^9 items | cores |"
    yield "| --- " * 6 + "|"
    for workload, core, gpu in ways:
        costs = f"{gpu.items:,.0f} | {gpu.cpu:,.1f} | {gpu.gpu:,.1f} | {_hours(gpu):,.1f}"
        yield f"| {workload.title} | {costs} | {gpu.items / core.items:,.1f} |"


def _hours(replica: Replica) -> float:
    """Of a replica, for 10^9 items."""
    return 1e9 / replica.items / 3600


def _queues(measured: Measured) -> Iterator[str]:
    cost = measured.cost()
    yield f"A batch of n requests costs {cost.fixed:.0f} + {cost.each:.1f} n us of CPU, so a"
    yield f"replica bears {cost.most():,.0f} requests a second:"
    yield ""
    yield "| share of the most | requests/s of a replica | p50, ms | p99, ms | CPU busy | waiting |"
    yield "| --- " * 6 + "|"
    for share in (0.1, 0.3, 0.5, 0.7, 0.8, 0.9, 0.95):
        rate = share * cost.most()
        queue = simulate(cost, rate)
        numbers = f"{queue.p50:.1f} | {queue.p99:.1f} | {queue.busy:.2f} | {queue.waiting:.1f}"
        yield f"| {share:.2f} | {rate:,.0f} | {numbers} |"


def _fleets(ways: Sequence[tuple[Workload, Replica, Replica]]) -> Iterator[str]:
    each = "nodes | Gbit/s of one | first limit"
    yield f"| items/s | workload | Gbit/s | cores | {each} | GPUs | {each} |"
    yield "| --- " * 11 + "|"
    for rate in RATES:
        for workload, *replicas in ways:
            made = [fleet(workload, replica, rate) for replica in replicas]
            cells = [
                f"{one.replicas:,} | {one.nodes:,} | {one.node_gbits:.1f} | {one.bottleneck}"
                for one in made
            ]
            yield f"| {rate:,} | {workload.title} | {made[0].gbits:,.1f} | {' | '.join(cells)} |"


def page(
    text: str, measured: Measured, cuda: Sequence[Mapping[str, Any]], arrivals: Arrivals
) -> str:
    """The page with its tables made anew."""
    before, rest = text.split(START)
    made = tables(measured, cuda, arrivals)
    return f"{before}{START}\n{made}\n{END}{rest.split(END)[1]}"


def served(path: Path) -> list[Mapping[str, Any]]:
    """What went through the service, of a result of `python -m benchmarks cuda`."""
    rows: list[Mapping[str, Any]] = json.loads(path.read_text())["service"]
    return rows


def main(arguments: list[str]) -> int:
    """Writes the page."""
    defaults = (RESULT, CUDA, ARRIVALS)
    goals, cuda, arrivals = (*map(Path, arguments), *defaults[len(arguments) :])
    PAGE.write_text(page(PAGE.read_text(), Measured(goals), served(cuda), Arrivals(arrivals)))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
