"""A connection's life, and what ends it."""

import contextlib
from collections.abc import Callable

import pytest

from service.transport import ConnectionLifetimes
from service.transport.http2 import frames
from service.transport.http2.frames import ErrorCode, Setting
from tests.service.transport.raw_client import Frame, RawClient, data, message
from tests.service.transport.served import SECONDS, Server

Connect = Callable[..., RawClient]
Serve = Callable[..., Server]
ACK, END, PADDED = frames.ACK, frames.END_HEADERS, frames.PADDED


def go_away(found: list[Frame]) -> ErrorCode:
    """Why the connection ended."""
    assert found[-1].kind == frames.GOAWAY
    return ErrorCode(int.from_bytes(found[-1].payload[4:8], "big"))


def test_settings_and_pings_are_acknowledged(connect: Connect) -> None:
    client = connect({})
    client.until(lambda frame: (frame.kind, frame.flags) == (frames.SETTINGS, ACK))
    client.send(frames.frame(frames.PING, 0, 0, b"12345678"))
    pong = client.until(lambda frame: frame.kind == frames.PING)
    assert (pong.flags, pong.payload) == (ACK, b"12345678")


def test_the_server_says_its_limits_first(serve: Serve, connect: Connect) -> None:
    first = connect({}, to=serve(max_concurrent_streams=7)).read()
    assert first is not None
    assert first.kind == frames.SETTINGS
    values = frames.read_settings(first.payload)
    assert values[Setting.MAX_CONCURRENT_STREAMS] == 7


