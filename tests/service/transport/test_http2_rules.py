"""RFC 9113's rules for frames that h2spec looks at, beyond those that protect the service."""

from collections.abc import Callable

import pytest

from service.transport.http2 import frames
from service.transport.http2.frames import ErrorCode, Setting
from tests.service.transport.raw_client import RawClient, data, message
from tests.service.transport.served import Server

Connect = Callable[..., RawClient]
PING = frames.frame(frames.PING, 0, 0, b"are you?")
LENIENT = "taken, though RFC 9113 wants an error; harmless"


@pytest.mark.parametrize(
    ("frame", "code"),
    [
        (frames.frame(frames.SETTINGS, 0, 1, b""), ErrorCode.PROTOCOL_ERROR),
        (frames.frame(frames.SETTINGS, frames.ACK, 0, bytes(6)), ErrorCode.FRAME_SIZE_ERROR),
        (frames.settings({Setting.ENABLE_PUSH: 2}), ErrorCode.PROTOCOL_ERROR),
        (frames.frame(frames.PING, 0, 1, bytes(8)), ErrorCode.PROTOCOL_ERROR),
        (frames.frame(frames.GOAWAY, 0, 1, bytes(8)), ErrorCode.PROTOCOL_ERROR),
        (frames.frame(frames.GOAWAY, 0, 0, b"1"), ErrorCode.FRAME_SIZE_ERROR),
        (frames.window_update(9, 5), ErrorCode.PROTOCOL_ERROR),
        (frames.frame(frames.HEADERS, 0x24, 1, b"123"), ErrorCode.FRAME_SIZE_ERROR),
    ],
    ids=["settings of a stream", "full ack", "push", "ping of a stream", "goaway of a stream",
         "short goaway", "window of an idle stream", "short priority"],
)  # fmt: skip
def test_a_frame_that_means_nothing_is_an_error(
    connect: Connect, frame: bytes, code: ErrorCode
) -> None:
    client = connect({})
    client.send(frame, PING)
    answer = client.until(lambda frame: frame.payload == b"are you?" or frame.kind == frames.GOAWAY)
    assert answer.kind == frames.GOAWAY
    assert answer.payload[7] == code


def test_data_after_the_end_of_a_stream_is_an_error(connect: Connect) -> None:
    client = connect({})
    client.send(client.headers(1, "Ignore"), data(1, message(b"last")))
    client.send(data(1, message(b"later"), 0), PING)
    ends = (frames.RST_STREAM, frames.GOAWAY, frames.PING)
    assert client.until(lambda frame: frame.kind in ends).kind != frames.PING


def test_the_last_piece_of_headers_may_be_empty(connect: Connect) -> None:
    client = connect({})
    block = client.headers(1, "Echo")[frames.HEAD_SIZE :]
    client.send(frames.frame(frames.HEADERS, 0, 1, block))
    client.send(frames.frame(frames.CONTINUATION, frames.END_HEADERS, 1, b""))
    client.send(data(1, message(b"whole")))
    assert client.answer(1).values == [b"whole"]


def test_the_reserved_bits_of_numbers_mean_nothing(connect: Connect) -> None:
    client = connect({})
    client.send(frames.frame(frames.WINDOW_UPDATE, 0, 2**31, (2**31 + 5).to_bytes(4, "big")))
    client.call(1, "Echo", b"abc")
    assert client.answer(1).values == [b"abc"]


@pytest.mark.parametrize("cut", [1, 9, 24, 33, 40])
def test_a_connection_may_begin_in_pieces(server: Server, cut: int) -> None:
    client = RawClient(server.transport.port)
    content = frames.PREFACE + frames.settings({Setting.INITIAL_WINDOW_SIZE: 1000})
    content += client.headers(1, "Echo") + data(1, message(b"whole"))
    client.send(content[:cut])
    client.until(lambda frame: frame.kind == frames.SETTINGS)
    client.send(content[cut:])
    assert client.answer(1).values == [b"whole"]
    client.close()
