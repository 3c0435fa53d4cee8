"""Builds the service from its settings, runs it, drains and stops it."""

import asyncio
import contextlib
import gc
import os
import signal
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

from service.auth.choice import make_authorize
from service.batching import BatchingOptions
from service.catalogue import Catalogue, Limits
from service.control import Control
from service.cpus import cpu_quota
from service.following import Looks, load_first
from service.gpus import gpu_memory
from service.health import HEALTH_SERVICE, Health
from service.inference_repository import RepositoryV2
from service.inference_v2 import INFERENCE_SERVICE, InferenceV2
from service.latent_servicer import LatentServicer
from service.lifeline import hold
from service.loading import loader
from service.logs import Logger
from service.metrics import Metrics
from service.model import Models
from service.model_servicer import MODEL_SERVICE, ModelServicer
from service.object_source import ObjectSource
from service.observations import Observing
from service.probes import runs, serve_probes
from service.reflection import reflection_methods
from service.repository import RepositoryError
from service.reread import LOOK
from service.servicer import VAE_SERVICE, Servicer
from service.session import CUDA, SessionOptions, check_precision, choose_provider
from service.settings import Settings, SettingsError, tls_files
from service.sources import DirectorySource, Source
from service.transport import ConnectionLifetimes, Transport, TransportOptions
from service.transport.choice import make_transport
from service.wanted import WantedModels, wanted_file

if TYPE_CHECKING:
    from service.tracing import Tracing

_LAST_SECONDS = 5.0
_ANSWER_SECONDS = 1.0  # for what is refused at the end of a drain
_LOADING_SECONDS = 0.5  # for a version that is being loaded when all else has ended
_LIMITS_OF_HTTP2 = ("--max-connections", "--max-held-mib")


def _make_tracing(settings: Settings) -> "Tracing | None":
    """Its libraries are an extra, and are not even imported where nothing is traced."""
    if not settings.trace_endpoint:
        return None
    try:
        from service.tracing import Tracing
    except ImportError as error:
        raise SettingsError("--trace-endpoint needs the extra vae-serving[tracing]") from error
    return Tracing(settings.trace_endpoint, settings.trace_ratio)


def on_signals(loop: asyncio.AbstractEventLoop, stop: Callable[[], object]) -> None:
    """Calls stop at SIGTERM, SIGINT, and SIGHUP (the terminal closes) unless nohup ignores that."""
    loop.add_signal_handler(signal.SIGTERM, stop)
    loop.add_signal_handler(signal.SIGINT, stop)
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        loop.add_signal_handler(signal.SIGHUP, stop)


def longest_drain(settings: Settings) -> float:
    """Seconds after which a service that was told to end has ended, or never will."""
    return settings.drain_delay + settings.drain_timeout + _LAST_SECONDS


def make_source(settings: Settings) -> Source:
    """Where the models are. Raises RepositoryError if that cannot be used."""
    if "://" not in settings.repository:
        return DirectorySource(Path(settings.repository))
    if settings.cache is None:
        raise RepositoryError(f"{settings.repository} needs --cache DIR, for local copies")
    return ObjectSource(settings.repository, settings.cache)


def session_options(settings: Settings) -> SessionOptions:
    """How graphs run. Raises ProviderError if that cannot be had, or not in the precision."""
    provider = choose_provider(settings.provider)
    check_precision(settings.precision, provider)
    cpus = settings.cpus or cpu_quota()
    # With CUDA, threads of the CPU have nothing to compute.
    threads = 1 if provider == CUDA else settings.threads or cpus
    return SessionOptions(provider, threads, settings.cuda_runs, cpus)


def batching_options(settings: Settings) -> BatchingOptions:
    """The knobs of models without settings of their own."""
    return BatchingOptions(
        max_queue_delay=(settings.max_queue_delay_ms or 0) / 1000,
        max_queue_items=settings.max_queue_items,
        priority_levels=settings.priority_levels,
        default_priority_level=settings.default_priority_level,
    )


