"""One HTTP/2 connection: frames in, frames out, flow control, settings, its end.

Frames are read on the transport's thread only. Answers may come from any thread: what is sent, and
the windows that bound it, are guarded by the connection's lock. The thread of the transport leaves
what it has to send until it has handled all that arrived; other threads send at once.
"""

import itertools
import random
import socket
import ssl
import threading
from collections import deque
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Final, Protocol

from service.transport import MAX_CONCURRENT_STREAMS, ConnectionLifetimes, spliced
from service.transport.http2 import frames, headers
from service.transport.http2.frames import ErrorCode, ProtocolError, Setting

if TYPE_CHECKING:
    from service.transport.http2.rpc import Rpc

Buffer = bytes | memoryview
STREAM_WINDOW: Final = 2**20
CONNECTION_WINDOW: Final = 2**24
_FRAME_SIZE: Final = 2**17  # the largest frame that clients may send
_READ: Final = 2**18
_BUFFERS: Final = 512  # in one call of sendmsg; the kernel takes 1024
_RECORD_BUFFERS: Final = 16  # in one call of TLS, which has no sendmsg
_FULL: Final = 2**19  # bytes that wait for the socket, beyond which streams wait too
_UNREAD_REPLIES: Final = 2**22  # bytes, beyond which a client that does not read is cut off
_MAX_BLOCK: Final = 2**16
_DRAIN_PING: Final = b"draining"
_KEEPALIVE_PING: Final = b"keepaliv"


class Owner(Protocol):
    """What a connection needs of its transport."""

    def open(self, connection: "Connection", stream: int, request: headers.RequestHeaders) -> "Rpc":
        """The RPC of a new stream."""
        ...

    def unsent(self, connection: "Connection") -> None:
        """The transport's own thread has something to send."""
        ...

    def watch(self, connection: "Connection", *, writable: bool) -> None:
        """Whether to call `writable` when the socket takes more."""
        ...

    def closed(self, connection: "Connection") -> None:
        """The socket is closed."""
        ...

    def call_soon(self, callback: Callable[[], object]) -> None:
        """Runs callback on the transport's thread, with no lock held. From any thread."""
        ...

    def on_thread(self) -> bool:
        """Whether this is the transport's own thread."""
        ...


