"""What Prometheus sees.

Labels come from the served models and methods only, never from a client's text: whoever sends
unknown names cannot make time series.
"""

import threading
from collections.abc import Callable, Iterator
from wsgiref.simple_server import WSGIServer

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, start_http_server
from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector

from service.distribution import Distribution

_SECONDS = (
    0.0001,
    0.00025,
    0.0005,
    0.001,
    0.0025,
    0.005,
    0.01,
    0.025,
    0.05,
    0.1,
    0.25,
    0.5,
    1,
    2.5,
    10,
)
_ITEMS = (1, 2, 4, 8, 16, 32, 64, 128, 256)


class Metrics(Collector):
    """The metrics of one process, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        graph = ("model", "graph")
        self._calls: dict[str, _Calls] = {}
        self._delays: dict[tuple[str, str], Distribution] = {}
        self.registry.register(self)
        self._items = self._histogram(
            "vae_batch_items", "Items of a batch, without padding.", graph, _ITEMS
        )
        self._run = self._histogram(
            "vae_batch_duration_seconds", "Run of a batch.", graph, _SECONDS
        )
        self._padding = self._make(
            Counter, "vae_padding_items_total", "Rows of padding that ran.", graph
        )
        self._rejected = self._make(
            Counter, "vae_rejected_total", "Requests refused by the queue.", (*graph, "reason")
        )
        self._cancelled = self._make(
            Counter,
            "vae_cancelled_total",
            "Requests that left the queue as their client had gone.",
            graph,
        )
        self._queue = Gauge("vae_queue_items", "Items that wait.", graph, registry=self.registry)
        self._info = Gauge(
            "vae_model_info",
            "1 for every served version.",
            ("model", "version", "digest", "provider"),
            registry=self.registry,
        )
        self._load = Gauge(
            "vae_model_load_seconds",
            "Time to load and warm up a version.",
            ("model", "version"),
            registry=self.registry,
        )

    def _make(self, kind: type[Counter], name: str, text: str, labels: tuple[str, ...]) -> Counter:
        return kind(name, text, labels, registry=self.registry)

    def _histogram(
        self, name: str, text: str, labels: tuple[str, ...], buckets: tuple[float, ...]
    ) -> Histogram:
        return Histogram(name, text, labels, buckets=buckets, registry=self.registry)

    def call_done(self, method: str, code: str, seconds: float) -> None:
        """Counts a finished RPC."""
        calls = self._calls.get(method)
        if calls is None:
            calls = self._calls.setdefault(method, _Calls())
        calls.add(code, seconds)

    def model_loaded(
        self, model: str, version: int, digest: str, provider: str, seconds: float
    ) -> None:
        """Reports a served version."""
        self._info.labels(model, str(version), digest, provider).set(1)
        self._load.labels(model, str(version)).set(seconds)

    def queue(self, model: str, graph: str, items: Callable[[], float]) -> None:
        """Reads the queue's length when Prometheus asks for it."""
        self._queue.labels(model, graph).set_function(items)

    def observer(self, model: str, graph: str) -> "BatchMetrics":
        """What the batcher of a graph reports to."""
        return BatchMetrics(self, model, graph)

    def collect(self) -> Iterator[Metric]:
        """What every request adds to, for a scrape (`prometheus_client.registry.Collector`)."""
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
        delay = HistogramMetricFamily(
            "vae_queue_delay_seconds",
            "Admission to start of the first batch.",
            labels=("model", "graph"),
        )
        for graph, delays in list(self._delays.items()):
            delay.add_metric(graph, *delays.snapshot())
        yield from (requests, duration, delay)


def serve_metrics(host: str, port: int, registry: CollectorRegistry) -> tuple[WSGIServer, int]:
    """Starts /metrics on an address; returns the server and its port. Port 0 takes a free one."""
    server, _ = start_http_server(port, host, registry)
    return server, int(server.server_address[1])


class _Calls:
    """The finished RPCs of one method."""

    __slots__ = ("_lock", "codes", "seconds")

    def __init__(self) -> None:
        self.codes: dict[str, int] = {}
        self.seconds = Distribution(_SECONDS)
        self._lock = threading.Lock()

    def add(self, code: str, seconds: float) -> None:
        with self._lock:
            self.codes[code] = self.codes.get(code, 0) + 1
        self.seconds.add(seconds)


class BatchMetrics:
    """A batcher's observer."""

    def __init__(self, metrics: Metrics, model: str, graph: str) -> None:
        delays = metrics._delays.setdefault((model, graph), Distribution(_SECONDS))
        self.entry_started = delays.add  # the first items of a request go into a batch
        self._items = metrics._items.labels(model, graph)
        self._run = metrics._run.labels(model, graph)
        self._padding = metrics._padding.labels(model, graph)
        self._cancelled = metrics._cancelled.labels(model, graph)
        self._rejected = {
            reason: metrics._rejected.labels(model, graph, reason)
            for reason in ("queue_full", "draining", "expired")
        }

    def batch_done(self, items: int, padding: int, seconds: float) -> None:
        """A batch ran."""
        self._items.observe(items)
        self._padding.inc(padding)
        self._run.observe(seconds)

    def entries_cancelled(self, count: int) -> None:
        """Requests left the queue as their clients had gone."""
        self._cancelled.inc(count)

    def entry_rejected(self, reason: str) -> None:
        """A request was refused."""
        self._rejected[reason].inc()
