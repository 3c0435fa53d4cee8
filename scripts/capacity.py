"""Writes the tables of docs/capacity.md from what `make bench` measured.

    python -m scripts.capacity [RESULT.json]

A fleet is sized by CPU time per item, which was measured; how full a replica may run comes from a
simulation of its queue. The same measurements check that; latencies by simulating their generator.
"""

import bisect
import json
import math
import statistics
import sys
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parent.parent
RESULT = ROOT / "benchmarks" / "results" / "2026-11-26-goals.json"
PAGE = ROOT / "docs" / "capacity.md"
START, END = "<!-- capacity -->", "<!-- end of capacity -->"

SHARE = 0.7  # of what a replica can bear, at the peak
LEAST = 3  # replicas, one for each zone
BATCH = 64
NODE_CORES = 16
NODE_GBITS = 25.0
MANY = 1000  # replicas that no client should hold a connection to each of
RATES = (1_000, 100_000, 10_000_000)
_REQUESTS = 200_000
_SEEN = 50_000
_SUBJECT = ("service", "Decode", "load")  # of the results, what is used here
_CPU, _CLIENT_CPU = "server CPU us/request", "client CPU us/request"
_P50, _P99, _LAG = "p50 ms", "p99 ms", "generator lag p99 ms"


@dataclass(frozen=True)
class Workload:
    """A way to ask for decoded items. load: its name in the results; the bytes are of one item."""

    title: str
    model: str
    load: str
    items: int
    bytes_in: int
    bytes_out: int


