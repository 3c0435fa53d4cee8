"""A service that answers as it is told, on a real socket."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import grpc
import pytest
from google.protobuf import any_pb2
from google.rpc import error_details_pb2, status_pb2
from vae.v1 import vae_service_pb2 as vae_pb
from vae.v1 import vae_service_pb2_grpc as vae_grpc

from vae_client import messages

Failure = tuple[grpc.StatusCode, float | None]
"""A code, and the seconds of its RetryInfo."""


@dataclass
class Script(vae_grpc.VaeServiceServicer):
    """Fails with each failure in turn, then answers. requests: those that came. answer: what a
    call waits for."""

    failures: list[Failure] = field(default_factory=list)
    requests: list[Any] = field(default_factory=list)
    remaining: list[float] = field(default_factory=list)
    credentials: list[Any] = field(default_factory=list)
    chunks_before_failure: int = 0
    target: str = ""
    answer: threading.Event | None = None
    arrived: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))

    def Sample(  # noqa: N802 - protobuf's name
        self, request: vae_pb.SampleRequest, context: grpc.ServicerContext
    ) -> Any:
        self._fail_or_go_on(request, context)
        return self._answer(request)

    def Encode(  # noqa: N802 - protobuf's name
        self, request: vae_pb.EncodeRequest, context: grpc.ServicerContext
    ) -> Any:
        self._fail_or_go_on(request, context)
        return vae_pb.EncodeResponse(mean=request.observations, log_variance=request.observations)

    def SampleStream(  # noqa: N802 - as above
        self, request: vae_pb.SampleStreamRequest, context: grpc.ServicerContext
    ) -> Iterator[vae_pb.SampleStreamResponse]:
        draw = request.request
        for index in range(draw.start_index, draw.start_index + draw.sample_count):
            if index - draw.start_index == self.chunks_before_failure:
                self._fail_or_go_on(request, context)
            chunk = self._answer(vae_pb.SampleRequest(sample_count=1, seed=7))
            yield vae_pb.SampleStreamResponse(response=chunk, start_index=index)

    def EncodeStream(  # noqa: N802 - as above
        self, requests: Iterator[vae_pb.EncodeStreamRequest], context: grpc.ServicerContext
    ) -> Iterator[vae_pb.EncodeStreamResponse]:
        for index, message in enumerate(requests):
            if index == self.chunks_before_failure:
                self._fail_or_go_on(message, context)
            mean = message.request.observations
            response = vae_pb.EncodeResponse(mean=mean, log_variance=mean)
            yield vae_pb.EncodeStreamResponse(response=response)

    def _answer(self, request: vae_pb.SampleRequest) -> vae_pb.SampleResponse:
        values = [[0.0]] * request.sample_count
        return vae_pb.SampleResponse(
            observations=messages.to_tensor(values, "observations"), seed=request.seed
        )

    def _fail_or_go_on(self, request: Any, context: grpc.ServicerContext) -> None:
        self.requests.append(request)
        self.remaining.append(context.time_remaining())
        self.credentials.append(dict(context.invocation_metadata()).get("authorization"))
        self.arrived.release()
        if self.answer is not None:
            self.answer.wait(10)
        if not self.failures:
            return
        code, delay = self.failures.pop(0)
        if delay is not None:
            context.set_trailing_metadata([("grpc-status-details-bin", _details(delay))])
        context.abort(code, "as it was told")


def _details(delay: float) -> bytes:
    retry = error_details_pb2.RetryInfo()
    retry.retry_delay.FromNanoseconds(round(delay * 1e9))
    packed = any_pb2.Any()
    packed.Pack(retry)
    return status_pb2.Status(details=[packed]).SerializeToString()


@pytest.fixture
def script() -> Iterator[Callable[..., Script]]:
    """Starts a service with the failures given."""
    servers: list[grpc.Server] = []

    def start(*failures: Failure, **options: Any) -> Script:
        served = Script(list(failures), **options)
        size = [("grpc.max_receive_message_length", -1)]
        server = grpc.server(ThreadPoolExecutor(4), options=size)
        vae_grpc.add_VaeServiceServicer_to_server(served, server)
        served.target = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
        server.start()
        servers.append(server)
        return served

    yield start
    for server in servers:
        server.stop(None).wait()
