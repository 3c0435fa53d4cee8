"""What Prometheus sees.

Labels come from the served models and methods only, never from a client's text: whoever sends
unknown names cannot make time series.
"""

import math
import threading
from collections.abc import Callable, Iterator, Mapping

from prometheus_client import CollectorRegistry
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector

from service.distribution import Distribution
from service.gpus import GpuMemory
from service.model import Model
from service.statistics import SECONDS, GraphCounts, GraphStatistics
from service.transport import Usage

_GRAPH = ("model", "version", "graph")
_ITEMS = (1, 2, 4, 8, 16, 32, 64, 128, 256)
QueuedByLevel = Callable[[], Mapping[int, int]]


class Metrics(Collector):
    """The metrics of one process, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self._calls: dict[str, _Calls] = {}
        self._graphs: dict[tuple[str, int, str], GraphStatistics] = {}
        self._queues: dict[tuple[str, int, str], tuple[int, QueuedByLevel]] = {}
        self._versions: dict[tuple[str, int], tuple[str, str, float]] = {}
        self._sessions: dict[str, int] = {}
        self._load_failures: dict[str, int] = {}
        self._gpu_memory: Callable[[], list[GpuMemory]] | None = None
        self._usage: Callable[[], Usage | None] = lambda: None
        self._repository_readable: Callable[[], bool] = lambda: True
        self._lock = threading.Lock()  # of changes; a scrape reads copies
        self.registry.register(self)

    def follow(self, usage: Callable[[], Usage | None]) -> None:
        """Asks the transport what clients take of it at every scrape."""
        self._usage = usage

    def follow_repository(self, readable: Callable[[], bool]) -> None:
        """Asks at every scrape whether the last look at the repository succeeded."""
        self._repository_readable = readable

    def follow_gpus(self, memory: Callable[[], list[GpuMemory]]) -> None:
        """Asks for the memory of the devices at every scrape."""
        self._gpu_memory = memory

    def call_done(self, method: str, code: str, seconds: float) -> None:
        """Counts a finished RPC."""
        calls = self._calls.get(method)
        if calls is None:
            calls = self._calls.setdefault(method, _Calls())
        calls.add(code, seconds)

    def model_loaded(self, model: Model, seconds: float) -> None:
        """Reports a served version, and what it took to load it and warm it up."""
        version = model.version
        with self._lock:
            served = (version.digest, model.provider, seconds)
            self._versions[version.name, version.version] = served
            self._sessions[version.name] = self._sessions.get(version.name, 0) + version.files
            self._load_failures.setdefault(version.name, 0)

    def model_unloaded(self, name: str, version: int) -> None:
        """Forgets a version that is no longer served, so that time series do not pile up."""
        with self._lock:
            del self._versions[name, version]
            for series in (self._graphs, self._queues):
                for key in [key for key in series if key[:2] == (name, version)]:
                    del series[key]

    def sessions_closed(self, name: str, count: int) -> None:
        """Reports that so many sessions of a model are let go."""
        with self._lock:
            self._sessions[name] -= count

    def load_failed(self, name: str) -> None:
        """Counts a version that could not be loaded."""
        with self._lock:
            self._load_failures[name] = self._load_failures.get(name, 0) + 1

    def queue(
        self, model: str, version: int, graph: str, levels: int, items: QueuedByLevel
    ) -> None:
        """Reads the queue's items by level, of 1 to levels, when Prometheus asks for them."""
        with self._lock:
            self._queues[model, version, graph] = levels, items

    def observer(self, model: str, version: int, graph: str, levels: int = 0) -> GraphStatistics:
        """What the batcher of a graph reports to. levels: of priority that it has."""
        with self._lock:
            statistics = self._graphs.setdefault((model, version, graph), GraphStatistics())
        statistics.add_levels(levels)
        return statistics

    def collect(self) -> Iterator[Metric]:
        """What requests and batches add to, for a scrape (`prometheus_client`'s Collector)."""
        yield from self._collect_calls()
        yield from self._collect_usage()
        yield from self._collect_graphs()
        yield from self._collect_models()
        if self._gpu_memory is not None:
            yield from _gpu_families(self._gpu_memory())

    def _collect_calls(self) -> Iterator[Metric]:
        requests = CounterMetricFamily("vae_requests", "Finished RPCs.", labels=("method", "code"))
        duration = HistogramMetricFamily(
            "vae_request_duration_seconds",
            "Arrival of a request to its answer.",
            labels=("method",),
        )
        for method, calls in list(self._calls.items()):
            for code, count in list(calls.codes.items()):
                requests.add_metric((method, code), count)
            duration.add_metric((method,), *calls.seconds.snapshot())
        yield from (requests, duration)

    def _collect_usage(self) -> Iterator[Metric]:
        connections = GaugeMetricFamily("vae_connections", "Open connections.")
        most = GaugeMetricFamily(
            "vae_connections_limit", "Connections beyond which more are refused."
        )
        refused = CounterMetricFamily(
            "vae_connections_refused", "Connections beyond the limit, which were refused."
        )
        held = GaugeMetricFamily(
            "vae_held_bytes",
            "Requests in memory that are not answered, answers not sent, and calls.",
        )
        most_held = GaugeMetricFamily(
            "vae_held_limit_bytes", "Held bytes beyond which calls of who holds most end."
        )
        usage = self._usage()
        if usage is not None:
            connections.add_metric((), usage.connections)
            most.add_metric((), usage.max_connections)
            refused.add_metric((), usage.refused)
            held.add_metric((), usage.held_bytes)
            most_held.add_metric((), usage.max_held_bytes)
        yield from (connections, most, refused, held, most_held)

    def _collect_graphs(self) -> Iterator[Metric]:
        delay = HistogramMetricFamily(
            "vae_queue_delay_seconds", "Admission to start of the first batch.", labels=_GRAPH
        )
        run = HistogramMetricFamily("vae_batch_duration_seconds", "Run of a batch.", labels=_GRAPH)
        items = HistogramMetricFamily(
            "vae_batch_items", "Items of a batch, without padding.", labels=_GRAPH
        )
        padding = CounterMetricFamily(
            "vae_padding_items", "Rows of padding that ran.", labels=_GRAPH
        )
        failed = CounterMetricFamily(
            "vae_failed", "Requests of batches that failed.", labels=_GRAPH
        )
        cancelled = CounterMetricFamily(
            "vae_cancelled", "Requests that left the queue as their client had gone.", labels=_GRAPH
        )
        rejected = CounterMetricFamily(
            "vae_rejected", "Requests refused by the queue.", labels=(*_GRAPH, "reason", "priority")
        )
        with self._lock:
            graphs = [(_labels(key), statistics) for key, statistics in self._graphs.items()]
        for graph, statistics in graphs:
            counts = statistics.snapshot()
            delay.add_metric(graph, *statistics.queue_delays.snapshot())
            run.add_metric(graph, *statistics.batch_seconds.snapshot())
            items.add_metric(graph, *_item_buckets(counts))
            padding.add_metric(graph, counts.padding)
            failed.add_metric(graph, counts.failed)
            cancelled.add_metric(graph, counts.cancelled)
            for (reason, level), count in counts.rejected.items():
                rejected.add_metric((*graph, reason, str(level)), count)
        yield from (delay, run, items, padding, failed, cancelled, rejected)

    def _collect_models(self) -> Iterator[Metric]:
        queue = GaugeMetricFamily(
            "vae_queue_items", "Items that wait.", labels=(*_GRAPH, "priority")
        )
        info = GaugeMetricFamily(
            "vae_model_info",
            "1 for every served version.",
            labels=("model", "version", "digest", "provider"),
        )
        load = GaugeMetricFamily(
            "vae_model_load_seconds",
            "Time to load and warm up a version.",
            labels=("model", "version"),
        )
        sessions = GaugeMetricFamily(
            "vae_sessions", "Loaded onnxruntime sessions.", labels=("model",)
        )
        failures = CounterMetricFamily(
            "vae_model_load_failures", "Versions that could not be loaded.", labels=("model",)
        )
        readable = GaugeMetricFamily(
            "vae_repository_readable", "0 if the last look at the repository failed."
        )
        readable.add_metric((), float(self._repository_readable()))
        with self._lock:
            queues = [(_labels(key), *queued) for key, queued in self._queues.items()]
            for (name, version), (digest, provider, seconds) in self._versions.items():
                info.add_metric((name, str(version), digest, provider), 1)
                load.add_metric((name, str(version)), seconds)
            for name, count in self._sessions.items():
                sessions.add_metric((name,), count)
            for name, count in self._load_failures.items():
                failures.add_metric((name,), count)
        for graph, levels, items in queues:
            waiting = items()
            for level in range(1, levels + 1):
                queue.add_metric((*graph, str(level)), waiting.get(level, 0))
        yield from (queue, info, load, sessions, failures, readable)


