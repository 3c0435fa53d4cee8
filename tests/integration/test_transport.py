"""What a transport owes its callers whatever they do, over a real socket and both transports."""

import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager

import grpc
import numpy as np
import pytest
from vae.v1.tensor_pb2 import DATA_TYPE_FLOAT32, Tensor
from vae.v1.vae_service_pb2 import DecodeRequest, SampleRequest, SampleStreamRequest
from vae.v1.vae_service_pb2_grpc import VaeServiceStub

from scripts.launch import ServiceProcess
from vae_client import VaeClient
from vae_client.errors import error_of

StartService = Callable[..., AbstractContextManager[ServiceProcess]]
DECODE = "/vae.v1.VaeService/Decode"


class Caller:
    """Calls Decode in pieces: its header at once, its message when told."""

    def __init__(self, channel: grpc.Channel, timeout: float = 30.0) -> None:
        self._go_on = threading.Event()
        self._messages: list[bytes] = []
        self.call = channel.stream_unary(DECODE).future(self._send(), timeout=timeout)

    def _send(self) -> Iterator[bytes]:
        self._go_on.wait()
        yield from self._messages

    def finish(self, *messages: bytes) -> None:
        self._messages += messages
        self._go_on.set()


def request() -> bytes:
    latents = Tensor(data_type=DATA_TYPE_FLOAT32, shape=[1, 8], data=bytes(32))
    return DecodeRequest(model="models/digits", latents=latents).SerializeToString()


def test_a_caller_that_keeps_its_message_back_delays_nobody(
    channel: grpc.Channel, client: VaeClient
) -> None:
    slow = [Caller(channel) for _ in range(20)]

    for seed in range(50):
        client.sample("digits", 1, seed=seed)
    for caller in slow:
        caller.finish(request())

    assert all(caller.call.result() for caller in slow)


def test_a_call_without_a_message_ends_with_an_error(channel: grpc.Channel) -> None:
    caller = Caller(channel, timeout=1.0)  # grpc's asyncio server waits for the deadline
    caller.finish()

    with pytest.raises(grpc.RpcError):
        caller.call.result()


def test_calls_that_are_cancelled_at_any_moment_do_no_harm(
    channel: grpc.Channel, client: VaeClient
) -> None:
    stub = VaeServiceStub(channel)
    expected = client.sample("digits", 200, seed=1).observations

    for index in range(200):
        call = stub.Sample.future(SampleRequest(model="models/digits", sample_count=200))
        if index % 2:
            call.cancel()
    answer = client.sample("digits", 200, seed=1)

    np.testing.assert_allclose(answer.observations, expected, atol=1e-6)


def test_a_deadline_that_has_passed_ends_a_stream(channel: grpc.Channel) -> None:
    draw = SampleRequest(model="models/digits", sample_count=2**40)
    stream = VaeServiceStub(channel).SampleStream(SampleStreamRequest(request=draw), timeout=0.3)

    with pytest.raises(grpc.RpcError) as caught:
        for _ in stream:
            pass

    assert error_of(caught.value).code is grpc.StatusCode.DEADLINE_EXCEEDED


def test_a_call_that_never_ends_does_not_keep_the_service_alive(
    start_service: StartService,
) -> None:
    with (
        start_service("--drain-timeout", "0.2") as service,
        grpc.insecure_channel(service.target) as channel,
    ):
        caller = Caller(channel)
        draw = SampleRequest(model="models/digits", sample_count=2**40)
        stream = VaeServiceStub(channel).SampleStream(SampleStreamRequest(request=draw))
        next(stream)

        code = service.stop()
        caller.finish()

    assert code == 0
    with pytest.raises(grpc.RpcError):
        list(stream)


def test_the_service_ends_well_right_after_its_start(start_service: StartService) -> None:
    with start_service() as service:
        assert service.stop() == 0


def test_the_chosen_transport_is_in_the_log(start_service: StartService, transport: str) -> None:
    lines: list[str] = []
    with start_service(echo=lines.append) as service:
        service.stop()

    assert f'"transport": "{transport}"' in lines[0]
