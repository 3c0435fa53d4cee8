"""A client that sends the frames it is told to, and reads what comes."""

import socket
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import hpack
from google.protobuf.wrappers_pb2 import BytesValue

from service.transport.http2 import frames

SECONDS = 20.0


@dataclass(frozen=True)
class Frame:
    kind: int
    flags: int
    stream: int
    payload: bytes


class RawClient:
    """Sends frames as they are, and reads what comes."""

    def __init__(self, port: int, settings: dict[frames.Setting, int] | None = None) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=SECONDS)
        self.encoder, self._decoder = hpack.Encoder(), hpack.Decoder()
        self._input = b""
        if settings is not None:
            self.send(frames.PREFACE, frames.settings(settings))

    def send(self, *parts: bytes) -> None:
        self.socket.sendall(b"".join(parts))

    def headers(self, stream: int, method: str, flags: int = 0, **fields: str) -> bytes:
        """The frame that begins a call; fields like grpc_timeout add to the headers."""
        listed = {
            ":method": "POST",
            ":scheme": "http",
            ":path": f"/test.Test/{method}",
            ":authority": "localhost",
            "te": "trailers",
            "content-type": "application/grpc",
        }
        listed |= {
            (":" + name.removeprefix("pseudo_"))
            if name.startswith("pseudo_")
            else name.replace("_", "-"): text
            for name, text in fields.items()
        }
        block = self.encoder.encode(list(listed.items()))
        return frames.frame(frames.HEADERS, frames.END_HEADERS | flags, stream, block)

    def call(self, stream: int, method: str, value: bytes = b"x", **fields: str) -> None:
        """A whole call with one message."""
        self.send(self.headers(stream, method, **fields), data(stream, message(value)))

    def read(self) -> Frame | None:
        """The next frame; None when the server has closed."""
        while len(self._input) < 9 or len(self._input) < 9 + self._length():
            try:
                received = self.socket.recv(2**16)
            except ConnectionResetError:
                return None
            if not received:
                return None
            self._input += received
        size = 9 + self._length()
        raw, self._input = self._input[:size], self._input[size:]
        return Frame(raw[3], raw[4], int.from_bytes(raw[5:9], "big"), raw[9:])

    def until(self, matches: Callable[[Frame], bool]) -> Frame:
        """The next frame that matches; the test fails if the server closes before."""
        while (frame := self.read()) is not None:
            if matches(frame):
                return frame
        raise AssertionError("the server closed the connection")

    def until_closed(self) -> list[Frame]:
        """All frames to the end of the connection."""
        found = []
        while (frame := self.read()) is not None:
            found.append(frame)
        return found

    def answer(self, stream: int) -> "Answer":
        """Reads on until the stream has ended."""
        answer = Answer()
        while not answer.ended:
            frame = self.until(lambda frame: frame.stream == stream)
            if frame.kind == frames.DATA:
                answer.data += frame.payload
                answer.frames += 1
            elif frame.kind == frames.HEADERS:
                answer.headers |= dict(self._decoder.decode(frame.payload))
            elif frame.kind == frames.RST_STREAM:
                answer.reset = int.from_bytes(frame.payload, "big")
            answer.ended = frame.kind == frames.RST_STREAM or bool(frame.flags & frames.END_STREAM)
        return answer

    def _length(self) -> int:
        return int.from_bytes(self._input[:3], "big")

    def close(self) -> None:
        self.socket.close()


@dataclass
class Answer:
    """What a stream gave."""

    headers: dict[str, str] = field(default_factory=dict)
    data: bytes = b""
    frames: int = 0
    reset: int | None = None
    ended: bool = False

    @property
    def status(self) -> int:
        return int(self.headers["grpc-status"])

    @property
    def values(self) -> list[bytes]:
        """The contents of its messages."""
        found, rest = [], self.data
        while rest:
            size = int.from_bytes(rest[1:5], "big")
            found.append(BytesValue.FromString(rest[5 : 5 + size]).value)
            rest = rest[5 + size :]
        return found


def message(value: bytes, compressed: int = 0) -> bytes:
    """A gRPC message with a BytesValue."""
    content = BytesValue(value=value).SerializeToString()
    return struct.pack(">BI", compressed, len(content)) + content


def data(stream: int, content: bytes, flags: int = frames.END_STREAM) -> bytes:
    """A DATA frame."""
    return frames.frame(frames.DATA, flags, stream, content)


def pieces(content: bytes, size: int) -> Sequence[bytes]:
    return [content[start : start + size] for start in range(0, len(content), size)]
