"""Builds the service from its settings, runs it, drains and stops it."""

import asyncio
import gc
import os
import signal
import time
from collections.abc import Callable
from dataclasses import replace

from service.batching import Arrays, Batcher, BatchingOptions
from service.health import HEALTH_SERVICE, Health
from service.inference_v2 import INFERENCE_SERVICE, InferenceV2
from service.lifeline import hold
from service.logs import Logger
from service.metrics import Metrics, serve_metrics
from service.model import Model, Models
from service.model_servicer import MODEL_SERVICE, ModelServicer
from service.reflection import reflection_methods
from service.repository import Graph, ModelVersion, read_repository
from service.servicer import VAE_SERVICE, Limits, Servicer
from service.session import Session, SessionOptions, choose_provider, cpu_quota
from service.settings import Settings, tls_files
from service.transport import ConnectionLifetimes, Transport, TransportOptions
from service.transport.choice import make_transport

_INLINE_SECONDS = 0.001
_LAST_SECONDS = 5.0


def load_model(
    version: ModelVersion,
    options: SessionOptions,
    batching: BatchingOptions,
    metrics: Metrics,
    transport: Transport,
) -> Model:
    """Loads every graph of version, warms up every bucket, and starts its batchers."""
    batching = replace(batching, buckets=tuple(version.manifest.batch_buckets))
    loaded: dict[bytes, tuple[Session, bool]] = {}  # one file may be several graphs
    for graph in version.graphs.values():
        if graph.content not in loaded:
            loaded[graph.content] = _warm(graph, options, batching)
    batchers: dict[str, Batcher] = {}
    for kind, graph in version.graphs.items():
        session, inline = loaded[graph.content]
        batcher = Batcher(
            session.giving(graph.output_names).run,
            batching,
            metrics.observer(version.name, kind),
            wake=transport.when_idle if inline else None,
            name=f"{version.name}-{kind}",
        )
        metrics.queue(version.name, kind, _queue_length(batcher))
        batchers[kind] = batcher
    return Model(version, batchers, options.provider)


def _warm(graph: Graph, options: SessionOptions, batching: BatchingOptions) -> tuple[Session, bool]:
    """A session that has run every bucket, and whether it is fast enough to run inline.

    Inline it has one thread: for less than a millisecond of work others are not worth waking.
    """
    for threads in sorted({1, options.threads}):
        session = Session(graph.content, graph.output_names, replace(options, threads=threads))
        for bucket in batching.buckets:
            inputs = {spec.name: spec.zeros(bucket) for spec in graph.inputs}
            session.run(inputs)
        inline = batching.max_queue_delay == 0 and _seconds(session, inputs) < _INLINE_SECONDS
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


def longest_drain(settings: Settings) -> float:
    """Seconds after which a service that was told to end has ended, or never will."""
    return settings.drain_delay + settings.drain_timeout + _LAST_SECONDS


async def serve(settings: Settings, log: Logger) -> None:
    """Runs the service until SIGTERM or SIGINT, then drains it.

    Health and metrics answer from the start; readiness comes when every model is loaded and warm.
    Drain: readiness off, `drain_delay` seconds of normal service while load balancers notice, new
    requests refused, running ones finished within `drain_timeout` seconds.
    """
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    if settings.lifeline >= 0:
        hold(settings.lifeline, loop, stopping.set, longest_drain(settings))
    options = SessionOptions(choose_provider(settings.provider), settings.threads or cpu_quota())
    metrics = Metrics()
    services = (VAE_SERVICE, MODEL_SERVICE, INFERENCE_SERVICE)
    health = Health(services)
    limits = Limits(max_request_items=settings.max_request_items)
    batching = BatchingOptions(
        max_queue_delay=settings.max_queue_delay_ms / 1000,
        max_queue_items=settings.max_queue_items,
    )
    protocols = (
        Servicer(limits),
        ModelServicer(limits),
        InferenceV2(limits, batching, metrics.observer, lambda: health.ready),
    )
    transport = await make_transport(
        settings.transport,
        TransportOptions(
            settings.listen,
            settings.reuse_port,
            lifetimes=ConnectionLifetimes(max_connection_age=settings.max_connection_age),
            tls=tls_files(settings),
        ),
        metrics,
        log,
    )
    for protocol in (*protocols, health):
        transport.add(protocol.methods())
    transport.add(reflection_methods((*services, HEALTH_SERVICE)))
    metrics_server, metrics_port = serve_metrics(
        settings.metrics_host, settings.metrics_port, metrics.registry
    )
    models: list[Model] = []

    async def listen() -> None:
        await transport.start()
        log.info(
            "listening",
            pid=os.getpid(),
            port=transport.port,
            metrics_port=metrics_port,
            transport=transport.name,
            provider=options.provider,
            threads=options.threads,
        )

    try:
        if not settings.reuse_port:
            await listen()
        for version in await asyncio.to_thread(read_repository, settings.repository):
            model = await _load(version, options, batching, metrics, transport, log)
            models.append(model)  # one by one, so that a failure stops those before
        published = Models(models)
        for protocol in protocols:
            protocol.publish(published)
        if settings.reuse_port:  # not before: the port's other processes take the calls
            await listen()
        _spare_collector()
        health.set_ready(True)
        log.info("ready", models=len(models))
        await stopping.wait()
        log.info("draining", delay=settings.drain_delay, timeout=settings.drain_timeout)
        health.set_ready(False)
        await asyncio.sleep(settings.drain_delay)
        await transport.stop(settings.drain_timeout)
    finally:
        await transport.stop(0)
        for model in models:
            for batcher in model.batchers.values():
                await asyncio.to_thread(batcher.stop)
        metrics_server.shutdown()
        metrics_server.server_close()
    log.info("stopped")


def _spare_collector() -> None:
    """Keeps what was loaded out of the garbage collector's sight, and lets it look less often.

    Requests leave no cycles behind, but looking for them took 3 % of the time.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 20)


async def _load(
    version: ModelVersion,
    options: SessionOptions,
    batching: BatchingOptions,
    metrics: Metrics,
    transport: Transport,
    log: Logger,
) -> Model:
    started = time.monotonic()
    model = await asyncio.to_thread(load_model, version, options, batching, metrics, transport)
    seconds = time.monotonic() - started
    metrics.model_loaded(version.name, version.version, version.digest, model.provider, seconds)
    log.info(
        "model_loaded",
        model=model.resource,
        provider=model.provider,
        digest=version.digest,
        seconds=round(seconds, 3),
    )
    return model


def _queue_length(batcher: Batcher) -> Callable[[], float]:
    return lambda: batcher.queued_items
