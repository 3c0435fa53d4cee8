"""Traces of a real service, as a collector gets them, with both transports."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.message import Message
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status
from vae.v1 import tensor_pb2, vae_service_pb2_grpc
from vae.v1.vae_service_pb2 import (
    DecodeRequest,
    DecodeStreamRequest,
    SampleRequest,
    SampleStreamRequest,
)

from scripts.launch import ServiceProcess
from service.auth.tokens import entry

StartService = Callable[..., AbstractContextManager[ServiceProcess]]
MODEL = "models/digits"
LATENTS = tensor_pb2.Tensor(
    data_type=tensor_pb2.DATA_TYPE_FLOAT32, shape=[2, 8], data=bytes(2 * 8 * 4)
)


class Collector:
    """Takes what is exported to it by OTLP over HTTP."""

    def __init__(self) -> None:
        self.requests: list[ExportTraceServiceRequest] = []
        requests = self.requests

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                requests.append(ExportTraceServiceRequest.FromString(body))
                self.send_response(200)
                self.end_headers()
                self.wfile.write(ExportTraceServiceResponse().SerializeToString())

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002
                """Says nothing."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_port}/v1/traces"

    @property
    def spans(self) -> list[Span]:
        return [
            span
            for request in self.requests
            for resource in request.resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        ]

    def of(self, trace_id: int) -> dict[str, list[Span]]:
        """The spans of a trace by their names."""
        found: dict[str, list[Span]] = {}
        for span in self.spans:
            if span.trace_id == trace_id.to_bytes(16, "big"):
                found.setdefault(span.name, []).append(span)
        return found


@pytest.fixture
def collector() -> Iterator[Collector]:
    made = Collector()
    thread = threading.Thread(target=made.server.serve_forever, args=(0.01,))
    thread.start()
    yield made
    made.server.shutdown()
    made.server.server_close()
    thread.join()


@pytest.fixture
def grpc_endpoint(collector: Collector) -> Iterator[str]:
    """Takes what is exported to it by OTLP over gRPC."""

    def export(
        request: ExportTraceServiceRequest, context: grpc.ServicerContext
    ) -> ExportTraceServiceResponse:
        collector.requests.append(request)
        return ExportTraceServiceResponse()

    handler = grpc.unary_unary_rpc_method_handler(
        export, ExportTraceServiceRequest.FromString, ExportTraceServiceResponse.SerializeToString
    )
    server = grpc.server(ThreadPoolExecutor(1))
    service = "opentelemetry.proto.collector.trace.v1.TraceService"
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler(service, {"Export": handler}),)
    )
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield f"grpc://127.0.0.1:{port}"
    server.stop(None).wait()


def values(span: Span | Message) -> dict[str, Any]:
    found = {}
    for attribute in span.attributes:  # type: ignore[union-attr]
        value = attribute.value
        found[attribute.key] = getattr(value, value.WhichOneof("value"))
    return found


def parent(trace_id: int, flags: str = "01", span_id: int = 0xB7AD6B7169203331) -> Any:
    return (("traceparent", f"00-{trace_id:032x}-{span_id:016x}-{flags}"),)


