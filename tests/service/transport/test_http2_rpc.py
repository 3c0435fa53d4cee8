"""gRPC on a stream: messages, encodings, statuses; each RPC is counted once."""

import gzip
import struct
import zlib
from collections.abc import Callable

import pytest
from google.protobuf.wrappers_pb2 import BytesValue

from service.transport.http2 import frames
from service.transport.http2.frames import ErrorCode
from tests.service.transport.raw_client import RawClient, data, message
from tests.service.transport.served import SECONDS, Server

Connect = Callable[..., RawClient]
INVALID_ARGUMENT, DEADLINE_EXCEEDED, RESOURCE_EXHAUSTED, UNIMPLEMENTED, INTERNAL = 3, 4, 8, 12, 13


def compressed(content: bytes) -> bytes:
    return struct.pack(">BI", 1, len(content)) + content


def test_a_call_is_answered_and_counted_once(connect: Connect, server: Server) -> None:
    client = connect({})
    client.call(1, "Echo", b"abc")
    answer = client.answer(1)
    assert (answer.headers[":status"], answer.status, answer.values) == ("200", 0, [b"abc"])
    assert answer.headers["content-type"] == "application/grpc"
    assert server.records.calls == [("Echo", "OK")]


def test_an_error_comes_with_its_details(connect: Connect, server: Server) -> None:
    client = connect({})
    client.call(1, "Fail")
    answer = client.answer(1)
    assert (answer.status, answer.data) == (INVALID_ARGUMENT, b"")
    assert answer.headers["grpc-message"] == "value: expected another"
    assert answer.headers["grpc-status-details-bin"]
    assert server.records.calls == [("Fail", "INVALID_ARGUMENT")]


def test_an_unknown_method_is_not_implemented(connect: Connect) -> None:
    client = connect({})
    client.call(1, "Nothing")
    assert client.answer(1).status == UNIMPLEMENTED


@pytest.mark.parametrize(
    ("fields", "status"),
    [({"pseudo_method": "GET"}, "405"), ({"content_type": "text/plain"}, "415")],
)
def test_what_is_not_grpc_gets_a_status_of_http(
    connect: Connect, fields: dict[str, str], status: str
) -> None:
    client = connect({})
    client.call(1, "Echo", **fields)
    assert client.answer(1).headers[":status"] == status


@pytest.mark.parametrize("timeout", ["", "1", "m", "123456789S", "-1S", "1.5S", "1x"])
def test_a_timeout_that_is_none_is_an_error(connect: Connect, timeout: str) -> None:
    client = connect({})
    client.call(1, "Echo", grpc_timeout=timeout)
    assert client.answer(1).status == INVALID_ARGUMENT


@pytest.mark.parametrize("value", ["a\0b", "a\r\nb: c", "\n"])
def test_a_value_that_no_header_may_have_is_an_error(connect: Connect, value: str) -> None:
    client = connect({})
    client.call(1, "Echo", note=value)
    assert client.answer(1).status == INVALID_ARGUMENT
    client.call(3, "Echo", b"next")
    assert client.answer(3).values == [b"next"]


def test_a_deadline_ends_a_call_that_waits(connect: Connect, server: Server) -> None:
    client = connect({})
    client.call(1, "Wait", grpc_timeout="20m")
    assert client.answer(1).status == DEADLINE_EXCEEDED
    assert server.records.calls == [("Wait", "DEADLINE_EXCEEDED")]
    assert server.methods.waiting[0].done


def test_a_deadline_in_the_middle_of_a_message_resets_the_stream(connect: Connect) -> None:
    client = connect({frames.Setting.INITIAL_WINDOW_SIZE: 10})
    client.call(1, "Count", b"1", grpc_timeout="50m")
    assert client.answer(1).reset == ErrorCode.CANCEL


def test_a_message_that_is_too_large_is_refused(
    serve: Callable[..., Server], connect: Connect
) -> None:
    client = connect({}, to=serve(max_message_bytes=100))
    client.send(client.headers(1, "Echo"), data(1, message(bytes(200))))
    assert client.answer(1).status == RESOURCE_EXHAUSTED
    client.send(client.headers(3, "Echo"), data(3, struct.pack(">BI", 0, 2**31), 0))
    assert client.answer(3).status == RESOURCE_EXHAUSTED