def _labels(key: tuple[str, int, str]) -> tuple[str, str, str]:
    return (key[0], str(key[1]), key[2])


def _gpu_families(devices: list[GpuMemory]) -> Iterator[Metric]:
    used = GaugeMetricFamily(
        "vae_gpu_memory_used_bytes", "Memory in use, by whomever.", labels=("device",)
    )
    total = GaugeMetricFamily("vae_gpu_memory_total_bytes", "Memory there is.", labels=("device",))
    for device in devices:
        used.add_metric((str(device.device),), device.used)
        total.add_metric((str(device.device),), device.total)
    yield from (used, total)


class _Calls:
    """The finished RPCs of one method."""

    __slots__ = ("_lock", "codes", "seconds")

    def __init__(self) -> None:
        self.codes: dict[str, int] = {}
        self.seconds = Distribution(SECONDS)
        self._lock = threading.Lock()

    def add(self, code: str, seconds: float) -> None:
        with self._lock:
            self.codes[code] = self.codes.get(code, 0) + 1
        self.seconds.add(seconds)


def _item_buckets(counts: GraphCounts) -> tuple[list[tuple[str, float]], float]:
    """Batches of at most so many items, as Prometheus has them, and the items of all."""
    sizes = {items: batches for items, (batches, _) in counts.batches.items()}
    buckets = [
        (name, float(sum(batches for items, batches in sizes.items() if items <= bound)))
        for name, bound in (*((str(float(bound)), bound) for bound in _ITEMS), ("+Inf", math.inf))
    ]
    return buckets, float(sum(items * batches for items, batches in sizes.items()))
