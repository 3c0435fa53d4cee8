"""Streams that are used in unusual ways, what each of them costs, and how it is counted."""

import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from service.transport.http2 import frames
from service.transport.http2.frames import ErrorCode, Setting
from tests.service.transport.raw_client import RawClient, data, message
from tests.service.transport.served import SECONDS, Server

Connect = Callable[..., RawClient]
PING = frames.frame(frames.PING, 0, 0, b"are you?")
ENDS = (frames.RST_STREAM, frames.GOAWAY)


def resident() -> int:
    """Bytes of memory that this process has now."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


@pytest.mark.parametrize("stream", [1, 3], ids=["passed over", "answered"])
def test_headers_of_a_stream_that_has_ended_run_no_handler(
    connect: Connect, server: Server, stream: int
) -> None:
    client = connect({})
    client.call(3, "Echo", b"abc")
    assert client.answer(3).values == [b"abc"]
    client.send(client.headers(stream, "Echo", frames.END_STREAM, note="new"), PING)
    found = client.until(lambda frame: frame.payload == b"are you?" or frame.kind in ENDS)
    assert server.records.calls == [("Echo", "OK")]
    if found.kind == frames.PING:  # it is passed over, but its block counts for the next ones
        client.call(5, "Echo", b"next", note="new")
        assert client.answer(5).values == [b"next"]


def test_trailers_of_a_client_end_its_messages(connect: Connect) -> None:
    client = connect({})
    client.send(client.headers(1, "Talk"), data(1, message(b"abc"), 0))
    block = client.encoder.encode([("x-checksum", "1")])
    client.send(frames.frame(frames.HEADERS, frames.END_HEADERS | frames.END_STREAM, 1, block))
    answer = client.answer(1)
    assert (answer.status, answer.values) == (0, [b"abc"])


def test_a_stream_whose_window_grows_by_nothing_is_an_error_of_its_client_alone(
    connect: Connect,
) -> None:
    other, client = connect({}), connect({})
    client.send(client.headers(1, "Wait"), frames.window_update(1, 0))
    found = client.until(lambda frame: frame.kind in ENDS)
    code = found.payload[4:8] if found.kind == frames.GOAWAY else found.payload
    assert int.from_bytes(code, "big") == ErrorCode.PROTOCOL_ERROR
    other.call(1, "Echo", b"unharmed")
    assert other.answer(1).values == [b"unharmed"]


def test_pieces_of_headers_without_bytes_do_not_go_on_for_ever(connect: Connect) -> None:
    client = connect({})
    client.send(frames.frame(frames.HEADERS, 0, 1, b"\x83"))
    client.send(frames.frame(frames.CONTINUATION, 0, 1, b"") * 1000)
    last = client.until_closed()[-1]
    assert (last.kind, last.payload[7]) == (frames.GOAWAY, ErrorCode.ENHANCE_YOUR_CALM)


def test_streams_that_nobody_reads_hold_little_memory(connect: Connect) -> None:
    before = resident()
    for _ in range(10):
        idle = connect({Setting.INITIAL_WINDOW_SIZE: 2**30})
        idle.send(frames.window_update(0, 2**30))
        idle.call(1, "Count", b"1000")  # 100 MB for each of them
    other = connect({})
    for number in range(100):  # turns of the transport's thread
        other.call(2 * number + 1, "Echo")
        assert other.answer(2 * number + 1).status == 0
    assert resident() - before < 10 * 2**22


ENDINGS: dict[str, tuple[str, bytes, dict[str, Any]]] = {
    "OK": ("Echo", data(1, message(b"x")), {}),
    "INVALID_ARGUMENT": ("Fail", data(1, message(b"x")), {}),
    "DEADLINE_EXCEEDED": ("Wait", data(1, message(b"x")), {"grpc_timeout": "20m"}),
    "RESOURCE_EXHAUSTED": ("Echo", data(1, struct.pack(">BI", 0, 2**31), 0), {}),
    "UNIMPLEMENTED": ("Echo", data(1, struct.pack(">BI", 1, 1) + b"x"), {"grpc_encoding": "br"}),
    "INTERNAL": ("Echo", data(1, struct.pack(">BI", 1, 1) + b"x"), {"grpc_encoding": "gzip"}),
    "CANCELLED": ("Wait", frames.reset(1, ErrorCode.CANCEL), {}),
}


@pytest.mark.parametrize("code", ENDINGS)
def test_a_call_is_counted_once_with_its_code_whatever_comes_after(
    connect: Connect, server: Server, code: str
) -> None:
    method, sent, fields = ENDINGS[code]
    client = connect({})
    client.send(client.headers(1, method, **fields), sent)
    assert server.records.ended.acquire(timeout=SECONDS)
    client.send(frames.reset(1, ErrorCode.CANCEL), PING)
    client.until(lambda frame: frame.payload == b"are you?")
    server.methods.release()
    client.close()
    fence = connect({})
    fence.call(1, "Echo")
    fence.answer(1)
    assert server.records.calls == [(method, code), ("Echo", "OK")]


@pytest.mark.parametrize(
    "fields", [{"pseudo_method": "GET"}, {"content_type": "text/plain"}, {"pseudo_path": "/a/B"}]
)
def test_what_no_method_answers_is_no_call_that_counts(
    connect: Connect, server: Server, fields: dict[str, Any]
) -> None:
    client = connect({})
    client.call(1, "Echo", **fields)
    client.answer(1)
    assert server.records.calls == []
