"""What a transport owes its callers whatever they do, over a real socket and both transports."""

import statistics
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager

import grpc
import numpy as np
import pytest
from vae.v1.tensor_pb2 import DATA_TYPE_FLOAT32, Tensor
from vae.v1.vae_service_pb2 import DecodeRequest, SampleRequest, SampleStreamRequest, ScoreRequest
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


class Flood:
    """A client that has so many calls under way, always."""

    def __init__(self, target: str, calls: int) -> None:
        self.answered = 0
        self.errors: list[grpc.RpcError] = []
        self._going_on = True
        self._channel = grpc.insecure_channel(target, [("grpc.use_local_subchannel_pool", 1)])
        self._left = threading.Semaphore(0)
        self._calls = calls
        observation = Tensor(data_type=DATA_TYPE_FLOAT32, shape=[1, 1, 8, 8], data=bytes(256))
        # Costlier for the service than for this client, so that some wait at any time.
        self._request = ScoreRequest(model="models/digits", observations=observation, draws=100)

    def __enter__(self) -> "Flood":
        for _ in range(self._calls):
            self._call()
        return self

    def __exit__(self, *_: object) -> None:
        self._going_on = False
        for _ in range(self._calls):
            assert self._left.acquire(timeout=30)
        self._channel.close()

    def _call(self) -> None:
        score = VaeServiceStub(self._channel).Score
        call = score.future(self._request, timeout=30)
        call.add_done_callback(self._ended)

    def _ended(self, call: grpc.Future) -> None:  # one at a time: a channel has one such thread
        if (error := call.exception()) is not None:
            self.errors.append(error)
        self.answered += 1
        if self._going_on:
            self._call()
        else:
            self._left.release()


def test_who_has_one_call_under_way_waits_for_no_more_than_was_there_before_it(
    service: ServiceProcess,
) -> None:
    calls, turns = 20, []
    observation = np.zeros((1, 1, 8, 8))
    with Flood(service.target, calls) as flood, VaeClient(service.target) as client:
        for seed in range(50):
            before = flood.answered
            client.score("digits", observation, seed=seed)
            turns.append(flood.answered - before)
        # What came before it, and what is answered while its answer is on its way.
        assert statistics.quantiles(turns, n=10)[-1] < 3 * calls
        assert sum(turns) > 2 * len(turns)  # or it was no flood

    assert flood.errors == []


def test_a_call_without_a_message_ends_with_an_error(channel: grpc.Channel) -> None:
    caller = Caller(channel, timeout=1.0)  # grpc's asyncio server waits for the deadline
    caller.finish()

    with pytest.raises(grpc.RpcError):
        caller.call.result()


@pytest.mark.parametrize(("size", "code"), [(15_500, "OK"), (16_500, "RESOURCE_EXHAUSTED")])
def test_metadata_has_one_limit_below_which_none_is_refused(
    channel: grpc.Channel, size: int, code: str
) -> None:
    call = VaeServiceStub(channel).Sample
    asked = SampleRequest(model="models/digits", sample_count=1)
    for _ in range(10):
        future = call.future(asked, metadata=(("x-large", "v" * size),), timeout=30)
        assert future.code().name == code


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


def test_the_chosen_transport_and_the_limits_that_it_lacks_are_in_the_log(
    start_service: StartService, transport: str
) -> None:
    lines: list[str] = []
    with start_service(echo=lines.append) as service:
        service.stop()

    assert f'"transport": "{transport}"' in lines[0]
    ignored = [line for line in lines if "limits_without_effect" in line]
    assert len(ignored) == (transport == "public")
    assert all("--max-connections" in line and "--max-held-mib" in line for line in ignored)