def test_calls_are_traced_in_the_context_of_their_callers(
    start_service: StartService, collector: Collector
) -> None:
    options = ("--trace-endpoint", collector.url, "--trace-ratio", "0")
    with (
        start_service(*options) as service,
        grpc.insecure_channel(service.target) as channel,
    ):
        vae = vae_service_pb2_grpc.VaeServiceStub(channel)
        sample = SampleRequest(model=MODEL, sample_count=3)
        vae.Sample(sample, metadata=(*parent(1), ("x-request-id", "mine")), timeout=10)
        vae.Sample(sample, metadata=parent(2, flags="00"), timeout=10)  # its caller records nothing
        vae.Sample(sample, timeout=10)  # no caller; of those none is recorded
        vae.Sample(sample, metadata=(("traceparent", "00-0-0-01"),), timeout=10)
        with pytest.raises(grpc.RpcError):
            vae.Sample(SampleRequest(model=MODEL), metadata=parent(3), timeout=10)
        stream = DecodeStreamRequest(request=DecodeRequest(model=MODEL, latents=LATENTS))
        assert len(list(vae.DecodeStream(iter([stream] * 3), metadata=parent(4), timeout=10))) == 3
        chunks = SampleStreamRequest(
            request=SampleRequest(model=MODEL, sample_count=40), chunk_items=20
        )
        assert len(list(vae.SampleStream(chunks, metadata=parent(5), timeout=10))) == 2
        service.stop()  # sends what is left

    assert {int.from_bytes(span.trace_id, "big") for span in collector.spans} == {1, 3, 4, 5}
    first = collector.of(1)
    [rpc], [queue], [compute] = (first.pop(name) for name in (
        "vae.v1.VaeService/Sample", "queue", "compute"
    ))  # fmt: skip
    assert not first
    assert rpc.parent_span_id.hex() == "b7ad6b7169203331"
    assert rpc.kind == Span.SPAN_KIND_SERVER
    assert values(rpc)["rpc.system.name"] == "grpc"
    assert values(rpc)["rpc.method"] == "vae.v1.VaeService/Sample"
    assert values(rpc)["rpc.response.status_code"] == "OK"
    assert values(rpc)["rpc.request.metadata.x-request-id"].values[0].string_value == "mine"
    assert queue.parent_span_id == compute.parent_span_id == rpc.span_id
    assert values(compute) == {"vae.graph": "digits.decoder", "vae.items": 3}
    moments = [queue.start_time_unix_nano, compute.start_time_unix_nano]
    assert moments == sorted(moments)
    assert queue.start_time_unix_nano <= queue.end_time_unix_nano
    assert compute.start_time_unix_nano < compute.end_time_unix_nano

    [failed] = collector.of(3)["vae.v1.VaeService/Sample"]
    assert values(failed)["rpc.response.status_code"] == "INVALID_ARGUMENT"
    assert failed.status.code == Status.STATUS_CODE_UNSET  # its caller's fault
    assert [len(collector.of(4)[name]) for name in ("queue", "compute")] == [3, 3]
    assert [len(collector.of(5)[name]) for name in ("queue", "compute")] == [2, 2]

    [resource] = {str(request.resource_spans[0].resource) for request in collector.requests}
    assert "vae-serving" in resource


def test_a_share_of_the_calls_without_a_caller_is_traced(
    start_service: StartService, collector: Collector, grpc_endpoint: str, transport: str
) -> None:
    endpoint = {"http2": grpc_endpoint, "public": collector.url}[transport]  # each of both once
    options = ("--trace-endpoint", endpoint, "--trace-ratio", "1")
    with (
        start_service(*options) as service,
        grpc.insecure_channel(service.target) as channel,
    ):
        vae = vae_service_pb2_grpc.VaeServiceStub(channel)
        for _ in range(2):
            vae.Sample(SampleRequest(model=MODEL, sample_count=1), timeout=10)
        service.stop()
    roots = [span for span in collector.spans if not span.parent_span_id]
    assert [span.name for span in roots] == ["vae.v1.VaeService/Sample"] * 2  # health is none
    assert len({span.trace_id for span in roots}) == 2


def test_a_caller_without_credentials_writes_into_no_trace(
    start_service: StartService, collector: Collector, tmp_path: Path
) -> None:
    tokens = tmp_path / "tokens.toml"
    tokens.touch(0o600)
    tokens.write_text(entry("app", "token", ["infer"]))
    options = ("--trace-endpoint", collector.url, "--trace-ratio", "1", "--tokens", str(tokens))
    sample = SampleRequest(model=MODEL, sample_count=1)
    with (
        start_service(*options) as service,
        grpc.insecure_channel(service.target) as channel,
    ):
        vae = vae_service_pb2_grpc.VaeServiceStub(channel)
        for shown in ((), (("authorization", "Bearer other"),)):
            with pytest.raises(grpc.RpcError):
                vae.Sample(sample, metadata=(*parent(1), *shown), timeout=10)
        known = (*parent(2), ("authorization", "Bearer token"))
        vae.Sample(sample, metadata=known, timeout=10)
        service.stop()

    assert {int.from_bytes(span.trace_id, "big") for span in collector.spans} == {2}


def test_a_collector_that_is_gone_harms_no_call_and_no_end(
    start_service: StartService, collector: Collector
) -> None:
    collector.server.server_close()
    lines: list[str] = []
    options = ("--trace-endpoint", collector.url, "--trace-ratio", "1")
    with (
        start_service(*options, echo=lines.append) as service,
        grpc.insecure_channel(service.target) as channel,
    ):
        vae = vae_service_pb2_grpc.VaeServiceStub(channel)
        vae.Sample(SampleRequest(model=MODEL, sample_count=1), timeout=10)
        assert service.stop() == 0
    assert all(line.startswith("{") for line in lines)
