"""What all clients together may take: connections, memory, streams that they reset."""

import contextlib
import gzip
import struct
from collections.abc import Callable

import pytest
from google.protobuf.wrappers_pb2 import BytesValue

from service.transport import Call, ConnectionLifetimes, Method
from service.transport.http2 import frames
from service.transport.http2.frames import ErrorCode, Setting
from tests.integration.waiting import wait_until
from tests.service.transport.raw_client import Frame, RawClient, data, message
from tests.service.transport.served import SECONDS, Server

Connect = Callable[..., RawClient]
Serve = Callable[..., Server]
RESOURCE_EXHAUSTED = 8
PING = frames.frame(frames.PING, 0, 0, b"are you?")
HEALTH = {"pseudo_path": "/grpc.health.v1.Health/Check"}


async def check(request: BytesValue, call: Call) -> BytesValue:
    return request


@pytest.fixture
def full(serve: Serve, connect: Connect) -> Server:
    """A server with as many connections as it takes, of which one waits for an answer."""
    server = serve(max_connections=2)
    server.transport.add([Method("grpc.health.v1.Health", "Check", BytesValue, check)])
    for _ in range(2):
        acknowledged(connect({}, to=server))
    return server


def acknowledged(client: RawClient) -> RawClient:
    """A client whose frames have all been read."""
    client.send(PING)
    client.until(lambda frame: frame.kind == frames.PING)
    return client


def test_one_connection_too_many_asks_for_health_alone(full: Server, connect: Connect) -> None:
    probe = connect({}, to=full)
    probe.call(1, "Check", b"alive?", **HEALTH)
    assert probe.answer(1).values == [b"alive?"]
    probe.call(3, "Echo")
    assert probe.answer(3).status == RESOURCE_EXHAUSTED


