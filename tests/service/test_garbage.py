"""Requests leave no reference cycles behind: the garbage collector has nothing to stop for."""

import asyncio
import contextlib
import gc
import weakref
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator

import numpy as np
import pytest
from google.protobuf.wrappers_pb2 import BytesValue
from grpc import aio
from inference import inference_service_pb2 as inference_pb
from vae.v1 import vae_service_pb2 as vae_pb

from service.batching import Arrays, Batcher, BatchingOptions, Entry
from service.catalogue import Catalogue, Limits
from service.completion import Completion, Task, run
from service.errors import InvalidRequest
from service.inference_v2 import InferenceV2
from service.logs import make_logger
from service.metrics import Metrics
from service.model import Model, Models
from service.observations import Observing
from service.servicer import Servicer
from service.statistics import GraphStatistics
from service.transport import (
    Call,
    CallObserver,
    Handler,
    Method,
    Stream,
    StreamMethod,
    TransportOptions,
)
from service.transport.http2.server import Http2Transport
from tests.service.fake_model import FakeModel

CALLS = 20
DATA = BytesValue(value=b"x").SerializeToString()
Unary = Callable[[BytesValue, Call], Handler]


@pytest.fixture(autouse=True)
def no_collector() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def alive(*names: str) -> Counter[str]:
    """How many objects of these types there are."""
    found = Counter(type(thing).__name__ for thing in gc.get_objects())
    return Counter({name: found[name] for name in names})


class Answer(Completion[Arrays]):
    """As the model's: it knows its entry, and the entry calls it back."""

    entry: Entry

    def take(self, entry: Entry) -> None:
        self.settle(entry.outputs, entry.error)


@pytest.mark.parametrize("inline", [True, False])
def test_an_answered_entry_goes_at_once(inline: bool) -> None:
    options = BatchingOptions(buckets=(1, 2))
    wake = (lambda run_due: run_due()) if inline else None
    observer = Metrics().observer("m", 1, "g")
    batcher = Batcher(lambda inputs: inputs, options, observer, wake=wake)

    before = alive("Answer", "Entry")

    for _ in range(CALLS):
        answer = Answer()
        answer.entry = batcher.submit({"x": np.zeros(1)}, 1, answer.take)
    batcher.drain()
    del answer

    assert alive("Answer", "Entry") == before


@contextlib.asynccontextmanager
async def serving(unary: Unary, observer: CallObserver) -> AsyncIterator[aio.Channel]:
    """A channel to our transport, with a unary method and a stream that echoes."""

    async def echo(stream: Stream) -> None:
        while (request := await stream.receive()) is not None:
            await stream.send(request)

    transport = Http2Transport(TransportOptions("127.0.0.1:0"), observer, make_logger("error"))
    transport.add(
        [
            Method("test.Test", "Unary", BytesValue, unary),
            StreamMethod("test.Test", "Stream", BytesValue, echo),
        ]
    )
    await transport.start()
    async with aio.insecure_channel(f"127.0.0.1:{transport.port}") as channel:
        yield channel
    await transport.stop(5)


def test_a_call_of_our_transport_goes_at_once() -> None:
    async def unary(request: BytesValue, call: Call) -> BytesValue:
        waiting: Completion[None] = Completion()
        waiting.settle()
        await waiting
        if not request.value:
            raise InvalidRequest("value", "expected some")
        return request

    async def call_all() -> None:
        async with serving(unary, Metrics()) as channel:
            for _ in range(CALLS):
                assert await channel.unary_unary("/test.Test/Unary")(DATA) == DATA
                with pytest.raises(aio.AioRpcError):
                    await channel.unary_unary("/test.Test/Unary")(b"")
                answers = channel.stream_stream("/test.Test/Stream")(iter([DATA, DATA]))
                assert [answer async for answer in answers] == [DATA, DATA]

    names = ("Unary", "Streaming", "Completion", Task.__name__)
    before = alive(*names)

    asyncio.run(call_all())

    assert alive(*names) == before


def test_a_call_whose_client_has_gone_goes_at_once() -> None:
    ends: list[str] = []

    async def wait(request: BytesValue, call: Call) -> BytesValue:
        await Completion[None]()
        return request

    class Observer:
        def call_done(self, method: str, code: str, seconds: float) -> None:
            ends.append(code)

    async def call_all() -> None:
        async with serving(wait, Observer()) as channel:
            for _ in range(CALLS):
                talk = channel.stream_stream("/test.Test/Stream")()
                await talk.write(DATA)
                assert await talk.read() == DATA
                assert talk.cancel()
                with pytest.raises(aio.AioRpcError):
                    await channel.unary_unary("/test.Test/Unary")(DATA, timeout=0.05)

    names = ("Unary", "Streaming", "Completion", Task.__name__)
    before = alive(*names)

    asyncio.run(call_all())

    assert alive(*names) == before
    assert len(ends) == 2 * CALLS
    assert "OK" not in ends


def test_a_model_that_is_swapped_out_goes_at_once() -> None:
    catalogue = Catalogue(Limits())
    inference = InferenceV2(lambda *names: GraphStatistics(), lambda: True)
    servicer = Servicer(catalogue, Observing())

    def publish(version: int) -> "weakref.ref[Model]":
        model = FakeModel(version=version).model
        catalogue.publish(Models([model]))
        inference.publish(*catalogue.snapshot())
        return weakref.ref(model)

    first = publish(1)
    array = np.zeros((2, 2), np.float32)
    infer = inference_pb.ModelInferRequest(model_name="fake.decoder")
    infer.inputs.add(name="latents", datatype="FP32", shape=array.shape)
    infer.raw_input_contents.append(array.tobytes())
    run(inference.model_infer(infer, Call(None)))
    run(servicer.sample(vae_pb.SampleRequest(model="models/fake", sample_count=1), Call(None)))
    assert first() is not None
    publish(2)

    assert first() is None