_DENSE, _CONV = 28 * 28, 64 * 64 * 3
WORKLOADS = (
    Workload("dense, one item a request", "mlp", "64 callers", 1, 80, 4 * _DENSE),
    Workload("dense, 64 items", "mlp", "64-item requests", 64, 80, 4 * _DENSE),
    Workload("dense, 64 items, uint8", "mlp", "64-item requests, uint8", 64, 80, _DENSE),
    Workload("convolutions, one item a request", "conv", "128 callers", 1, 256, 4 * _CONV),
    Workload("convolutions, 64 items", "conv", "64-item requests", 64, 256, 4 * _CONV),
    Workload("convolutions, 64 items, uint8", "conv", "64-item requests, uint8", 64, 256, _CONV),
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

    def rounds(self, model: str, load: str) -> list[Mapping[str, float]]:
        """What each round measured of a model. Raises KeyError for a load that was not."""
        return self._rounds[model, load]

    def cpu(self, model: str, load: str, whose: str = _CPU) -> float:
        """Microseconds of CPU for a request, the service's or the generator's: the median."""
        return statistics.median(each[whose] for each in self.rounds(model, load))

    def open_loop(self) -> tuple[str, float]:
        """The load of Poisson arrivals at the dense model, and how many came a second."""
        [load] = (load for model, load in self._rounds if (model, load[:8]) == ("mlp", "Poisson "))
        return load, float(load.split()[1].removesuffix("/s").replace(",", ""))


@dataclass(frozen=True)
class BatchCost:
    """CPU microseconds of a batch of n one-item requests: fixed + each * n."""

    fixed: float
    each: float

    @classmethod
    def of(cls, measured: Measured, whose: str = _CPU) -> "BatchCost":
        """From the dense model with one caller (batches of 1) and with 64 (batches of 64)."""
        one = measured.cpu("mlp", "1 callers", whose)
        full = measured.cpu("mlp", "64 callers", whose) * BATCH
        each = (full - one) / (BATCH - 1)
        return cls(one - each, each)

    def batch(self, requests: int) -> float:
        """Microseconds of a batch."""
        return self.fixed + self.each * requests

    def most(self) -> float:
        """Requests a second that a replica can bear."""
        return BATCH / self.batch(BATCH) * 1e6


@dataclass(frozen=True)
class Queue:
    """What a simulated replica does.

    p50, p99: latencies in ms. cpu: microseconds a request. busy: share of the time. waiting: mean
    requests that wait for their batch.
    """

    p50: float
    p99: float
    cpu: float
    busy: float
    waiting: float


def simulate(cost: BatchCost, rate: float, requests: int = _REQUESTS, seed: int = 0) -> Queue:
    """One replica with delay 0 and Poisson arrivals: an idle one takes whatever waits, up to 64."""
    arrivals = np.cumsum(np.random.default_rng(seed).exponential(1e6 / rate, requests))
    latencies = np.empty(requests)
    busy = free = waited = 0.0
    first = 0
    while first < requests:
        start = max(free, arrivals[first])
        waiting = int(np.searchsorted(arrivals, start, "right"))
        last = min(waiting, first + BATCH)
        took = cost.batch(last - first)
        busy += took
        free = start + took
        waited += float((start - arrivals[first:last]).sum())
        latencies[first:last] = free - arrivals[first:last]
        first = last
    p50, p99 = np.percentile(latencies, (50, 99)) / 1000
    return Queue(float(p50), float(p99), busy / requests, busy / free, waited / free)


@dataclass(frozen=True)
class Seen:
    """What a simulated load generator sees: latencies, and how late it is itself (99 %), in ms."""

    p50: float
    p99: float
    lag: float


def observe(
    cost: BatchCost, generator: BatchCost, rate: float, requests: int = _SEEN, seed: int = 0
) -> Seen:
    """The same replica as a generator with a core of its own sees it (benchmarks.loops.open_loop).

    It is a queue too: it sends what is due at once and takes what has been answered at once, half
    of its cost for each, and cannot send while it takes. Latencies count from when a call was due.
    """
    due = np.cumsum(np.random.default_rng(seed).exponential(1e6 / rate, requests)).tolist()
    latencies: list[float] = []
    lags: list[float] = []
    sent: deque[tuple[float, float]] = deque()  # when it was sent, and due
    done: deque[tuple[float, list[float]]] = deque()  # when a batch ends, and its calls were due
    now = free = 0.0
    first = 0
    while len(latencies) < requests:
        last = bisect.bisect_right(due, now, first)
        if last > first:
            lags += [now - moment for moment in due[first:last]]
            now += generator.batch(last - first) / 2
            sent += [(now, moment) for moment in due[first:last]]
            first = last
        while sent and (start := max(free, sent[0][0])) <= now:
            batch = [sent.popleft()[1]]
            while sent and sent[0][0] <= start and len(batch) < BATCH:
                batch.append(sent.popleft()[1])
            free = start + cost.batch(len(batch))
            done.append((free, batch))
        next_due = due[first] if first < requests else math.inf
        now = max(now, min(next_due, done[0][0] if done else math.inf))
        answered: list[float] = []
        while done and done[0][0] <= now:
            answered += done.popleft()[1]
        if answered:
            now += generator.batch(len(answered)) / 2
            latencies += [now - moment for moment in answered]
    p50, p99 = np.percentile(latencies, (50, 99)) / 1000
    return Seen(float(p50), float(p99), float(np.percentile(lags, 99)) / 1000)


@dataclass(frozen=True)
class Fleet:
    """What it takes to decode `rate` items a second. Bandwidth is of the answers, in Gbit/s."""

    replicas: int
    nodes: int
    gbits: float
    node_gbits: float

    @property
    def bottleneck(self) -> str:
        """What to look at first when more is asked."""
        if self.node_gbits > NODE_GBITS:
            return "network of a node"
        if self.replicas > MANY:
            return "connections of each client"
        return "none: the least fleet" if self.replicas == LEAST + 1 else "CPU"


def fleet(workload: Workload, measured: Measured, rate: float) -> Fleet:
    """Cores at SHARE of their limit, one replica a core, and one more that may be away."""
    cores = rate * measured.cpu(workload.model, workload.load) / workload.items / 1e6
    replicas = max(LEAST, math.ceil(cores / SHARE)) + 1
    gbits = rate * workload.bytes_out * 8 / 1e9
    nodes = math.ceil(replicas / NODE_CORES)
    return Fleet(replicas, nodes, gbits, gbits / replicas * min(replicas, NODE_CORES))


def tables(measured: Measured) -> str:
    """All tables of the page."""
    return "\n".join([*_costs(measured), "", *_queues(measured), "", *_fleets(measured)])


def _costs(measured: Measured) -> Iterator[str]:
    yield "| workload | CPU, us/item | core hours for 10^9 items | answers, TB for 10^9 items |"
    yield "| --- | --- | --- | --- |"
    for workload in WORKLOADS:
        cpu = measured.cpu(workload.model, workload.load) / workload.items
        hours, terabytes = cpu * 1e9 / 1e6 / 3600, workload.bytes_out * 1e9 / 1e12
        yield f"| {workload.title} | {cpu:,.1f} | {hours:,.1f} | {terabytes:,.1f} |"


def _queues(measured: Measured) -> Iterator[str]:
    cost = BatchCost.of(measured)
    load, rate = measured.open_loop()
    alone = simulate(cost, rate)
    law = f"{cost.fixed:.0f} + {cost.each:.1f} n us of CPU"
    yield f"A batch of n requests costs {law}, so a replica bears {cost.most():,.0f}"
    yield "requests a second. What that says of loads that it was not made from, in us of CPU for a"
    yield "request:"
    yield ""
    yield "| load | said | measured |"
    yield "| --- | --- | --- |"
    yield f"| 16 callers | {cost.batch(16) / 16:.0f} | {measured.cpu('mlp', '16 callers'):.0f} |"
    yield f"| {load} | {alone.cpu:.0f} | {measured.cpu('mlp', load):.0f} |"
    yield ""
    yield f"And of latencies under {load}, where the load generator is a queue as well:"
    yield ""
    yield "| | generator late by (p99), ms | p50, ms | p99, ms |"
    yield "| --- | --- | --- | --- |"
    seen = observe(cost, BatchCost.of(measured, _CLIENT_CPU), rate)
    yield f"| said of the service alone | | {alone.p50:.2f} | {alone.p99:.2f} |"
    yield f"| said with the generator | {seen.lag:.2f} | {seen.p50:.2f} | {seen.p99:.2f} |"
    for each in sorted(measured.rounds("mlp", load), key=lambda each: each[_LAG]):
        yield f"| measured, a round | {each[_LAG]:.2f} | {each[_P50]:.2f} | {each[_P99]:.2f} |"
    yield ""
    yield "| share of the most | requests/s of a replica | p50, ms | p99, ms | CPU busy | waiting |"
    yield "| --- | --- | --- | --- | --- | --- |"
    for share in (0.1, 0.3, 0.5, 0.7, 0.8, 0.9, 0.95):
        rate = share * cost.most()
        queue = simulate(cost, rate)
        numbers = f"{queue.p50:.1f} | {queue.p99:.1f} | {queue.busy:.2f} | {queue.waiting:.1f}"
        yield f"| {share:.2f} | {rate:,.0f} | {numbers} |"


def _fleets(measured: Measured) -> Iterator[str]:
    yield "| items/s | workload | replicas | nodes | Gbit/s | of a node | first bottleneck |"
    yield "| --- | --- | --- | --- | --- | --- | --- |"
    for rate in RATES:
        for workload in WORKLOADS:
            made = fleet(workload, measured, rate)
            size = f"{made.replicas:,} | {made.nodes:,}"
            network = f"{made.gbits:,.1f} | {made.node_gbits:.1f}"
            yield f"| {rate:,} | {workload.title} | {size} | {network} | {made.bottleneck} |"


def page(text: str, measured: Measured) -> str:
    """The page with its tables made anew."""
    before, rest = text.split(START)
    return f"{before}{START}\n{tables(measured)}\n{END}{rest.split(END)[1]}"


def main(arguments: list[str]) -> int:
    """Writes the page."""
    measured = Measured(Path(arguments[0]) if arguments else RESULT)
    PAGE.write_text(page(PAGE.read_text(), measured))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
