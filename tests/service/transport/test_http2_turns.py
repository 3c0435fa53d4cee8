"""How models share the transport's thread: what waits runs in turn, a go of batches each."""

import asyncio
import queue
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from google.protobuf.wrappers_pb2 import BytesValue

import service.transport.http2.server
from service.batching import Arrays, Batcher, BatchingOptions, Entry, MonotonicClock
from service.completion import Completion
from service.transport import Call, Method, TransportOptions
from service.transport.http2.server import Http2Transport
from tests.service.fakes import FakeObserver
from tests.service.transport.raw_client import RawClient
from tests.service.transport.served import SECONDS, Records, Server

BATCH = 4
FULL, ITEM = bytes(BATCH), b"1"  # requests bring as many items as bytes


class Clock(MonotonicClock):
    """Time passes in batches alone, 1.2 ms each: two are a go."""

    def __init__(self) -> None:
        self.time = 0.0

    def now(self) -> float:
        return self.time


@dataclass
class Models:
    """Batchers behind methods of their names; `ran` names whose batch ran. Blocked batches wait."""

    transport: Http2Transport
    ran: list[str] = field(default_factory=list)
    batchers: list[Batcher] = field(default_factory=list)
    blocked: set[str] = field(default_factory=set)
    started: threading.Event = field(default_factory=threading.Event)
    gate: threading.Event = field(default_factory=threading.Event)
    clock: Clock = field(default_factory=Clock)

    def add(self, name: str, *, inline: bool) -> None:
        def run(inputs: Arrays) -> Arrays:
            self.ran.append(name)
            if name in self.blocked:
                self.started.set()
                assert self.gate.wait(SECONDS)
            self.clock.time += 0.0012
            return {"y": inputs["x"]}

        wake = self.transport.when_idle if inline else None
        options, observer = BatchingOptions((BATCH,)), FakeObserver()
        batcher = Batcher(run, options, observer, clock=self.clock, wake=wake, name=name)
        self.batchers.append(batcher)

        async def handle(request: BytesValue, call: Call) -> BytesValue:
            done: Completion[Entry] = Completion()
            items = len(request.value)
            batcher.submit({"x": np.zeros(items)}, items, done.settle)
            await done
            return request

        self.transport.add([Method("test.Test", name, BytesValue, handle)])


@pytest.fixture
def models() -> Iterator[Models]:
    """To be filled before the transport starts."""
    log: Any = Records()
    served = Models(Http2Transport(TransportOptions("127.0.0.1:0"), Records(), log))
    yield served
    served.gate.set()
    asyncio.run(served.transport.stop(0))
    for batcher in served.batchers:
        batcher.stop()
    assert log.errors == []


@pytest.fixture
def connect(models: Models) -> Iterator[Callable[[], RawClient]]:
    clients: list[RawClient] = []

    def start() -> RawClient:
        clients.append(RawClient(models.transport.port, {}))
        return clients[-1]

    yield start
    for client in clients:
        client.close()


def test_an_inline_model_waits_for_at_most_one_go_of_a_flooded_one(
    models: Models, connect: Callable[[], RawClient]
) -> None:
    models.add("Flooded", inline=True)
    models.add("Other", inline=True)
    models.blocked.add("Flooded")
    asyncio.run(models.transport.start())
    client = connect()
    client.call(1, "Flooded", FULL)
    assert models.started.wait(SECONDS)
    for stream in range(3, 23, 2):  # all arrive while the thread is busy
        client.call(stream, "Flooded", FULL)
    client.call(23, "Other", ITEM)

    models.gate.set()
    assert client.answer(23).status == 0
    assert models.ran.index("Other") <= 3  # behind the batch that ran, and a go that was due before


@pytest.mark.parametrize("inline", [True, False])
def test_no_model_waits_for_one_whose_batches_run_on_threads(
    models: Models, connect: Callable[[], RawClient], inline: bool
) -> None:
    models.add("Flooded", inline=False)
    models.add("Other", inline=inline)
    models.blocked.add("Flooded")
    asyncio.run(models.transport.start())
    client = connect()
    for stream in range(1, 21, 2):
        client.call(stream, "Flooded", FULL)
    client.call(21, "Other", ITEM)

    assert client.answer(21).status == 0
    assert models.ran.count("Flooded") <= 1


def test_what_waits_runs_although_messages_never_stop_coming(
    models: Models, connect: Callable[[], RawClient]
) -> None:
    models.add("Other", inline=True)
    handled: list[int] = []

    async def again(request: BytesValue, call: Call) -> BytesValue:
        """Before the thread looks for messages once more there is another."""
        assert models.gate.wait(SECONDS)
        handled.append(len(models.ran))
        if not models.ran and len(handled) < 1000:
            noise.call(2 * len(handled) + 1, "Again")
        return request

    models.transport.add([Method("test.Test", "Again", BytesValue, again)])
    asyncio.run(models.transport.start())
    noise, other = connect(), connect()
    noise.call(1, "Again")
    other.call(1, "Other", ITEM)

    models.gate.set()
    assert other.answer(1).status == 0
    assert len(handled) < 1000


def test_what_another_thread_asks_for_soon_runs_on_the_transports(
    monkeypatch: pytest.MonkeyPatch, serve: Callable[..., Server]
) -> None:
    monkeypatch.setattr(service.transport.http2.server, "_SLOW_TICK", 3600.0)  # it must be woken
    server = serve()
    ran: queue.SimpleQueue[bool] = queue.SimpleQueue()
    for _ in range(1000):  # asleep or not, whenever it comes
        server.transport.call_soon(lambda: ran.put(server.transport.on_thread()))
        assert ran.get(timeout=SECONDS) is True


def test_nothing_breaks_where_the_transport_has_ended() -> None:
    log: Any = Records()
    transport = Http2Transport(TransportOptions("127.0.0.1:0"), Records(), log)

    async def live() -> None:
        await transport.start()
        await transport.stop(0)

    asyncio.run(live())
    transport.call_soon(lambda: None)
