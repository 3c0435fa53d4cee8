"""Builds the service from its settings, runs it, drains and stops it."""

import asyncio
import signal
import time
from collections.abc import Callable
from dataclasses import replace

from service.batching import Batcher, BatchingOptions
from service.health import Health
from service.logs import Logger
from service.metrics import Metrics
from service.model import Model, Models
from service.repository import ModelVersion, read_repository
from service.servicer import MODEL_SERVICE, VAE_SERVICE, Limits, Servicer
from service.session import Session, SessionOptions, choose_provider, cpu_quota
from service.settings import Settings
from service.transport import Transport, TransportOptions


def load_model(
    version: ModelVersion, options: SessionOptions, batching: BatchingOptions, metrics: Metrics
) -> Model:
    """Loads every graph of version, warms up every bucket, and starts its batchers."""
    batching = replace(batching, buckets=tuple(version.manifest.batch_buckets))
    sessions: dict[str, Session] = {}
    for kind, graph in version.graphs.items():
        sessions[kind] = Session(graph.content, graph.outputs, options)
        for bucket in batching.buckets:
            sessions[kind].run({spec.name: spec.zeros(bucket) for spec in graph.inputs})
    batchers: dict[str, Batcher] = {}
    for kind, session in sessions.items():
        observer = metrics.observer(version.name, kind)
        batcher = Batcher(session.run, batching, observer, name=f"{version.name}-{kind}")
        metrics.queue(version.name, kind, _queue_length(batcher))
        batchers[kind] = batcher
    return Model(version, batchers, options.provider)


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
    options = SessionOptions(choose_provider(settings.provider), settings.threads or cpu_quota())
    metrics = Metrics()
    transport = Transport(TransportOptions(settings.listen), metrics, log)
    health = Health(transport, (VAE_SERVICE, MODEL_SERVICE))
    servicer = Servicer(Limits(max_request_items=settings.max_request_items))
    transport.add(servicer.methods())
    metrics_server, metrics_port = metrics.serve(settings.metrics_port)
    models: list[Model] = []
    try:
        await health.set_ready(False)
        await transport.start()
        log.info(
            "listening",
            port=transport.port,
            metrics_port=metrics_port,
            provider=options.provider,
            threads=options.threads,
        )
        batching = BatchingOptions(
            max_queue_delay=settings.max_queue_delay_ms / 1000,
            max_queue_items=settings.max_queue_items,
        )
        for version in await asyncio.to_thread(read_repository, settings.repository):
            model = await _load(version, options, batching, metrics, log)
            models.append(model)  # one by one, so that a failure stops those before
        servicer.publish(Models(models))
        await health.set_ready(True)
        log.info("ready", models=len(models))
        await stopping.wait()
        log.info("draining", delay=settings.drain_delay, timeout=settings.drain_timeout)
        await health.set_ready(False)
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


async def _load(
    version: ModelVersion,
    options: SessionOptions,
    batching: BatchingOptions,
    metrics: Metrics,
    log: Logger,
) -> Model:
    started = time.monotonic()
    model = await asyncio.to_thread(load_model, version, options, batching, metrics)
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
