"""What one client can cost: bounded memory, frames that it can read, and nobody else's calls."""

import contextlib
import gzip
import socket
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from google.protobuf.wrappers_pb2 import BytesValue

from service.transport.http2 import frames
from service.transport.http2.frames import ErrorCode, Setting
from tests.service.transport.raw_client import RawClient, data, message
from tests.service.transport.served import SECONDS, Server

Connect = Callable[..., RawClient]
Serve = Callable[..., Server]
RESOURCE_EXHAUSTED = 8
PING = frames.frame(frames.PING, 0, 0, b"are you?")


def resident() -> int:
    """Bytes of memory that this process has now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096


def test_a_ping_while_a_large_answer_waits_ends_nothing(connect: Connect) -> None:
    client = connect({Setting.INITIAL_WINDOW_SIZE: 2**30})
    client.send(frames.window_update(0, 2**30))
    client.call(1, "Size", b"20000000")
    client.until(lambda frame: frame.kind == frames.DATA)
    client.send(PING)
    client.until(lambda frame: frame.kind == frames.PING)
    client.call(3, "Echo", b"still here")
    assert client.answer(3).values == [b"still here"]


def test_a_client_that_reads_no_errors_is_not_answered_without_end(
    connect: Connect, server: Server
) -> None:
    client = connect({})
    client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2**16)
    calls = 20_000
    with contextlib.suppress(ConnectionError):  # it has been ended already
        for number in range(calls):  # whose answers are 25 MB, of which the kernel takes 4
            client.call(2 * number + 1, "Explain", b"2000")
    answered = 0
    while answered < calls and server.records.ended.acquire(timeout=1):
        answered += 1
    assert answered < calls


def test_compressed_messages_that_nobody_receives_stay_small(
    serve: Serve, connect: Connect
) -> None:
    server = serve(max_message_bytes=2**23)
    client = connect({}, to=server)
    packed = gzip.compress(BytesValue(value=bytes(2**23 - 100)).SerializeToString())
    before = resident()
    client.send(client.headers(1, "Ignore", grpc_encoding="gzip"))
    for _ in range(30):  # 250 kB, a quarter of the window
        client.send(data(1, struct.pack(">BI", 1, len(packed)) + packed, 0))
    client.send(PING)
    client.until(lambda frame: frame.kind == frames.PING)
    assert resident() - before < 2**26


def test_a_client_that_sends_more_than_its_window_is_stopped(connect: Connect) -> None:
    client = connect({})
    client.send(client.headers(1, "Ignore"))
    for _ in range(30):  # 3 MB; the window is 1 MiB
        client.send(data(1, message(bytes(100_000)), 0))
    client.send(PING)
    ends = (frames.PING, frames.RST_STREAM, frames.GOAWAY)
    frame = client.until(lambda frame: frame.kind in ends)
    assert frame.kind != frames.PING
    assert frame.payload[-4:] == ErrorCode.FLOW_CONTROL_ERROR.to_bytes(4, "big") or (
        frame.kind == frames.GOAWAY and frame.payload[7] == ErrorCode.FLOW_CONTROL_ERROR
    )


@pytest.mark.parametrize(("method", "value"), [("Size", b"5000"), ("Count", b"1")])
def test_an_answer_larger_than_the_limit_is_an_error(
    serve: Serve, connect: Connect, method: str, value: bytes
) -> None:
    client = connect({Setting.INITIAL_WINDOW_SIZE: 2**20}, to=serve(max_message_bytes=1000))
    client.send(frames.window_update(0, 2**20))
    client.call(1, method, value)
    assert client.answer(1).status == RESOURCE_EXHAUSTED


def test_a_long_error_comes_in_frames_that_the_client_takes(connect: Connect) -> None:
    client = connect({})
    client.call(1, "Explain", b"20000")
    frame = client.until(lambda frame: frame.stream == 1)
    assert len(frame.payload) <= frames.DEFAULT_FRAME_SIZE


def test_headers_that_are_too_many_end_their_own_call_alone(
    connect: Connect, server: Server
) -> None:
    client = connect({})
    client.call(1, "Wait", b"unharmed")
    assert server.methods.arrived.acquire(timeout=SECONDS)
    client.call(3, "Echo", note="~" * 17_000)
    assert client.answer(3).status == RESOURCE_EXHAUSTED
    server.methods.release()
    assert client.answer(1).values == [b"unharmed"]


def test_headers_without_number_end_their_connection_alone(connect: Connect) -> None:
    client, other = connect({}), connect({})
    block = client.encoder.encode([("x", "a" * 20)] * 10_000)  # a byte each, but for the first
    for stream in (1, 3):
        client.send(frames.frame(frames.HEADERS, frames.END_HEADERS, stream, block[:10_100]))
    farewell = client.until_closed()[-1]
    assert farewell.kind == frames.GOAWAY
    assert struct.unpack(">II", farewell.payload[:8]) == (0, ErrorCode.ENHANCE_YOUR_CALM)
    other.call(1, "Echo", b"unharmed")
    assert other.answer(1).values == [b"unharmed"]


def test_calls_that_are_reset_at_once_leave_nothing_behind(
    connect: Connect, server: Server
) -> None:
    client = connect({})
    for number in range(900):
        stream = 2 * number + 1
        client.call(stream, "Wait")
        client.send(frames.reset(stream, ErrorCode.CANCEL))
    client.call(1801, "Echo", b"next")
    assert client.answer(1801).values == [b"next"]
    for _ in range(901):
        assert server.records.ended.acquire(timeout=SECONDS)
    assert server.records.calls.count(("Wait", "CANCELLED")) == 900
    assert all(waiting.done for waiting in server.methods.waiting)


# In a process of its own: the thread that hangs could not be ended here.
ALONE = """
from tests.service.transport.served import Server
print(Server().transport.port, flush=True)
"""


@pytest.fixture
def alone() -> Iterator[int]:
    """The port of a server that may hang."""
    command, root = [sys.executable, "-c", ALONE], Path(__file__).parents[3]
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=root, text=True) as process:
        assert process.stdout is not None
        yield int(process.stdout.readline())
        process.kill()


def test_an_empty_message_in_a_stream_is_sent_like_any_other(alone: int) -> None:
    client = RawClient(alone, {})
    client.send(client.headers(1, "Talk"), data(1, message(b""), 0))
    client.until(lambda frame: frame.kind == frames.DATA)
    client.send(PING)
    client.socket.settimeout(2)
    with contextlib.closing(client):
        client.until(lambda frame: frame.payload == b"are you?")


def test_a_window_of_exactly_an_empty_message_is_enough(alone: int) -> None:
    client = RawClient(alone, {Setting.INITIAL_WINDOW_SIZE: 5})
    client.call(1, "Talk", b"")
    client.until(lambda frame: frame.kind == frames.DATA)
    client.socket.settimeout(2)
    with contextlib.closing(client):
        client.until(lambda frame: bool(frame.flags & frames.END_STREAM))