class Connection:
    """See the module. `now`: when it last read, in seconds of time.monotonic."""

    def __init__(
        self, sock: socket.socket, owner: Owner, lifetimes: ConnectionLifetimes, now: float
    ) -> None:
        self.socket = sock
        self.now = now
        self.rpcs: dict[int, Rpc] = {}
        self.closed = False
        self._owner = owner
        self._lifetimes = lifetimes
        # A tenth more or less, so that clients that came together do not go together.
        self._max_age = lifetimes.max_connection_age * random.uniform(0.9, 1.1)  # noqa: S311
        self._opened = self._heard = now
        self._last_stream = 0
        self._draining = False
        self._tls = isinstance(sock, ssl.SSLSocket)
        self._ready = not self._tls  # false until the TLS handshake is done
        self._lock = threading.RLock()
        self._reader = headers.HeaderReader()
        self._input = b""
        self._preface = frames.PREFACE  # what is still to come of it
        self._settled = False
        self._block: tuple[int, int, bytearray] | None = None  # stream, flags, a block in pieces
        self._received = 0  # bytes of DATA that the client may not yet send again
        self._output: deque[Buffer] = deque()
        self._output_size = 0
        self._blocked = False  # the socket takes no more at the moment
        self._closing = False  # closes as soon as all is sent
        self._refusing = False  # new streams are refused: the client knows that it shall go
        self._pinged: float | None = None
        self._full: deque[Rpc] = deque()  # who waits for room in the output
        # The client's limits.
        self._window = frames.DEFAULT_WINDOW
        self._stream_window = frames.DEFAULT_WINDOW
        self._frame_size = frames.DEFAULT_FRAME_SIZE
        self._send(
            frames.settings(
                {
                    Setting.MAX_CONCURRENT_STREAMS: MAX_CONCURRENT_STREAMS,
                    Setting.INITIAL_WINDOW_SIZE: STREAM_WINDOW,
                    Setting.MAX_FRAME_SIZE: _FRAME_SIZE,
                    Setting.MAX_HEADER_LIST_SIZE: headers.MAX_LIST_SIZE,
                }
            ),
            frames.window_update(0, CONNECTION_WINDOW - frames.DEFAULT_WINDOW),
        )

    # What arrives.

    def readable(self, now: float) -> None:
        """Reads what has arrived and acts on it."""
        self.now = self._heard = now
        try:
            if not self._ready and not self._handshake():
                return
            while True:
                data = self._recv()
                if not data:
                    self.close()
                    return
                self._input = self._read(self._input + data if self._input else data)
                if not self._tls or not self.socket.pending():  # type: ignore[attr-defined]
                    return
        except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return
        except OSError:
            self.close()
        except ProtocolError as error:
            self._go_away(error.code, str(error))
            self._close_when_sent()

    def _handshake(self) -> bool:
        self.socket.do_handshake()  # type: ignore[attr-defined]
        if self.socket.selected_alpn_protocol() != "h2":  # type: ignore[attr-defined]
            self.close()
            return False
        self._ready = True
        self._owner.unsent(self)
        return True

    def _recv(self) -> bytes:
        if self._tls:
            with self._lock:  # OpenSSL allows one thread at a time
                return self.socket.recv(_READ)
        return self.socket.recv(_READ)

    def _read(self, data: bytes) -> bytes:
        """Acts on the frames of data; returns what is no whole frame yet."""
        position, end = 0, len(data)
        if self._preface:
            count = min(end, len(self._preface))
            if data[:count] != self._preface[:count]:
                raise ProtocolError(
                    ErrorCode.PROTOCOL_ERROR, "expected HTTP/2 with prior knowledge"
                )
            self._preface = self._preface[count:]
            position = count
        read_head = frames.read_head
        while end - position >= frames.HEAD_SIZE:
            high, low, kind, flags, stream = read_head(data, position)
            length = high << 8 | low
            if length > _FRAME_SIZE:
                raise ProtocolError(ErrorCode.FRAME_SIZE_ERROR, "a frame is too large")
            start = position + frames.HEAD_SIZE
            if end - start < length:
                break
            position = start + length
            stream &= 0x7FFFFFFF
            if self._block is not None and kind != frames.CONTINUATION:
                raise ProtocolError(ErrorCode.PROTOCOL_ERROR, "expected the rest of a header block")
            if kind == frames.DATA:
                self._on_data(data, start, position, flags, stream)
            elif kind == frames.HEADERS:
                self._on_headers(data[start:position], flags, stream)
            else:
                self._on_control(kind, data[start:position], flags, stream)
        return data[position:] if position else data

    def _on_data(self, data: bytes, start: int, end: int, flags: int, stream: int) -> None:
        self._received += end - start
        if self._received >= CONNECTION_WINDOW // 2:
            self._send(frames.window_update(0, self._received))
            self._received = 0
        rpc = self.rpcs.get(stream)
        if rpc is None:
            if stream > self._last_stream or not stream & 1:
                raise ProtocolError(ErrorCode.PROTOCOL_ERROR, "DATA on a stream that is not open")
            return  # the stream has ended here; its client does not know yet
        size = end - start
        if flags & frames.PADDED:
            start, end = _without_padding(data, start, end)
        rpc.on_data(data, start, end, size, bool(flags & frames.END_STREAM))

    def _on_headers(self, payload: bytes, flags: int, stream: int) -> None:
        if flags & (frames.PADDED | frames.WITH_PRIORITY):
            start, end = 0, len(payload)
            if flags & frames.PADDED:
                start, end = _without_padding(payload, start, end)
            payload = payload[start + (5 if flags & frames.WITH_PRIORITY else 0) : end]
        if flags & frames.END_HEADERS:
            self._on_block(payload, flags, stream)
        else:
            self._block = (stream, flags, bytearray(payload))

    def _on_continuation(self, payload: bytes, flags: int, stream: int) -> None:
        if self._block is None or self._block[0] != stream:
            raise ProtocolError(ErrorCode.PROTOCOL_ERROR, "CONTINUATION of no header block")
        block = self._block[2]
        block += payload
        if not payload or len(block) > _MAX_BLOCK:
            raise ProtocolError(ErrorCode.ENHANCE_YOUR_CALM, "a header block is too large")
        if flags & frames.END_HEADERS:
            _, first_flags, _ = self._block
            self._block = None
            self._on_block(bytes(block), first_flags, stream)

    def _on_block(self, block: bytes, flags: int, stream: int) -> None:
        request = self._reader.read(block)
        if stream <= self._last_stream:
            rpc = self.rpcs.get(stream)
            if rpc is not None and flags & frames.END_STREAM:  # trailers: gRPC clients send none
                rpc.on_data(b"", 0, 0, 0, True)
            return
        if not stream & 1:
            raise ProtocolError(ErrorCode.PROTOCOL_ERROR, "a client's streams have odd numbers")
        if self._refusing:
            return  # it has been told the last stream that counts, and sends this one elsewhere
        self._last_stream = stream
        if len(self.rpcs) >= MAX_CONCURRENT_STREAMS:
            self._send(frames.reset(stream, ErrorCode.REFUSED_STREAM))
            return
        rpc = self.rpcs[stream] = self._owner.open(self, stream, request)
        rpc.window = self._stream_window
        rpc.begin()
        if flags & frames.END_STREAM:
            rpc.on_data(b"", 0, 0, 0, True)

    def _on_control(self, kind: int, payload: bytes, flags: int, stream: int) -> None:
        if kind == frames.WINDOW_UPDATE:
            self._on_window(stream, frames.read_number(payload))
        elif kind == frames.RST_STREAM:
            frames.read_number(payload)
            rpc = self.rpcs.pop(stream, None)
            if rpc is not None:
                rpc.on_gone()
        elif kind == frames.PING:
            self._on_ping(payload, flags)
        elif kind == frames.SETTINGS:
            self._on_settings(payload, flags)
        elif kind == frames.CONTINUATION:
            self._on_continuation(payload, flags, stream)
        elif kind == frames.PUSH_PROMISE:
            raise ProtocolError(ErrorCode.PROTOCOL_ERROR, "clients push nothing")
        # PRIORITY and unknown types mean nothing here; after GOAWAY the client closes by itself.

    def _on_ping(self, payload: bytes, flags: int) -> None:
        if len(payload) != 8:
            raise ProtocolError(ErrorCode.FRAME_SIZE_ERROR, "a PING of a wrong size")
        if not flags & frames.ACK:
            self._send(frames.frame(frames.PING, frames.ACK, 0, payload))
            self._demand_reading()
        elif payload == _DRAIN_PING:
            self._refuse()
        self._pinged = None

    def _on_settings(self, payload: bytes, flags: int) -> None:
        if flags & frames.ACK:
            return
        self._settled = True
        values = frames.read_settings(payload)
        window = values.get(Setting.INITIAL_WINDOW_SIZE, self._stream_window)
        if window > frames.MAX_WINDOW:
            raise ProtocolError(ErrorCode.FLOW_CONTROL_ERROR, "a window is too large")
        size = values.get(Setting.MAX_FRAME_SIZE, self._frame_size)
        if not frames.DEFAULT_FRAME_SIZE <= size <= frames.MAX_FRAME_SIZE:
            raise ProtocolError(ErrorCode.PROTOCOL_ERROR, "no such frame size")
        with self._lock:
            self._frame_size = size
            for rpc in list(self.rpcs.values()):
                rpc.window += window - self._stream_window
            self._stream_window = window
            self._send(frames.frame(frames.SETTINGS, frames.ACK, 0, b""))
            self._pump()
        self._demand_reading()

    def _on_window(self, stream: int, size: int) -> None:
        if not size:
            raise ProtocolError(ErrorCode.PROTOCOL_ERROR, "a window grows by nothing")
        with self._lock:
            if not stream:
                self._window += size
                if self._window > frames.MAX_WINDOW:
                    raise ProtocolError(ErrorCode.FLOW_CONTROL_ERROR, "a window is too large")
                self._pump()
                return
            rpc = self.rpcs.get(stream)
            if rpc is not None:
                rpc.window += size
                if rpc.window > frames.MAX_WINDOW:
                    raise ProtocolError(ErrorCode.FLOW_CONTROL_ERROR, "a window is too large")
                self._pump_rpc(rpc)

    def _demand_reading(self) -> None:
        if self._output_size > _UNREAD_REPLIES and self._blocked:
            raise ProtocolError(ErrorCode.ENHANCE_YOUR_CALM, "replies are not read")

    # What is sent.

    def answer(self, rpc: "Rpc", message: bytes) -> None:
        """The whole answer of a unary RPC that ended well: headers, the message, trailers."""
        size = len(message) + 5
        stream = rpc.stream_bytes
        with self._lock:
            if size <= self._window and size <= rpc.window and size <= self._frame_size:
                if self.rpcs.pop(rpc.stream, None) is None:
                    return  # the client is gone
                self._window -= size
                self._send(
                    b"".join(
                        (
                            _OPENING_HEAD,
                            stream,
                            headers.OPENING,
                            size.to_bytes(3, "big"),
                            b"\0\0",
                            stream,
                            b"\0",
                            (size - 5).to_bytes(4, "big"),
                            message,
                            _OK_HEAD,
                            stream,
                            headers.OK_TRAILERS,
                        )
                    )
                )
                return
        self.open_answer(rpc)
        self.send_message(rpc, (message,), len(message))
        self.end(rpc, headers.OK_TRAILERS)

    def open_answer(self, rpc: "Rpc") -> None:
        """The headers of an answer."""
        with self._lock:
            if rpc.stream in self.rpcs:
                self._send(_OPENING_HEAD + rpc.stream_bytes + headers.OPENING)

    def send_message(self, rpc: "Rpc", pieces: Iterable[spliced.Buffer], size: int) -> bool:
        """A message of so many bytes, as far as the windows allow now; the rest follows.

        Returns whether there is room for the next; if not, `rpc.on_room` is called when there is.
        """
        with self._lock:
            if rpc.stream not in self.rpcs:
                return True  # the client is gone, and the handler will learn it
            rpc.outgoing.append(memoryview(b"\0" + size.to_bytes(4, "big")))
            rpc.outgoing += [memoryview(piece).cast("B") for piece in pieces]  # type: ignore[arg-type]  # arrays are buffers
            self._pump_rpc(rpc)
            if not rpc.outgoing and self._output_size <= _FULL:
                return True
            rpc.crowded = True
            if not rpc.outgoing:
                self._full.append(rpc)
            return False

    def end(self, rpc: "Rpc", trailers: bytes) -> None:
        """Ends a stream once its messages are sent."""
        with self._lock:
            if rpc.stream in self.rpcs:
                rpc.trailers = trailers
                if not rpc.outgoing:
                    self._finish(rpc)

    def refill(self, stream: int, size: int) -> None:
        """Lets the client send so many bytes more on a stream."""
        self._send(frames.window_update(stream, size))

    def reset(self, rpc: "Rpc", code: ErrorCode) -> None:
        """Ends a stream without an answer."""
        with self._lock:
            self.rpcs.pop(rpc.stream, None)
            self._send(frames.reset(rpc.stream, code))

    def _pump(self) -> None:
        """The connection's window has grown: every stream may go on."""
        for rpc in list(self.rpcs.values()):
            if rpc.outgoing and self._window > 0:
                self._pump_rpc(rpc)

    def _pump_rpc(self, rpc: "Rpc") -> None:
        outgoing = rpc.outgoing
        buffers: list[Buffer] = []
        while outgoing:
            room = min(self._window, rpc.window, self._frame_size)
            if room <= 0:
                break
            # One frame of as many pieces as fit.
            taken: list[Buffer] = []
            size = 0
            while outgoing and size < room:
                piece = outgoing[0]
                if size + len(piece) <= room:
                    outgoing.popleft()
                else:
                    outgoing[0] = piece[room - size :]
                    piece = piece[: room - size]
                taken.append(piece)
                size += len(piece)
            self._window -= size
            rpc.window -= size
            buffers.append(frames.head(size, frames.DATA, 0) + rpc.stream_bytes)
            buffers += taken
        if buffers:
            self._send(*buffers)
        if not outgoing:
            if rpc.trailers is not None:
                self._finish(rpc)
            elif rpc.crowded:
                self._full.append(rpc)
                self._make_room()

    def _finish(self, rpc: "Rpc") -> None:
        trailers, rpc.trailers = rpc.trailers, None
        assert trailers is not None
        self.rpcs.pop(rpc.stream, None)
        flags = frames.END_HEADERS | frames.END_STREAM
        self._send(frames.head(len(trailers), frames.HEADERS, flags) + rpc.stream_bytes + trailers)
        if not rpc.half_closed:  # nobody reads what the client still sends
            self._send(frames.reset(rpc.stream, ErrorCode.NO_ERROR))

    def _send(self, *buffers: Buffer) -> None:
        with self._lock:
            if self.closed:
                return
            first = not self._output
            self._output += buffers
            self._output_size += sum(map(len, buffers))
            if self._owner.on_thread():
                if first:
                    self._owner.unsent(self)
            elif not self._blocked:
                self.flush()

    def flush(self) -> None:
        """Sends what waits, as far as the socket takes it. From any thread."""
        with self._lock:
            if self.closed or not self._ready:
                return
            output = self._output
            try:
                while output:
                    self._sent(self._write(output))
            except (BlockingIOError, ssl.SSLWantWriteError, ssl.SSLWantReadError):
                if not self._blocked:
                    self._blocked = True
                    self._owner.watch(self, writable=True)
                return
            except OSError:
                self._owner.call_soon(self.close)
                return
            if self._blocked:
                self._blocked = False
                self._owner.watch(self, writable=False)
            if self._closing or (self._refusing and not self.rpcs):
                self._owner.call_soon(self.close)

    def _write(self, output: deque[Buffer]) -> int:
        if self._tls:
            return self.socket.send(b"".join(itertools.islice(output, _RECORD_BUFFERS)))
        if len(output) == 1:
            return self.socket.send(output[0])
        return self.socket.sendmsg(itertools.islice(output, _BUFFERS))

    def _sent(self, count: int) -> None:
        output = self._output
        self._output_size -= count
        while count:
            size = len(output[0])
            if size > count:
                output[0] = memoryview(output[0])[count:]
                break
            output.popleft()
            count -= size
        self._make_room()

    def _make_room(self) -> None:
        """Wakes who waits for room, on the transport's thread: here a lock is held."""
        while self._full and self._output_size <= _FULL:
            rpc = self._full.popleft()
            rpc.crowded = False
            self._owner.call_soon(rpc.on_room)

    # Its end.

    def expire(self, now: float) -> None:
        """Ends the RPCs whose deadlines have passed."""
        for rpc in list(self.rpcs.values()):
            if rpc.deadline is not None and rpc.deadline <= now:
                rpc.on_deadline()

    def keep(self, now: float) -> None:
        """What a connection's life asks for: a handshake in time, signs of life, an end."""
        limits, age = self._lifetimes, now - self._opened
        if not self._settled:
            if age > limits.handshake_timeout:
                self.close()
            return
        if self._pinged is not None:
            if now - self._pinged > limits.keepalive_timeout:
                self.close()
        elif now - self._heard > limits.keepalive_time:
            self._pinged = now
            self._send(frames.frame(frames.PING, 0, 0, _KEEPALIVE_PING))
        if age > self._max_age:
            self.drain()
            if age > self._max_age + limits.max_connection_age_grace:
                self.cancel()
                self._close_when_sent()
        if self._refusing and not self.rpcs:
            self._close_when_sent()

    def drain(self) -> None:
        """Asks the client to go elsewhere; streams that it opens until it knows are served."""
        if not self._draining:
            self._draining = True
            self._send(
                frames.go_away(frames.MAX_WINDOW, ErrorCode.NO_ERROR, "draining"),
                frames.frame(frames.PING, 0, 0, _DRAIN_PING),
            )

    def _refuse(self) -> None:
        """The client has read that it shall go: from here on its streams count no more."""
        with self._lock:
            self._refusing = True
            self._go_away(ErrorCode.NO_ERROR, "draining")  # once sent, and all answered, it closes

    def cancel(self) -> None:
        """Cancels what runs."""
        for rpc in list(self.rpcs.values()):
            rpc.on_cancel()

    def close(self) -> None:
        """Closes the socket; what runs learns that its client is gone. Can be called again.

        On the transport's thread, without the lock.
        """
        with self._lock:
            if self.closed:
                return
            self.closed = True
            self._output.clear()
            self._output_size = 0
            self._full.clear()
            rpcs, self.rpcs = self.rpcs, {}
        self._owner.closed(self)
        self.socket.close()
        for rpc in rpcs.values():
            rpc.on_gone()

    def _close_when_sent(self) -> None:
        with self._lock:
            self._closing = True
            if not self._output:
                self._owner.call_soon(self.close)

    def _go_away(self, code: ErrorCode, text: str) -> None:
        self._send(frames.go_away(self._last_stream, code, text))


_OPENING_HEAD: Final = frames.head(len(headers.OPENING), frames.HEADERS, frames.END_HEADERS)
_OK_HEAD: Final = frames.head(
    len(headers.OK_TRAILERS), frames.HEADERS, frames.END_HEADERS | frames.END_STREAM
)


def _without_padding(data: bytes, start: int, end: int) -> tuple[int, int]:
    padding = data[start] if end > start else 0
    if end - start < padding + 1:
        raise ProtocolError(ErrorCode.PROTOCOL_ERROR, "more padding than payload")
    return start + 1, end - padding
