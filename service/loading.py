"""Makes a served model of a version: sessions, warm-up, batchers."""

from collections.abc import Callable
from dataclasses import replace
from typing import Protocol

from vae.manifest.v1 import manifest_pb2

from service.batching import Batcher, BatchingOptions
from service.control import Load
from service.metrics import Metrics
from service.model import Model
from service.model_settings import ModelSettings
from service.repository import Graph, ModelVersion
from service.session import SessionOptions
from service.spans import follow
from service.warming import warm_up


class Turns(Protocol):
    """Of a transport: how batches come to its thread."""

    def when_idle(self, callback: Callable[[], bool]) -> None: ...
    def call_soon(self, callback: Callable[[], object]) -> None: ...


def load_model(
    version: ModelVersion,
    options: SessionOptions,
    batching: BatchingOptions,
    metrics: Metrics,
    transport: Turns,
    instances: int = 1,
    *,
    traced: bool = False,
) -> Model:
    """Loads every graph of version, warms up every bucket, and starts its batchers.

    Nothing is left running when it raises GraphError, or what a graph raises in the warm-up.
    """
    batching = replace(batching, buckets=tuple(version.manifest.batch_buckets))
    files: dict[str, dict[str, Graph]] = {}  # one file may be several graphs
    for kind, graph in version.graphs.items():
        files.setdefault(graph.file, {})[kind] = graph
    warmed = [warm_up(version.name, same, options, batching, instances) for same in files.values()]
    by_kind = {kind: warm for warm in warmed for kind in warm.runs}
    batchers: dict[str, Batcher] = {}
    for kind in version.graphs:
        warm = by_kind[kind]
        batcher = Batcher(
            warm.runs[kind],
            batching,
            metrics.observer(version.name, version.version, kind, batching.priority_levels),
            instances=instances,
            post=transport.call_soon,
            wake=transport.when_idle if warm.inline else None,
            item_seconds=warm.item_seconds if options.cpus > 1 else None,
            on_admitted=follow(f"{version.name}.{kind}") if traced else None,
            name=f"{version.name}-{kind}",
        )
        levels, queued = batching.priority_levels, batcher.queued_by_level
        metrics.queue(version.name, version.version, kind, levels, queued)
        batchers[kind] = batcher
    same_bits = all(warm.same_bits for warm in warmed)
    return Model(version.loaded(), batchers, options.provider, same_bits=same_bits)


def loader(
    options: SessionOptions,
    batching: BatchingOptions,
    metrics: Metrics,
    transport: Turns,
    *,
    recommended: bool = False,
    traced: bool = False,
) -> Load:
    """Makes a served model of a version and its own settings. batching: of models without any.

    recommended: the queue delay is that of the manifest then.
    """

    def load(version: ModelVersion, own: ModelSettings) -> Model:
        knobs = batching
        if recommended:
            delay = version.manifest.max_queue_delay.ToTimedelta().total_seconds()
            knobs = replace(knobs, max_queue_delay=delay)
        version, knobs = settled(version, knobs, own)
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
    if own.priority_levels is not None:
        batching = replace(
            batching,
            priority_levels=own.priority_levels,
            default_priority_level=own.default_priority_level or 0,
        )
    if own.buckets is not None:
        manifest = manifest_pb2.Manifest()
        manifest.CopyFrom(version.manifest)
        manifest.batch_buckets[:] = own.buckets
        version = replace(version, manifest=manifest)
    return version, batching
