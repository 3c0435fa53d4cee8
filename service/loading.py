"""Makes a served model of a version: sessions, warm-up, batchers."""

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Protocol

from vae.manifest.v1 import manifest_pb2

from service.batching import Arrays, Batcher, BatchingOptions
from service.control import Load
from service.metrics import Metrics
from service.model import Model
from service.model_settings import ModelSettings
from service.repository import Graph, ModelVersion
from service.session import Session, SessionOptions
from service.spans import follow

_INLINE_SECONDS = 0.001


class Idles(Protocol):
    """Of a transport: whom batches ask that run on the thread that reads messages."""

    def when_idle(self, callback: Callable[[], bool]) -> None: ...


def load_model(
    version: ModelVersion,
    options: SessionOptions,
    batching: BatchingOptions,
    metrics: Metrics,
    transport: Idles,
    instances: int = 1,
    *,
    traced: bool = False,
) -> Model:
    """Loads every graph of version, warms up every bucket, and starts its batchers.

    Nothing is left running when it raises GraphError, or what a graph raises in the warm-up.
    """
    batching = replace(batching, buckets=tuple(version.manifest.batch_buckets))
    loaded: dict[bytes, tuple[Session, bool]] = {}  # one file may be several graphs
    for graph in version.graphs.values():
        if graph.content not in loaded:
            loaded[graph.content] = _warm(graph, options, batching, instances)
    batchers: dict[str, Batcher] = {}
    for kind, graph in version.graphs.items():
        session, inline = loaded[graph.content]
        batcher = Batcher(
            session.giving(graph.output_names).run,
            batching,
            metrics.observer(version.name, version.version, kind),
            instances=instances,
            wake=transport.when_idle if inline else None,
            on_admitted=follow(f"{version.name}.{kind}") if traced else None,
            name=f"{version.name}-{kind}",
        )
        metrics.queue(version.name, version.version, kind, _queue_length(batcher))
        batchers[kind] = batcher
    return Model(version, batchers, options.provider)


def loader(
    options: SessionOptions,
    batching: BatchingOptions,
    metrics: Metrics,
    transport: Idles,
    *,
    traced: bool = False,
) -> Load:
    """Makes a served model of a version and its own settings. batching: of models without any."""

    def load(version: ModelVersion, own: ModelSettings) -> Model:
        version, knobs = settled(version, batching, own)
        return load_model(version, options, knobs, metrics, transport, own.instances, traced=traced)

    return load


def settled(
    version: ModelVersion, batching: BatchingOptions, own: ModelSettings
) -> tuple[ModelVersion, BatchingOptions]:
    """The version and the knobs as the model's own settings have them."""
    if own.max_queue_delay_ms is not None:
        batching = replace(batching, max_queue_delay=own.max_queue_delay_ms / 1000)
    if own.max_queue_items is not None:
        batching = replace(batching, max_queue_items=own.max_queue_items)
    if own.buckets is not None:
        manifest = manifest_pb2.Manifest()
        manifest.CopyFrom(version.manifest)
        manifest.batch_buckets[:] = own.buckets
        version = replace(version, manifest=manifest)
    return version, batching


def _warm(
    graph: Graph, options: SessionOptions, batching: BatchingOptions, instances: int
) -> tuple[Session, bool]:
    """A session that has run every bucket, and whether it is fast enough to run inline.

    Inline it has one thread: for less than a millisecond of work others are not worth waking.
    """
    for threads in sorted({1, options.threads}):
        session = Session(graph.content, graph.output_names, replace(options, threads=threads))
        for bucket in batching.buckets:
            inputs = {spec.name: spec.zeros(bucket) for spec in graph.inputs}
            session.run(inputs)
        inline = (
            batching.max_queue_delay == 0
            and instances == 1
            and _seconds(session, inputs) < _INLINE_SECONDS
        )
        if inline:
            break
    return session, inline


def _seconds(session: Session, inputs: Arrays) -> float:
    """The shortest of three runs."""
    durations = []
    for _ in range(3):
        started = time.perf_counter()
        session.run(inputs)
        durations.append(time.perf_counter() - started)
    return min(durations)


def _queue_length(batcher: Batcher) -> Callable[[], float]:
    return lambda: batcher.queued_items
