"""Makes a served model of a version: sessions, warm-up, batchers."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
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
    loaded: dict[bytes, _Warm] = {}  # one file may be several graphs
    for graph in version.graphs.values():
        if graph.content not in loaded:
            loaded[graph.content] = _warm(graph, options, batching, instances)
    batchers: dict[str, Batcher] = {}
    for kind, graph in version.graphs.items():
        warm = loaded[graph.content]
        batcher = Batcher(
            warm.session.giving(graph.output_names).run,
            batching,
            metrics.observer(version.name, version.version, kind, batching.priority_levels),
            instances=instances,
            wake=transport.when_idle if warm.inline else None,
            on_admitted=follow(f"{version.name}.{kind}") if traced else None,
            name=f"{version.name}-{kind}",
        )
        levels, queued = batching.priority_levels, batcher.queued_by_level
        metrics.queue(version.name, version.version, kind, levels, queued)
        batchers[kind] = batcher
    same_bits = all(warm.same_bits for warm in loaded.values())
    return Model(version, batchers, options.provider, same_bits=same_bits)


def loader(
    options: SessionOptions,
    batching: BatchingOptions,
    metrics: Metrics,
    transport: Idles,
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


@dataclass(frozen=True)
class _Warm:
    """A session that has run every bucket. inline: whether it is fast enough to run inline."""

    session: Session
    inline: bool
    same_bits: bool


def _warm(
    graph: Graph, options: SessionOptions, batching: BatchingOptions, instances: int
) -> _Warm:
    """Inline a session has one thread: for less than a millisecond others are not worth waking."""
    inputs = _noise(graph, batching.max_batch_size)
    for threads in sorted({1, options.threads}):
        session = Session(graph.content, graph.output_names, replace(options, threads=threads))
        inline = (
            batching.max_queue_delay == 0
            and instances == 1
            and _seconds(session, inputs) < _INLINE_SECONDS
        )
        if inline:
            break
    return _Warm(session, inline, gives_same_bits(session.run, inputs, batching.buckets))


def gives_same_bits(
    run: Callable[[Arrays], Arrays], inputs: Arrays, buckets: Sequence[int]
) -> bool:
    """Whether a graph gives an item the same bits in a batch of every size, first and last in it.

    inputs: arrays [largest bucket, ...] by name. Runs every bucket, so it warms up too. A
    measurement on this machine, not a proof: kernels choose their order of additions by sizes.
    """
    whole = run(inputs)
    largest = buckets[-1]

    def agree(part: Arrays, rows: slice) -> bool:
        return all(np.array_equal(part[name], whole[name][rows], equal_nan=True) for name in whole)

    slices = [slice(None, None, -1)]
    for bucket in buckets[:-1]:
        slices += [slice(0, bucket), slice(largest - bucket, largest)]
    parts = [run({name: array[rows].copy() for name, array in inputs.items()}) for rows in slices]
    return all(agree(part, rows) for part, rows in zip(parts, slices, strict=True))


def _noise(graph: Graph, items: int) -> Arrays:
    """Inputs for so many items: noise where numbers go, and the first of codes and labels."""
    random = np.random.default_rng(0)
    inputs: dict[str, NDArray[np.generic]] = {}
    for spec in graph.inputs:
        array = spec.zeros(items)
        if spec.dtype == np.uint8:
            array = random.integers(0, 256, array.shape, np.uint8)
        elif spec.dtype == np.float32:
            array = random.random(array.shape, np.float32)
        inputs[spec.name] = array
    return inputs


def _seconds(session: Session, inputs: Arrays) -> float:
    """The shortest of three runs."""
    durations = []
    for _ in range(3):
        started = time.perf_counter()
        session.run(inputs)
        durations.append(time.perf_counter() - started)
    return min(durations)
