"""Unary gRPC calls over bare HTTP/2: a client that costs a few microseconds a call.

A load generator shares the machine with the server that it measures, so what it costs is missing
there. All calls of a connection are alike: the bytes of a request are made once, and an answer is
looked at as frames only: its size and its status. A header table of size 0 keeps the server's
header blocks free of state, so that they need no decoder.
"""

import socket
import struct
from collections import deque
from dataclasses import dataclass

from benchmarks import frames

_WINDOW = 2**31 - 1  # the largest: this client takes what comes
_READ = 2**18


class ConnectionLost(Exception):
    """The server closed the connection, or does what this client cannot follow."""


@dataclass(frozen=True)
class Method:
    """What every call sends and must get: `path` "/package.Service/Method", the serialized request,
    and the fewest and most bytes of a serialized answer."""

    path: str
    request: bytes
    answer_bytes: tuple[int, int]


class Connection:
    """One connection: `submit` queues a call, `flush` sends, `receive` collects those that ended.

    `going_away`: the server takes no new calls here. `blocked`: the socket has not taken all.
    """

    def __init__(self, host: str, port: int, method: Method) -> None:
        self.socket = socket.create_connection((host, port), timeout=10)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.going_away = False
        self._least, self._most = (5 + size for size in method.answer_bytes)
        self._message = struct.pack(">BI", 0, len(method.request)) + method.request
        self._blocks = frames.header_blocks(method.path, f"{host}:{port}")
        self._good_trailers: set[bytes] = set()
        self._next_stream = 1
        self._waiting: deque[float] = deque()
        self._calls: dict[int, list[float]] = {}  # by stream: the caller's token, bytes received
        self._input = b""
        self._consumed = 0
        # The server's limits, until its settings say otherwise.
        self._settled = False
        self._window = self._stream_window = 65535
        self._frame_size, self._max_calls = 16384, 2**31
        ours = {
            frames.HEADER_TABLE_SIZE: 0,
            frames.ENABLE_PUSH: 0,
            frames.INITIAL_WINDOW_SIZE: _WINDOW,
        }
        self._output = bytearray(frames.PREFACE + frames.settings(ours))
        self._output += _window_update(_WINDOW - 65535)
        try:
            self._settle()
        except ConnectionLost:
            self.socket.close()
            raise
        self._template = self._make_template(self._blocks[0])
        self.socket.setblocking(False)

    @property
    def outstanding(self) -> int:
        """Calls that have not ended, sent or not."""
        return len(self._calls) + len(self._waiting)

    @property
    def blocked(self) -> bool:
        """Whether something is left that the socket did not take."""
        return bool(self._output)

    def submit(self, token: float) -> None:
        """Queue a call; `receive` gives the token back when it has ended."""
        self._waiting.append(token)

    def flush(self) -> None:
        """Send what the server's limits and the socket allow now."""
        waiting, calls, size = self._waiting, self._calls, len(self._message)
        while waiting and self._window >= size and len(calls) < self._max_calls:
            stream = self._next_stream
            self._next_stream += 2
            self._window -= size
            calls[stream] = [waiting.popleft(), 0]
            self._output += stream.to_bytes(4, "big").join(self._template)
            if stream == 1:
                self._template = self._make_template(self._blocks[1])
        if self._output:
            try:
                del self._output[: self.socket.send(self._output)]
            except BlockingIOError:
                return
            except OSError as error:
                raise ConnectionLost(f"the connection broke: {error}") from error

    def receive(self) -> list[tuple[float, str]]:
        """Read once; token and code of every call that has ended. Raises ConnectionLost."""
        try:
            data = self.socket.recv(_READ)
        except BlockingIOError:
            return []
        except OSError as error:
            raise ConnectionLost(f"the connection broke: {error}") from error
        if not data:
            raise ConnectionLost("the server closed the connection")
        ended: list[tuple[float, str]] = []
        data = self._input + data if self._input else data
        start, size, calls = 0, len(data), self._calls
        while size - start >= 9:
            first = int.from_bytes(data[start : start + 5], "big")
            length, kind, flags = first >> 16, first >> 8 & 255, first & 255
            payload = start + 9
            if size - payload < length:
                break
            stream = int.from_bytes(data[start + 5 : payload], "big")
            start = payload + length
            if kind == frames.DATA:
                self._consumed += length
                calls[stream][1] += length
                if flags & frames.END_STREAM:
                    ended.append((calls.pop(stream)[0], frames.NO_STATUS))
            elif kind == frames.HEADERS:
                if not flags & frames.END_HEADERS:
                    raise ConnectionLost("the server splits its headers; this client reads no rest")
                if flags & frames.END_STREAM:
                    token, received = calls.pop(stream)
                    ended.append((token, self._code(data[payload:start], received)))
            else:
                ended += self._control(kind, flags, stream, data[payload:start])
        self._input = data[start:]
        if self._consumed > _WINDOW // 2:
            self._output += _window_update(self._consumed)
            self._consumed = 0
        return ended

    def close(self) -> None:
        """Close the socket; calls that have not ended are lost."""
        self.socket.close()

    def _settle(self) -> None:
        """Exchange settings, and refuse what this client cannot send within the server's."""
        self.flush()
        while not self._settled:
            self.receive()
        if len(self._message) > (limit := min(self._window, self._stream_window)):
            raise ConnectionLost(
                f"a request of {len(self._message)} bytes does not fit the server's window of "
                f"{limit}; this client sends requests whole"
            )

    def _code(self, trailers: bytes, received: float) -> str:
        if trailers not in self._good_trailers:
            if (code := frames.status(trailers)) != frames.OK:
                return code
            if len(self._good_trailers) < 16:  # all alike, as a rule
                self._good_trailers.add(trailers)
        return frames.OK if self._least <= received <= self._most else "WRONG_SIZE"

    def _control(
        self, kind: int, flags: int, stream: int, payload: bytes
    ) -> list[tuple[float, str]]:
        """Follow a frame that carries no answer; token and code of the calls that it ended."""
        if kind == frames.WINDOW_UPDATE and stream == 0:
            self._window += int.from_bytes(payload, "big")
        elif kind == frames.PING and not flags & frames.ACK:
            self._output += frames.frame(frames.PING, frames.ACK, 0, payload)
        elif kind == frames.SETTINGS and not flags & frames.ACK:
            values = frames.read_settings(payload)
            self._max_calls = values.get(frames.MAX_CONCURRENT_STREAMS, self._max_calls)
            self._stream_window = values.get(frames.INITIAL_WINDOW_SIZE, self._stream_window)
            if not self._settled:  # a larger frame size later need not be used
                self._frame_size = values.get(frames.MAX_FRAME_SIZE, self._frame_size)
            self._settled = True
            self._output += frames.frame(frames.SETTINGS, frames.ACK, 0, b"")
        elif kind == frames.RST_STREAM and (call := self._calls.pop(stream, None)):
            return [(call[0], frames.reset(payload))]
        elif kind == frames.GOAWAY:
            self.going_away = True
            last = int.from_bytes(payload[:4], "big")
            lost = [self._calls.pop(number)[0] for number in list(self._calls) if number > last]
            lost += self._waiting
            self._waiting.clear()
            return [(token, "GOAWAY") for token in lost]
        return []

    def _make_template(self, block: bytes) -> tuple[bytes, ...]:
        """The frames of a call, to be joined by its stream's number."""
        parts = [frames.head(len(block), frames.HEADERS, frames.END_HEADERS), block]
        step = self._frame_size
        for begin in range(0, len(self._message), step):
            chunk = self._message[begin : begin + step]
            last = frames.END_STREAM if begin + step >= len(self._message) else 0
            parts[-1] += frames.head(len(chunk), frames.DATA, last)
            parts.append(chunk)
        return tuple(parts)


def _window_update(size: int) -> bytes:
    return frames.frame(frames.WINDOW_UPDATE, 0, 0, size.to_bytes(4, "big"))