def test_many_connections_too_many_are_closed_counted_and_logged_once(
    full: Server, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.transport.http2.server._SPARE_LIFETIMES", ConnectionLifetimes())
    probes = [acknowledged(connect({}, to=full)) for _ in range(16)]
    for _ in range(3):
        refused = RawClient(full.transport.port)
        assert refused.until_closed() == []
        refused.close()
    usage = full.transport.usage()
    assert (usage.connections, usage.refused) == (18, 19)
    assert full.records.warnings == ["connections_refused"]
    probes[0].call(1, "Check", b"still", **HEALTH)
    assert probes[0].answer(1).values == [b"still"]


def test_who_comes_again_before_its_spare_connection_has_ended_gets_a_whole_one_if_there_is_room(
    serve: Serve, connect: Connect
) -> None:
    server = serve(max_connections=1)
    first = acknowledged(connect({}, to=server))
    acknowledged(connect({}, to=server))  # the spare one
    first.close()
    wait_until(lambda: server.transport.usage().connections <= 1)
    again = connect({}, to=server)
    again.call(1, "Echo", b"room?")
    assert again.answer(1).values == [b"room?"]


def test_one_connection_too_many_ends_soon(
    full: Server, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    short = ConnectionLifetimes(max_connection_age=0.1, max_connection_age_grace=0.1)
    monkeypatch.setattr("service.transport.http2.server._SPARE_LIFETIMES", short)
    client = connect({}, to=full)
    client.until_closed()
    client.close()
    wait_until(lambda: full.transport.usage().connections == 2)


def test_a_connection_takes_the_place_of_one_that_has_closed(serve: Serve) -> None:
    server = serve(max_connections=1)
    for _ in range(3):
        client = RawClient(server.transport.port, {})
        client.call(1, "Echo", b"first")
        assert client.answer(1).values == [b"first"]
        client.send(b"\0" * 9)  # DATA of the connection, which ends it
        client.until_closed()
        client.close()
        wait_until(lambda: server.transport.usage().connections == 0)
    assert server.transport.usage().refused == 0


def upload(client: RawClient, stream: int, size: int, method: str = "Echo") -> bytes:
    """Begins a message and sends so many bytes of it; returns the rest."""
    content = message(bytes(2 * size))
    client.send(client.headers(stream, method))
    for start in range(0, size, 2**14):
        client.send(data(stream, content[start : min(start + 2**14, size)], 0))
    return content[size:]


def test_slow_uploads_of_one_client_end_before_those_of_others(
    serve: Serve, connect: Connect
) -> None:
    server = serve(max_held_bytes=10**6)
    other, client = connect({}, to=server), connect({}, to=server)
    rest = upload(other, 1, 200_000)
    acknowledged(other)
    for number in range(20):
        upload(client, 2 * number + 1, 100_000)
    acknowledged(client)
    assert 200_000 < server.transport.usage().held_bytes <= 10**6
    assert set(server.records.calls) == {("Echo", "RESOURCE_EXHAUSTED")}
    for part in range(0, len(rest), 2**14):
        end = frames.END_STREAM if part + 2**14 >= len(rest) else 0
        other.send(data(1, rest[part : part + 2**14], end))
    assert other.until(lambda frame: frame.kind == frames.DATA).stream == 1


def test_an_ended_upload_says_that_the_service_is_overloaded(
    serve: Serve, connect: Connect
) -> None:
    client = connect({}, to=serve(max_held_bytes=50_000))
    upload(client, 1, 60_000)
    answer = client.answer(1)
    assert answer.status == RESOURCE_EXHAUSTED
    assert "fewer" in answer.headers["grpc-message"]


@pytest.mark.parametrize("method", ["Echo", "Wait", "Talk", "Ignore", "Collect"])
@pytest.mark.parametrize("ending", ["whole", "reset", "closed"])
def test_when_its_calls_are_over_a_client_holds_nothing(
    serve: Serve, connect: Connect, method: str, ending: str
) -> None:
    server = serve()
    client = connect({Setting.INITIAL_WINDOW_SIZE: 2**20}, to=server)
    client.send(frames.window_update(0, 2**20))
    rest = upload(client, 1, 60_000, method)
    acknowledged(client)
    assert server.transport.usage().held_bytes >= 60_000
    if ending == "whole":
        for start in range(0, len(rest), 2**14):
            client.send(data(1, rest[start : start + 2**14], 0))
        client.send(data(1, b""))
        if method in ("Wait", "Ignore"):
            assert server.methods.arrived.acquire(timeout=SECONDS)
            server.methods.release()
        assert client.answer(1).status == 0
    elif ending == "reset":
        client.send(frames.reset(1, ErrorCode.CANCEL))
    else:
        client.send(b"\0" * 9)
    assert server.records.ended.acquire(timeout=SECONDS)
    if ending != "closed":
        acknowledged(client)
    wait_until(lambda: server.transport.usage().held_bytes == 0)


def test_a_stream_holds_only_what_its_handler_has_not_done_with(
    serve: Serve, connect: Connect
) -> None:
    server = serve(max_held_bytes=200_000)
    client = connect({}, to=server)
    client.send(client.headers(1, "Collect"))
    for _ in range(50):  # 5 MB
        content = message(bytes(100_000))
        client.send(data(1, content[:50_000], 0), data(1, content[50_000:], 0))
        acknowledged(client)
    client.send(data(1, b""))
    assert client.answer(1).status == 0


@pytest.mark.parametrize("method", ["Wait", "Ignore"])
def test_open_calls_of_who_has_most_end_at_the_limit(
    serve: Serve, connect: Connect, method: str
) -> None:
    server = serve(max_held_bytes=10**6)
    other, client = connect({}, to=server), connect({}, to=server)
    other.call(1, "Wait", b"unharmed")
    assert server.methods.arrived.acquire(timeout=SECONDS)
    for number in range(400):
        client.call(2 * number + 1, method)
    wait_until(lambda: len(server.records.calls) > 200)  # 2.4 MB were held
    wait_until(lambda: server.transport.usage().held_bytes <= 10**6)
    assert set(server.records.calls) == {(method, "RESOURCE_EXHAUSTED")}
    server.methods.release()
    assert other.answer(1).values == [b"unharmed"]
    assert client.answer(1).reset is None  # the oldest
    wait_until(lambda: server.transport.usage().held_bytes == 0)


def test_large_headers_of_open_calls_are_held(serve: Serve, connect: Connect) -> None:
    server = serve()
    client = connect({}, to=server)
    for stream in range(1, 21, 2):
        client.send(client.headers(stream, "Ignore", large="x" * 12_000))
    acknowledged(client)
    assert server.transport.usage().held_bytes > 120_000


def test_frames_that_never_end_do_not_stay(serve: Serve, connect: Connect) -> None:
    server = serve(max_held_bytes=10**6)
    other = connect({}, to=server)
    clients = [connect({}, to=server) for _ in range(12)]
    for client in clients:
        client.send(frames.frame(frames.HEADERS, 0, 1, bytes(2**17 - 1))[:-1])
    wait_until(lambda: server.transport.usage().connections < 13)
    wait_until(lambda: 700_000 < server.transport.usage().held_bytes <= 10**6)
    other.call(1, "Echo", b"unharmed")
    assert other.answer(1).values == [b"unharmed"]


def test_answers_in_the_buffers_of_who_reads_nothing_end_its_connection(
    serve: Serve, connect: Connect
) -> None:
    server = serve(max_held_bytes=300_000)
    other, client = connect({}, to=server), connect({Setting.INITIAL_WINDOW_SIZE: 2**30}, to=server)
    client.send(frames.window_update(0, 2**30))
    for stream in range(1, 10_000, 2):  # each fits, so that none waits in its call
        if any(each.outgoing.size > 300_000 for each in list(server.transport._connections)):
            break
        with contextlib.suppress(ConnectionError):  # it has ended already
            client.call(stream, "Size", b"30000")
        server.records.ended.acquire(timeout=SECONDS)
    wait_until(lambda: server.transport.usage().connections == 1)
    wait_until(lambda: server.transport.usage().held_bytes == 0)
    assert set(server.records.calls) == {("Size", "OK")}
    other.call(1, "Echo", b"unharmed")
    assert other.answer(1).values == [b"unharmed"]


def test_compressed_requests_hold_what_they_unpack_to(serve: Serve, connect: Connect) -> None:
    server = serve()
    client = connect({}, to=server)
    packed = gzip.compress(BytesValue(value=bytes(10**6)).SerializeToString())
    client.send(client.headers(1, "Wait", grpc_encoding="gzip"))
    client.send(data(1, struct.pack(">BI", 1, len(packed)) + packed))
    assert server.methods.arrived.acquire(timeout=SECONDS)
    assert server.transport.usage().held_bytes > 10**6


def test_answers_that_nobody_takes_end_at_the_limit(serve: Serve, connect: Connect) -> None:
    server = serve(max_held_bytes=4 * 10**6)
    client = connect({Setting.INITIAL_WINDOW_SIZE: 2**31 - 1}, to=server)
    client.send(frames.window_update(0, 2**30))  # it could take all, and reads nothing
    calls = 60  # of a megabyte each
    for number in range(calls):
        client.call(2 * number + 1, "Size", b"1000000")
    for _ in range(calls):
        assert server.records.ended.acquire(timeout=SECONDS)
    wait_until(lambda: server.transport.usage().held_bytes <= 4 * 10**6)
    ends = [ended(client) for _ in range(calls)]
    reset = sum(frame.kind == frames.RST_STREAM for frame in ends)
    codes = {frame.payload[3] for frame in ends if frame.kind == frames.RST_STREAM}
    assert codes == {ErrorCode.ENHANCE_YOUR_CALM}
    assert calls - 12 < reset < calls  # the kernel takes some
    wait_until(lambda: server.transport.usage().held_bytes == 0)


def ended(client: RawClient) -> Frame:
    """The next frame that ends a stream."""
    last = frames.END_HEADERS | frames.END_STREAM
    return client.until(
        lambda frame: frame.kind == frames.RST_STREAM or (frame.kind, frame.flags) == (1, last)
    )


def test_answers_within_the_limit_arrive_however_late_they_are_read(
    serve: Serve, connect: Connect
) -> None:
    server = serve()
    client = connect({Setting.INITIAL_WINDOW_SIZE: 2**31 - 1}, to=server)
    client.send(frames.window_update(0, 2**30))
    for stream in range(1, 41, 2):
        client.call(stream, "Size", b"1000000")
    for _ in range(20):
        assert server.records.ended.acquire(timeout=SECONDS)
    assert server.transport.usage().held_bytes > 10**7
    assert [ended(client).kind for _ in range(20)] == [frames.HEADERS] * 20
    wait_until(lambda: server.transport.usage().held_bytes == 0)


def go_away(client: RawClient) -> ErrorCode:
    frame = client.until(lambda frame: frame.kind == frames.GOAWAY)
    return ErrorCode(int.from_bytes(frame.payload[4:8], "big"))


def rapid(client: RawClient, first: int, count: int) -> None:
    """Opens streams and resets each at once."""
    for stream in range(first, first + 2 * count, 2):
        client.send(client.headers(stream, "Wait"), frames.reset(stream, ErrorCode.CANCEL))


def test_streams_that_are_reset_as_they_open_end_their_connection_alone(
    connect: Connect, server: Server
) -> None:
    other, client = connect({}), connect({})
    other.call(1, "Wait", b"unharmed")
    assert server.methods.arrived.acquire(timeout=SECONDS)
    with contextlib.suppress(ConnectionError):
        rapid(client, 1, 5000)
    assert go_away(client) is ErrorCode.ENHANCE_YOUR_CALM
    assert ("Wait", "CANCELLED") in server.records.calls
    server.methods.release()
    assert other.answer(1).values == [b"unharmed"]


def test_a_client_that_lets_as_many_calls_live_may_reset_as_many(connect: Connect) -> None:
    client = connect({})
    for round_ in range(4):
        first = 2000 * round_ + 1
        for number in range(500):
            client.call(first + 2 * number, "Echo")
        for number in range(500):
            assert client.answer(first + 2 * number).status == 0
        rapid(client, first + 1000, 500)
    client.call(9001, "Echo", b"still here")
    assert client.answer(9001).values == [b"still here"]


def test_settings_without_end_from_who_reads_nothing_end_the_connection(
    connect: Connect, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.transport.http2.outgoing._UNREAD", 2**14)
    client = connect({Setting.INITIAL_WINDOW_SIZE: 2**30})
    client.send(frames.window_update(0, 2**30))
    client.call(1, "Size", b"20000000")  # more than the kernel takes
    assert server.records.ended.acquire(timeout=SECONDS)
    (connection,) = server.transport._connections
    wait_until(lambda: connection.outgoing._blocked)
    client.send(frames.settings({}) * 5000)
    assert go_away(client) is ErrorCode.ENHANCE_YOUR_CALM