@pytest.mark.parametrize(
    "bytes_sent",
    [b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", b"\x16\x03\x01\x02\x00\x01", bytes(100)],
    ids=["http/1", "tls", "zeros"],
)
def test_another_protocol_is_refused(server: Server, bytes_sent: bytes) -> None:
    client = RawClient(server.transport.port)
    client.send(bytes_sent)
    assert go_away(client.until_closed()) is ErrorCode.PROTOCOL_ERROR
    client.close()


@pytest.mark.parametrize(
    ("frame", "code"),
    [
        (frames.head(2**17 + 1, frames.DATA, 0) + bytes(4), ErrorCode.FRAME_SIZE_ERROR),
        (frames.frame(frames.SETTINGS, 0, 0, b"12345"), ErrorCode.FRAME_SIZE_ERROR),
        (frames.frame(frames.PING, 0, 0, b"1234567"), ErrorCode.FRAME_SIZE_ERROR),
        (frames.frame(frames.WINDOW_UPDATE, 0, 0, b"123"), ErrorCode.FRAME_SIZE_ERROR),
        (frames.frame(frames.RST_STREAM, 0, 1, b"123"), ErrorCode.FRAME_SIZE_ERROR),
        (frames.reset(1, ErrorCode.CANCEL), ErrorCode.PROTOCOL_ERROR),
        (frames.frame(frames.PUSH_PROMISE, 0, 1, bytes(4)), ErrorCode.PROTOCOL_ERROR),
        (frames.frame(frames.CONTINUATION, 0, 1, b"x"), ErrorCode.PROTOCOL_ERROR),
        (frames.frame(frames.DATA, 0, 1, b"x"), ErrorCode.PROTOCOL_ERROR),
        (frames.frame(frames.DATA, 0, 2, b"x"), ErrorCode.PROTOCOL_ERROR),
        (frames.frame(frames.HEADERS, frames.END_HEADERS, 2, b"\x83"), ErrorCode.PROTOCOL_ERROR),
        (frames.frame(frames.HEADERS, frames.END_HEADERS, 0, b"\x83"), ErrorCode.PROTOCOL_ERROR),
        (frames.frame(frames.HEADERS, END, 1, b"\xff\xff\xff"), ErrorCode.COMPRESSION_ERROR),
        (frames.frame(frames.HEADERS, END | PADDED, 1, b"\x09\x83"), ErrorCode.PROTOCOL_ERROR),
        (frames.frame(frames.HEADERS, END | PADDED, 1, b""), ErrorCode.PROTOCOL_ERROR),
        (frames.settings({Setting.INITIAL_WINDOW_SIZE: 2**31}), ErrorCode.FLOW_CONTROL_ERROR),
        (frames.settings({Setting.MAX_FRAME_SIZE: 100}), ErrorCode.PROTOCOL_ERROR),
    ],
)  # fmt: skip
def test_a_frame_against_the_rules_ends_its_connection_alone(
    connect: Connect, frame: bytes, code: ErrorCode
) -> None:
    other = connect({})
    client = connect({})
    client.send(frame)
    assert go_away(client.until_closed()) is code
    other.call(1, "Echo", b"unharmed")
    assert other.answer(1).values == [b"unharmed"]


def test_padding_and_priorities_are_skipped(connect: Connect) -> None:
    client = connect({})
    block = client.headers(1, "Echo")[9:]
    flags = frames.END_HEADERS | frames.PADDED | frames.WITH_PRIORITY
    client.send(frames.frame(frames.HEADERS, flags, 1, b"\x03" + bytes(5) + block + bytes(3)))
    client.send(frames.frame(frames.PRIORITY, 0, 1, bytes(5)), frames.frame(77, 0, 1, b"unknown"))
    content = b"\x02" + message(b"padded") + bytes(2)
    client.send(frames.frame(frames.DATA, frames.END_STREAM | frames.PADDED, 1, content))
    assert client.answer(1).values == [b"padded"]


def test_headers_may_come_in_pieces(connect: Connect) -> None:
    client = connect({})
    block = client.headers(1, "Echo", note="long" * 100)[9:]
    client.send(frames.frame(frames.HEADERS, 0, 1, block[:10]))
    client.send(frames.frame(frames.CONTINUATION, 0, 1, block[10:20]))
    client.send(frames.frame(frames.CONTINUATION, frames.END_HEADERS, 1, block[20:]))
    client.send(data(1, message(b"whole")))
    assert client.answer(1).values == [b"whole"]


def test_headers_without_an_end_are_refused(connect: Connect) -> None:
    client = connect({})
    client.send(frames.frame(frames.HEADERS, 0, 1, b""))
    for _ in range(5):
        client.send(frames.frame(frames.CONTINUATION, 0, 1, bytes(2**14)))
    assert go_away(client.until_closed()) is ErrorCode.ENHANCE_YOUR_CALM


def test_between_pieces_of_headers_nothing_else_may_come(connect: Connect) -> None:
    client = connect({})
    client.send(frames.frame(frames.HEADERS, 0, 1, b""), frames.frame(frames.PING, 0, 0, bytes(8)))
    assert go_away(client.until_closed()) is ErrorCode.PROTOCOL_ERROR


def test_more_streams_than_allowed_are_refused_and_may_come_again(
    serve: Serve, connect: Connect
) -> None:
    server = serve(max_concurrent_streams=2)
    client = connect({}, to=server)
    for stream in (1, 3, 5):
        client.call(stream, "Wait")
    assert client.answer(5).reset == ErrorCode.REFUSED_STREAM
    server.methods.release()
    assert client.answer(1).status == 0
    client.call(7, "Echo")
    assert client.answer(7).status == 0


def test_a_reset_cancels_the_handler(connect: Connect, server: Server) -> None:
    client = connect({})
    client.call(1, "Wait")
    assert server.methods.arrived.acquire(timeout=SECONDS)
    client.send(frames.reset(1, ErrorCode.CANCEL))
    assert server.records.ended.acquire(timeout=SECONDS)
    assert server.records.calls == [("Wait", "CANCELLED")]
    assert server.methods.waiting[0].done


def test_a_closed_connection_cancels_its_handlers(connect: Connect, server: Server) -> None:
    client = connect({})
    client.call(1, "Wait")
    client.send(client.headers(3, "Collect"))
    for _ in range(2):  # a close may be a reset, which overtakes what has not been read
        assert server.methods.arrived.acquire(timeout=SECONDS)
    client.close()
    for _ in range(2):
        assert server.records.ended.acquire(timeout=SECONDS)
    assert sorted(server.records.calls) == [("Collect", "CANCELLED"), ("Wait", "CANCELLED")]


def test_who_says_nothing_is_closed(serve: Serve, connect: Connect) -> None:
    server = serve(lifetimes=ConnectionLifetimes(handshake_timeout=0.1))
    silent = RawClient(server.transport.port)
    assert [frame.kind for frame in silent.until_closed()] == [
        frames.SETTINGS,
        frames.WINDOW_UPDATE,
    ]
    silent.close()


def test_who_answers_no_ping_is_closed(serve: Serve, connect: Connect) -> None:
    lifetimes = ConnectionLifetimes(keepalive_time=0.1, keepalive_timeout=0.1)
    client = connect({}, to=serve(lifetimes=lifetimes))
    assert client.until_closed()[-1].kind == frames.PING


def test_who_answers_pings_stays(serve: Serve, connect: Connect) -> None:
    lifetimes = ConnectionLifetimes(keepalive_time=0.1, keepalive_timeout=0.5)
    client = connect({}, to=serve(lifetimes=lifetimes))
    for _ in range(2):
        ping = client.until(lambda frame: frame.kind == frames.PING)
        client.send(frames.frame(frames.PING, ACK, 0, ping.payload))
    client.call(1, "Echo")
    assert client.answer(1).status == 0


def drained(client: RawClient) -> None:
    """Reads that the client shall go, and says that it has."""
    client.until(lambda frame: frame.kind == frames.GOAWAY)
    ping = client.until(lambda frame: frame.kind == frames.PING)
    client.send(frames.frame(frames.PING, ACK, 0, ping.payload))


def test_an_old_connection_ends_when_its_last_call_has(serve: Serve, connect: Connect) -> None:
    server = serve(lifetimes=ConnectionLifetimes(max_connection_age=0.1))
    client = connect({}, to=server)
    client.call(1, "Wait")
    assert server.methods.arrived.acquire(timeout=SECONDS)
    client.until(lambda frame: frame.kind == frames.GOAWAY)
    client.call(3, "Wait")  # sent before the client has read that it shall go
    assert server.methods.arrived.acquire(timeout=SECONDS)
    ping = client.until(lambda frame: frame.kind == frames.PING)
    client.send(frames.frame(frames.PING, ACK, 0, ping.payload))
    last = client.until(lambda frame: frame.kind == frames.GOAWAY)
    assert int.from_bytes(last.payload[:4], "big") == 3
    client.call(5, "Echo")  # too late: elsewhere
    server.methods.release()
    found = client.until_closed()
    assert {frame.stream for frame in found if frame.kind == frames.DATA} == {1, 3}


def test_an_old_connection_ends_after_its_grace(serve: Serve, connect: Connect) -> None:
    lifetimes = ConnectionLifetimes(max_connection_age=0.1, max_connection_age_grace=0.1)
    server = serve(lifetimes=lifetimes)
    client = connect({}, to=server)
    client.call(1, "Wait")
    client.until_closed()
    assert server.records.calls == [("Wait", "UNAVAILABLE")]


def test_a_stop_serves_what_has_begun(connect: Connect, server: Server) -> None:
    client = connect({})
    client.call(1, "Wait")
    assert server.methods.arrived.acquire(timeout=SECONDS)
    stopping = server.begin_stop(SECONDS)
    drained(client)
    server.methods.release()
    assert client.answer(1).status == 0
    stopping.result(SECONDS)
    assert {frame.kind for frame in client.until_closed()} <= {frames.GOAWAY}


def test_a_stop_without_grace_cancels(connect: Connect, server: Server) -> None:
    client = connect({})
    client.call(1, "Wait")
    assert server.methods.arrived.acquire(timeout=SECONDS)
    server.stop(0.0)
    assert client.answer(1).status == 14
    assert server.records.calls == [("Wait", "UNAVAILABLE")]


def test_pings_without_end_from_who_reads_nothing_end_the_connection(connect: Connect) -> None:
    client = connect({})
    pings = frames.frame(frames.PING, 0, 0, bytes(8)) * 10_000
    with contextlib.suppress(OSError):
        while True:
            client.send(pings)
