"""Handlers learn that their call has ended, and connections end when nothing runs on them."""

import time
from collections.abc import Callable

from service.transport import ConnectionLifetimes
from service.transport.http2 import frames
from service.transport.http2.frames import ErrorCode
from tests.service.transport.raw_client import RawClient, data, message
from tests.service.transport.served import SECONDS, Server

Connect = Callable[..., RawClient]
Serve = Callable[..., Server]
INVALID_ARGUMENT, DEADLINE_EXCEEDED = 3, 4


def test_a_message_cut_short_ends_the_handler_that_waits_for_it(
    connect: Connect, server: Server
) -> None:
    client = connect({})
    client.send(client.headers(1, "Collect"), data(1, message(b"abc")[:-1]))
    assert client.answer(1).status == INVALID_ARGUMENT
    assert server.methods.collected.wait(1)


def test_a_second_message_of_a_unary_call_cancels_the_handler_of_the_first(
    connect: Connect, server: Server
) -> None:
    client = connect({})
    client.send(client.headers(1, "Wait"), data(1, message(b"a"), 0), data(1, message(b"b")))
    assert client.answer(1).status == INVALID_ARGUMENT
    assert server.methods.waiting[0].done


def test_a_deadline_ends_the_handler_of_a_stream(connect: Connect, server: Server) -> None:
    client = connect({})
    client.send(client.headers(1, "Collect", grpc_timeout="20m"))
    assert client.answer(1).status == DEADLINE_EXCEEDED
    assert server.methods.collected.wait(SECONDS)
    assert server.records.calls == [("Collect", "DEADLINE_EXCEEDED")]


def test_a_damaged_message_ends_the_handler_that_waits_for_it(
    connect: Connect, server: Server
) -> None:
    client = connect({})
    client.send(client.headers(1, "Collect"), data(1, b"\1\0\0\0\1x"))
    assert client.answer(1).status != 0
    assert server.methods.collected.wait(SECONDS)


def leave(client: RawClient) -> None:
    """Reads that the server drains, and says so; reads what comes then."""
    client.until(lambda frame: frame.kind == frames.GOAWAY)
    ping = client.until(lambda frame: frame.kind == frames.PING)
    client.send(frames.frame(frames.PING, frames.ACK, 0, ping.payload))
    client.until(lambda frame: frame.kind == frames.GOAWAY)


def test_a_drain_ends_when_the_client_cancels_the_last_call(
    connect: Connect, server: Server
) -> None:
    client = connect({})
    client.call(1, "Wait")
    assert server.methods.arrived.acquire(timeout=SECONDS)
    stopping = server.begin_stop(2.0)
    leave(client)
    began = time.monotonic()
    client.send(frames.reset(1, ErrorCode.CANCEL))
    client.until_closed()
    taken = time.monotonic() - began
    stopping.result(SECONDS)
    assert taken < 1.0


def test_a_drain_serves_what_came_before_its_ping_is_acknowledged_and_nothing_after(
    connect: Connect, server: Server
) -> None:
    client = connect({})
    client.call(1, "Wait")
    assert server.methods.arrived.acquire(timeout=SECONDS)
    stopping = server.begin_stop(SECONDS)
    client.until(lambda frame: frame.kind == frames.GOAWAY)
    ping = client.until(lambda frame: frame.kind == frames.PING)
    client.call(3, "Echo", b"in time")
    assert client.answer(3).values == [b"in time"]
    client.send(frames.frame(frames.PING, frames.ACK, 0, ping.payload))
    client.call(5, "Echo", b"late")
    last = client.until(lambda frame: frame.kind == frames.GOAWAY)
    assert int.from_bytes(last.payload[:4], "big") == 3
    server.methods.release()
    assert client.answer(1).status == 0
    assert all(frame.stream != 5 for frame in client.until_closed())
    stopping.result(SECONDS)
    assert sorted(server.records.calls) == [("Echo", "OK"), ("Wait", "OK")]


def test_a_call_that_has_arrived_with_its_connection_is_served_or_sent_elsewhere(
    connect: Connect, server: Server
) -> None:
    new = RawClient(server.transport.port)
    new.until(lambda frame: frame.kind == frames.SETTINGS)
    other = connect({})
    other.call(1, "Block")
    assert server.methods.arrived.acquire(timeout=SECONDS)
    new.send(frames.PREFACE, frames.settings({}))
    new.call(1, "Echo")
    stopping = server.begin_stop(1.0)
    # The loop of the server has run, so that its thread will drain before it reads.
    server.run(_nothing())
    server.methods.unblock.set()
    found = new.until_closed()
    new.close()
    stopping.result(SECONDS)
    assert any(frame.kind == frames.GOAWAY or frame.stream == 1 for frame in found)


async def _nothing() -> None:
    """Runs after what the loop began before."""


def test_a_connection_that_nothing_runs_on_ends_with_its_age(
    serve: Serve, connect: Connect
) -> None:
    client = connect({}, to=serve(lifetimes=ConnectionLifetimes(max_connection_age=0.1)))
    leave(client)
    assert client.until_closed() == []


def test_a_stop_can_be_cut_short_by_another(connect: Connect, server: Server) -> None:
    client = connect({})
    client.call(1, "Wait")
    assert server.methods.arrived.acquire(timeout=SECONDS)
    patient = server.begin_stop(SECONDS)
    server.stop(0.0)
    patient.result(SECONDS)
    assert server.records.calls == [("Wait", "UNAVAILABLE")]