async def serve(settings: Settings, log: Logger) -> bool:
    """Runs the service until SIGTERM, SIGINT or SIGHUP, then drains it.

    Returns whether nothing runs any more; if not, a version is still being loaded, by a thread that
    nothing interrupts and Python would wait for at its end.

    Health and metrics answer from the start; readiness comes when every model is loaded and warm,
    and stays whatever is loaded or fails to load later.
    Drain: readiness off, `drain_delay` seconds of normal service while load balancers notice, new
    requests refused, running ones finished within `drain_timeout` seconds; then those that wait for
    a batch get DRAINING, and the rest is cancelled.
    """
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    on_signals(loop, stopping.set)
    if settings.lifeline >= 0:
        hold(settings.lifeline, loop, stopping.set, longest_drain(settings))
    options = session_options(settings)
    metrics = Metrics()
    services = (VAE_SERVICE, MODEL_SERVICE, INFERENCE_SERVICE)
    health = Health(services)
    limits = Limits(
        settings.max_request_items,
        min(settings.max_response_mib, settings.max_message_mib) * 2**20,
    )
    batching = batching_options(settings)
    catalogue, observing = Catalogue(limits), Observing()
    inference = InferenceV2(metrics.observer, lambda: health.ready)
    protocols = (
        Servicer(catalogue, observing),
        LatentServicer(catalogue, observing),
        ModelServicer(catalogue),
        inference,
    )
    tracing = _make_tracing(settings)
    authorize = make_authorize(settings, log)
    transport = await make_transport(
        settings.transport,
        TransportOptions(
            settings.listen,
            settings.reuse_port,
            max_message_bytes=settings.max_message_mib * 2**20,
            max_concurrent_streams=settings.max_concurrent_streams,
            max_connections=settings.max_connections,
            max_held_bytes=settings.max_held_mib * 2**20,
            lifetimes=ConnectionLifetimes(max_connection_age=settings.max_connection_age),
            tls=tls_files(settings),
            authorize=authorize,
            slow_seconds=settings.slow_request_seconds,
        ),
        metrics,
        log,
    )

    metrics.follow(transport.usage)
    if options.provider == CUDA and (memory := gpu_memory()) is not None:
        metrics.follow_gpus(memory)

    def publish(models: Models) -> None:
        catalogue.publish(models)
        inference.publish(*catalogue.snapshot())

    explicit = settings.model_control == "explicit"
    control = Control(
        make_source(settings),
        settings.version_policy,
        loader(
            options,
            batching,
            metrics,
            transport,
            recommended=settings.max_queue_delay_ms is None,
            traced=tracing is not None,
        ),
        publish,
        metrics,
        log,
        () if explicit else None,
        settings.precision,
    )
    wanted = WantedModels(control, wanted_file(settings))
    looks = Looks(settings, control, wanted, log)
    metrics.follow_repository(lambda: looks.readable)
    executor = ThreadPoolExecutor(1, "model-control")  # starts with the first load
    load, unload = (wanted.load, wanted.unload) if explicit else (None, None)
    repository = RepositoryV2(lambda: control.states, load, unload, executor, log)
    for protocol in (*protocols, repository):
        methods = protocol.methods()
        transport.add(methods if tracing is None else tracing.traced(methods))
    transport.add(health.methods())
    transport.add(reflection_methods((*services, HEALTH_SERVICE)))
    alive = runs(loop)
    metrics_server, metrics_port = serve_probes(
        settings.metrics_host,
        settings.metrics_port,
        metrics.registry,
        alive,
        lambda: health.ready and alive(),
    )

    async def listen() -> None:
        await transport.start()
        log.info(
            "listening",
            pid=os.getpid(),
            port=transport.port,
            metrics_port=metrics_port,
            transport=transport.name,
            provider=options.provider,
            cpus=options.cpus,
            threads=options.threads,
        )
        if transport.usage() is None:
            log.warning(
                "limits_without_effect", transport=transport.name, settings=_LIMITS_OF_HTTP2
            )

    async def look() -> None:
        while authorize is not None:
            await asyncio.sleep(LOOK)
            authorize.look()

    looking = asyncio.create_task(look())
    try:
        if not settings.reuse_port:
            await listen()
        loading = loop.run_in_executor(executor, load_first, settings, control, wanted)
        await _unless(stopping, loading)
        if settings.reuse_port and not stopping.is_set():
            await listen()  # not before: the port's other processes take the calls
        while not stopping.is_set():
            if not health.ready and not control.unserved():
                _spare_collector()
                health.set_ready(True)
                log.info("ready", models=control.served)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stopping.wait(), looks.seconds)
                break
            await _unless(stopping, loop.run_in_executor(executor, looks.look))
        log.info("draining", delay=settings.drain_delay, timeout=settings.drain_timeout)
        if health.ready:  # or no load balancer sends anything
            health.set_ready(False)
            await asyncio.sleep(settings.drain_delay)
        await _drain(transport, control, settings.drain_timeout)
    finally:
        looking.cancel()
        await transport.stop(0)
        closed = await asyncio.to_thread(control.close, _LOADING_SECONDS)
        executor.shutdown(wait=False, cancel_futures=True)
        metrics_server.shutdown()
        metrics_server.server_close()
        if tracing is not None:
            await asyncio.to_thread(tracing.close)
    log.info("stopped")
    return closed


async def _drain(transport: Transport, control: Control, seconds: float) -> None:
    """Ends the transport. seconds: for calls to finish; what waits then is refused."""
    ending = asyncio.create_task(transport.stop(seconds + _ANSWER_SECONDS))
    done, _ = await asyncio.wait([ending], timeout=seconds)
    if not done:
        await asyncio.to_thread(control.refuse)
    await ending


async def _unless(stopping: asyncio.Event, work: asyncio.Future[Any]) -> None:
    """Waits for work, and raises what it does; no longer once the service is told to stop."""
    told = asyncio.create_task(stopping.wait())
    await asyncio.wait((work, told), return_when=asyncio.FIRST_COMPLETED)
    told.cancel()
    if work.done():
        work.result()
    else:
        work.add_done_callback(lambda done: done.cancelled() or done.exception())  # nobody waits


def _spare_collector() -> None:
    """Keeps what was loaded out of the garbage collector's sight, and lets it look less often.

    Requests leave no cycles behind, but looking for them took 3 % of the time.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 20)