@pytest.mark.parametrize("content", [message(b"abc")[:-1], b"\0\0", message(b"a") + b"\0"])
def test_a_message_that_ends_in_the_middle_is_an_error(connect: Connect, content: bytes) -> None:
    client = connect({})
    client.send(client.headers(1, "Talk"), data(1, content))
    assert client.answer(1).status == INVALID_ARGUMENT


@pytest.mark.parametrize("content", [b"", message(b"a") + message(b"b")], ids=["none", "two"])
def test_a_unary_call_takes_one_message(connect: Connect, server: Server, content: bytes) -> None:
    client = connect({})
    client.send(client.headers(1, "Wait"), data(1, content))
    assert client.answer(1).status == INVALID_ARGUMENT
    assert server.records.calls == [("Wait", "INVALID_ARGUMENT")]


def test_headers_alone_are_an_error(connect: Connect) -> None:
    client = connect({})
    client.send(client.headers(1, "Echo", frames.END_STREAM))
    assert client.answer(1).status == INVALID_ARGUMENT


def test_bytes_that_are_no_message_are_an_error(connect: Connect) -> None:
    client = connect({})
    client.send(client.headers(1, "Echo"), data(1, struct.pack(">BI", 0, 2) + b"\xff\xff"))
    assert client.answer(1).status == INVALID_ARGUMENT


@pytest.mark.parametrize(
    ("encoding", "pack"), [("gzip", gzip.compress), ("deflate", zlib.compress)]
)
def test_compressed_messages_are_read(
    connect: Connect, encoding: str, pack: Callable[[bytes], bytes]
) -> None:
    client = connect({})
    content = compressed(pack(BytesValue(value=b"abc" * 100).SerializeToString()))
    client.send(client.headers(1, "Echo", grpc_encoding=encoding), data(1, content))
    assert client.answer(1).values == [b"abc" * 100]


@pytest.mark.parametrize(
    ("encoding", "content", "status"),
    [
        ("gzip", b"not gzip", INTERNAL),
        ("gzip", gzip.compress(b"abc" * 1000)[:-9], INTERNAL),
        ("gzip", gzip.compress(bytes(2**24)), RESOURCE_EXHAUSTED),
        ("br", b"abc", UNIMPLEMENTED),
        ("identity", b"abc", UNIMPLEMENTED),
    ],
    ids=["broken", "cut short", "bomb", "unknown", "none"],
)
def test_what_cannot_be_unpacked_is_an_error(
    serve: Callable[..., Server],
    connect: Connect,
    encoding: str,
    content: bytes,
    status: int,
) -> None:
    client = connect({}, to=serve(max_message_bytes=2**20))
    client.send(client.headers(1, "Echo", grpc_encoding=encoding), data(1, compressed(content)))
    assert client.answer(1).status == status


def test_an_early_end_tells_the_client_to_send_no_more(connect: Connect) -> None:
    client = connect({})
    client.send(client.headers(1, "Fail"), data(1, message(b"x"), 0))
    assert client.answer(1).status == INVALID_ARGUMENT
    reset = client.until(lambda frame: frame.kind == frames.RST_STREAM)
    assert int.from_bytes(reset.payload, "big") == ErrorCode.NO_ERROR
    client.send(data(1, message(b"late")))  # which is not read, and harms nobody
    client.call(3, "Echo", b"next")
    assert client.answer(3).values == [b"next"]


def test_every_way_to_end_is_counted_once(connect: Connect, server: Server) -> None:
    client = connect({})
    client.call(1, "Talk", b"a")
    client.call(3, "Count", b"0")
    client.call(5, "Wait")
    assert server.methods.arrived.acquire(timeout=SECONDS)
    client.send(frames.reset(5, ErrorCode.CANCEL))
    for _ in range(3):
        assert server.records.ended.acquire(timeout=SECONDS)
    server.methods.release()
    client.call(7, "Echo")
    client.answer(7)
    expected = [("Count", "OK"), ("Echo", "OK"), ("Talk", "OK"), ("Wait", "CANCELLED")]
    assert sorted(server.records.calls) == expected
