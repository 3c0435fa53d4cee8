"""OpenTelemetry traces: a span for every RPC, with what its items waited for and ran in.

Names are those of the semantic conventions for RPC. A caller's context comes as W3C's `traceparent`
and `tracestate`; whether a trace is recorded is decided where it begins.
"""

import threading
import time
from collections.abc import Coroutine, Iterable
from dataclasses import replace
from importlib import metadata
from typing import Any, Final, TypeVar
from uuid import uuid4

import grpc
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter as GrpcExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter as HttpExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased
from opentelemetry.trace import Span, SpanKind, StatusCode, Tracer, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from service.completion import Completion
from service.errors import Cancelled, ServiceError
from service.spans import Within
from service.status import status_of
from service.transport import Call, Method, Response, Stream, StreamMethod
from service.transport.metadata import REQUEST_ID, request_id, values_of

T = TypeVar("T")
_DISTRIBUTION: Final = "vae-serving"
_EXPORT_SECONDS: Final = 2.0
_LAST_SECONDS: Final = 3.0  # a collector that hangs must not hold up the end of the service
_DELAY_MILLIS: Final = 1000
_QUEUE, _BATCH = 4096, 512
_PROPAGATOR: Final = TraceContextTextMapPropagator()
# Of a server's span: what its caller did wrong is no error of the server.
_ERRORS: Final = {
    grpc.StatusCode.UNKNOWN,
    grpc.StatusCode.DEADLINE_EXCEEDED,
    grpc.StatusCode.UNIMPLEMENTED,
    grpc.StatusCode.INTERNAL,
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.DATA_LOSS,
}


class Tracing:
    """Records spans and sends them to a collector, from a thread of its own."""

    def __init__(self, endpoint: str, ratio: float) -> None:
        """endpoint: http[s]://HOST:PORT/PATH, or grpc[s]://HOST:PORT, which take OTLP. ratio: of
        the traces that begin here, 0 to 1."""
        self._provider = TracerProvider(
            sampler=ParentBased(TraceIdRatioBased(ratio)),
            resource=Resource(
                {
                    "service.name": _DISTRIBUTION,
                    "service.version": metadata.version(_DISTRIBUTION),
                    "service.instance.id": str(uuid4()),
                }
            ),
            shutdown_on_exit=False,
        )
        self._provider.add_span_processor(
            BatchSpanProcessor(
                _exporter(endpoint),
                max_queue_size=_QUEUE,
                schedule_delay_millis=_DELAY_MILLIS,
                max_export_batch_size=_BATCH,
            )
        )
        self._tracer = self._provider.get_tracer(_DISTRIBUTION)

    def traced(self, methods: Iterable[Method | StreamMethod]) -> list[Method | StreamMethod]:
        """The methods, each with a span around its handler."""
        return [
            self._unary(method) if isinstance(method, Method) else self._stream(method)
            for method in methods
        ]

    def close(self) -> None:
        """Sends what is left, as far as the collector takes it within some seconds."""
        thread = threading.Thread(target=self._provider.shutdown, daemon=True)
        thread.start()
        thread.join(_LAST_SECONDS)

    def _unary(self, method: Method) -> Method:
        async def handle(request: Any, call: Call) -> Response:
            started = self._start(method.path, call)
            return await self._record(*started, method.handler(request, call), call)

        return replace(method, handler=handle)

    def _stream(self, method: StreamMethod) -> StreamMethod:
        async def handle(stream: Stream) -> None:
            started = self._start(method.path, stream.call)
            await self._record(*started, method.handler(stream), stream.call)

        return replace(method, handler=handle)

    def _start(self, path: str, call: Call) -> tuple[Span, int]:
        """The span of a call, and what its times are counted from: nanoseconds of the wall clock
        when the monotonic one was at 0, so that a wall clock that is set meanwhile bends none."""
        now = time.monotonic_ns()
        epoch = time.time_ns() - now
        attributes: dict[str, str | tuple[str, ...]] = {
            "rpc.system.name": "grpc",
            "rpc.method": path,
        }
        if identity := request_id(values_of(call.metadata, REQUEST_ID)):
            attributes[f"rpc.request.metadata.{REQUEST_ID}"] = (identity,)
        span = self._tracer.start_span(
            path,
            _context(call),
            kind=SpanKind.SERVER,
            attributes=attributes,
            start_time=epoch + now,
        )
        return span, epoch

    async def _record(
        self, span: Span, epoch: int, handler: Coroutine[Completion[Any], None, T], call: Call
    ) -> T:
        if not span.is_recording():
            return await handler
        code = grpc.StatusCode.OK
        try:
            return await Within(_Recorder(self._tracer, span, epoch), handler)
        except Exception as error:
            code = _code(error, call)
            raise
        finally:
            span.set_attribute("rpc.response.status_code", code.name)
            if code in _ERRORS:
                span.set_attribute("error.type", code.name)
                span.set_status(StatusCode.ERROR)
            span.end(epoch + time.monotonic_ns())


class _Recorder:
    """See `service.spans.Recorder`."""

    def __init__(self, tracer: Tracer, span: Span, epoch: int) -> None:
        self._tracer = tracer
        self._epoch = epoch
        self._context = set_span_in_context(span, Context())

    def queued(self, graph: str, started: float, ended: float) -> None:
        """See Recorder."""
        self._add("queue", started, ended, {"vae.graph": graph})

    def computed(self, graph: str, started: float, ended: float, items: int) -> None:
        """See Recorder."""
        self._add("compute", started, ended, {"vae.graph": graph, "vae.items": items})

    def _add(
        self, name: str, started: float, ended: float, attributes: dict[str, str | int]
    ) -> None:
        begin, end = (self._epoch + round(moment * 1e9) for moment in (started, ended))
        span = self._tracer.start_span(name, self._context, attributes=attributes, start_time=begin)
        span.end(end)


def _exporter(endpoint: str) -> SpanExporter:
    scheme, _, address = endpoint.partition("://")
    if scheme.startswith("http"):
        return HttpExporter(endpoint, timeout=_EXPORT_SECONDS)
    return GrpcExporter(address, insecure=scheme == "grpc", timeout=_EXPORT_SECONDS)


def _context(call: Call) -> Context:
    """The caller's; empty without one, or with one that is not as it must be."""
    parents = values_of(call.metadata, "traceparent")
    if len(parents) != 1:
        return Context()
    states = ",".join(values_of(call.metadata, "tracestate"))
    return _PROPAGATOR.extract({"traceparent": parents[0], "tracestate": states}, Context())


def _code(error: Exception, call: Call) -> grpc.StatusCode:
    late = call.deadline is not None and call.deadline <= time.monotonic()
    if isinstance(error, Cancelled) and late:
        return grpc.StatusCode.DEADLINE_EXCEEDED
    return status_of(error)[0] if isinstance(error, ServiceError) else grpc.StatusCode.INTERNAL
