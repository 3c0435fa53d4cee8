"""What a connection sends: frames in order, within the client's windows, as fast as it reads.

Answers may come from any thread, so all of this is guarded by one lock. The transport's own thread
leaves what it has to send until it has handled all that arrived; other threads send at once. With
the lock held no handler runs: whoever waited for room is called by the transport's thread.
"""

import itertools
import socket
import ssl
import threading
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Final, Protocol

from service.transport.http2 import frames, headers
from service.transport.http2.frames import ErrorCode, ProtocolError
from service.transport.spliced import Buffer

if TYPE_CHECKING:
    from service.transport.http2.rpc import Rpc

_BUFFERS: Final = 512  # in one call of sendmsg; the kernel takes 1024
_RECORD_BUFFERS: Final = 16  # in one call of TLS, which has no sendmsg
_FULL: Final = 2**19  # bytes that wait for the socket, beyond which streams wait too
_UNREAD: Final = 2**20  # bytes, beyond which a client that asks for replies and reads none goes
_LARGE: Final = 2**15  # bytes of an answer, beyond which its pieces are sent from where they lie
_OPENING_HEAD: Final = frames.head(len(headers.OPENING), frames.HEADERS, frames.END_HEADERS)


class Sender(Protocol):
    """What it needs of the connection and its transport; from any thread."""

    def on_thread(self) -> bool:
        """Whether this is the transport's own thread."""
        ...

    def flush_later(self) -> None:
        """Flushes once all that arrived is handled; on the transport's own thread."""
        ...

    def watch(self, *, writable: bool) -> None:
        """Whether to flush when the socket takes more."""
        ...

    def sent_all(self) -> None:
        """Nothing waits to be sent."""
        ...

    def lost(self) -> None:
        """The socket is broken."""
        ...

    def call_soon(self, callback: Callable[[], object]) -> None:
        """Runs callback on the transport's thread, with no lock held."""
        ...


class Outgoing:
    """See the module. `rpcs`: the open streams by their numbers."""

    def __init__(self, sock: socket.socket, sender: Sender) -> None:
        self.lock = threading.RLock()
        self.rpcs: dict[int, Rpc] = {}
        self.stream_window = frames.DEFAULT_WINDOW  # a new stream's
        self.ready = True  # false before the TLS handshake is done
        self.closed = False
        self._sender = sender
        self._socket = sock
        self._tls = isinstance(sock, ssl.SSLSocket)
        self._window = frames.DEFAULT_WINDOW
        self.frame_size = frames.DEFAULT_FRAME_SIZE
        self._buffers: deque[bytes | memoryview] = deque()
        self._size = 0  # bytes in the buffers
        self._unasked = 0  # of them what no window bounds, since the socket took no more
        self._blocked = False  # the socket takes no more at the moment
        self._together = False  # more is sent at once: whoever does so flushes at the end
        self._crowd: OrderedDict[int, Rpc] = OrderedDict()  # who waits for room in the buffers

    # Of streams.

    def answer(self, rpc: "Rpc", pieces: Sequence[Buffer], size: int, trailers: bytes) -> None:
        """The whole answer of a unary RPC: headers, a message of so many bytes, trailers."""
        length = size + 5
        stream = rpc.stream_bytes
        with self.lock:
            room = min(self._window, rpc.window, self.frame_size, _LARGE)
            if length <= room and self._size <= _FULL:
                if self.pop(rpc.stream) is None:
                    return  # the client is gone
                self._window -= length
                self.send(
                    b"".join(
                        (
                            _OPENING_HEAD,
                            stream,
                            headers.OPENING,
                            length.to_bytes(3, "big"),
                            b"\0\0",  # DATA, no flags
                            stream,
                            b"\0",  # not compressed
                            size.to_bytes(4, "big"),
                            *pieces,  # type: ignore[arg-type]  # numpy's
                            _end_head(len(trailers)),
                            stream,
                            trailers,
                        )
                    ),
                    windowed=True,
                )
                return
            self._together = True
            try:
                self.open_answer(rpc)
                self.send_message(rpc, pieces, size)
                self.end(rpc, trailers)
            finally:
                self._together = False
            self._hasten()

    def open_answer(self, rpc: "Rpc") -> None:
        """The headers of an answer."""
        with self.lock:
            if rpc.stream in self.rpcs:
                self.send(_OPENING_HEAD + rpc.stream_bytes + headers.OPENING)

    def send_message(self, rpc: "Rpc", pieces: Iterable[Buffer], size: int) -> bool:
        """A message of so many bytes, as far as the windows allow now; the rest follows.

        Returns whether there is room for the next; if not, `rpc.on_room` is called when there is.
        """
        with self.lock:
            if rpc.stream not in self.rpcs:
                return True  # the client is gone, and the handler will learn it
            rpc.outgoing.append(memoryview(b"\0" + size.to_bytes(4, "big")))
            for piece in pieces:
                view = memoryview(piece).cast("B")  # type: ignore[arg-type]  # numpy's
                if len(view):  # the socket would take nothing of it, for ever
                    rpc.outgoing.append(view)
            self._pump(rpc)
            if rpc.outgoing:
                self._count_unsent(rpc)
                if rpc.server.held.full:
                    self._sender.call_soon(rpc.server.make_room)
            elif self._size <= _FULL:
                return True
            else:
                self._crowd.setdefault(rpc.stream, rpc)
            rpc.crowded = True
            return False

    def end(self, rpc: "Rpc", trailers: bytes) -> None:
        """Ends a stream once its messages are sent."""
        with self.lock:
            if rpc.stream in self.rpcs:
                rpc.trailers = trailers
                if not rpc.outgoing:
                    self._finish(rpc)

    def reset(self, stream: int, code: ErrorCode) -> None:
        """Ends a stream without an answer."""
        with self.lock:
            self.pop(stream)
            self.send(frames.reset(stream, code))

    def drop(self, stream: int) -> None:
        """Sends no more of a stream, and no end: the connection's is near."""
        with self.lock:
            self.pop(stream)

    def pop(self, stream: int) -> "Rpc | None":
        """Forgets a stream; None if it was gone."""
        rpc = self.rpcs.pop(stream, None)
        if rpc is not None and rpc.held:
            rpc.server.held.release(rpc)
        return rpc

    # Of the connection.

    def send(self, *buffers: bytes | memoryview, windowed: bool = False) -> None:
        """Frames that no window bounds, unless they have been taken from it."""
        with self.lock:
            if self.closed:
                return
            size = sum(map(len, buffers))
            if self._blocked and not windowed:
                self._unasked += size
            first = not self._buffers
            self._buffers += buffers
            self._size += size
            if first and self._sender.on_thread():
                self._sender.flush_later()
            else:
                self._hasten()

    def demand_reading(self) -> None:
        """Raises ProtocolError if the client makes us answer and does not read it."""
        if self._unasked > _UNREAD:
            raise ProtocolError(ErrorCode.ENHANCE_YOUR_CALM, "answers are not read")

    def set_limits(self, stream_window: int, frame_size: int) -> None:
        """The client's settings. Raises ProtocolError if a window becomes too large."""
        with self.lock:
            self.frame_size = frame_size
            for rpc in self.rpcs.values():
                rpc.window = _grown(rpc.window, stream_window - self.stream_window)
            self.stream_window = stream_window
            self._pump_all()

    def widen(self, stream: int, size: int) -> None:
        """The client reads so many bytes more, on the connection if stream is 0. Raises
        ProtocolError if the window becomes too large."""
        with self.lock:
            if not stream:
                self._window = _grown(self._window, size)
                self._pump_all()
            elif (rpc := self.rpcs.get(stream)) is not None:
                rpc.window = _grown(rpc.window, size)
                self._pump(rpc)

    def flush(self) -> None:
        """Sends what waits, as far as the socket takes it."""
        with self.lock:
            if self.closed or not self.ready:
                return
            try:
                while self._buffers:
                    self._sent(self._write())
            except (BlockingIOError, ssl.SSLWantWriteError, ssl.SSLWantReadError):
                if not self._blocked:
                    self._blocked = True
                    self._sender.watch(writable=True)
                return
            except OSError:
                self._sender.lost()
                return
            if self._blocked:
                self._blocked = False
                self._unasked = 0
                self._sender.watch(writable=False)
            self._sender.sent_all()

    @property
    def size(self) -> int:
        """Bytes that wait for the socket. From any thread."""
        return self._size

    def close(self) -> None:
        """Drops what waits; nothing is sent any more."""
        with self.lock:
            self.closed = True
            self.discard()

    def discard(self) -> None:
        """Drops what waits, in the midst of frames: the connection has to end."""
        with self.lock:
            self._buffers.clear()
            self._size = 0
            self._crowd.clear()

    def _hasten(self) -> None:
        """Flushes what cannot or need not wait: another thread's, and what has become much."""
        if self._blocked or not self._buffers:
            return
        if self._size > _FULL or not (self._together or self._sender.on_thread()):
            self.flush()

    def _pump_all(self) -> None:
        for rpc in list(self.rpcs.values()):
            if rpc.outgoing and self._window > 0:
                self._pump(rpc)

    def _pump(self, rpc: "Rpc") -> None:
        """Sends what the windows and the buffers allow of a stream."""
        sent = False
        while rpc.outgoing:
            if self._size > _FULL:  # windows may be larger than what the client reads
                self._crowd.setdefault(rpc.stream, rpc)
                break
            if not (buffers := self._cut_frames(rpc)):
                break
            self.send(*buffers, windowed=True)
            sent = True
        if sent and rpc.unsent:
            self._count_unsent(rpc)
        if rpc.outgoing or not sent:
            return
        if rpc.trailers is not None:
            self._finish(rpc)
        elif rpc.crowded:
            self._crowd.setdefault(rpc.stream, rpc)
            self._make_room()

    def _count_unsent(self, rpc: "Rpc") -> None:
        """Holds what waits of a stream; what its connection has in its buffers, that counts."""
        unsent = sum(map(len, rpc.outgoing))
        rpc.server.held.add(rpc, unsent - rpc.unsent)
        rpc.unsent = unsent

    def _cut_frames(self, rpc: "Rpc") -> list[bytes | memoryview]:
        """The next frames of a stream, as many as fit into the windows and fill the buffers."""
        buffers: list[bytes | memoryview] = []
        window = min(self._window, rpc.window)
        left = min(window, _FULL + 1 - self._size)
        while rpc.outgoing and left > 0:
            pieces, size = _cut(rpc.outgoing, min(window, self.frame_size))
            buffers.append(frames.head(size, frames.DATA, 0) + rpc.stream_bytes)
            buffers += pieces
            window -= size
            left -= size
            self._window -= size
            rpc.window -= size
        return buffers

    def _finish(self, rpc: "Rpc") -> None:
        trailers = rpc.trailers
        assert trailers is not None
        self.pop(rpc.stream)
        self.send(_end_head(len(trailers)) + rpc.stream_bytes + trailers)
        if not rpc.half_closed:  # nobody reads what the client still sends
            self.send(frames.reset(rpc.stream, ErrorCode.NO_ERROR))

    def _write(self) -> int:
        if self._tls:
            return self._socket.send(b"".join(itertools.islice(self._buffers, _RECORD_BUFFERS)))
        if len(self._buffers) == 1:
            return self._socket.send(self._buffers[0])
        return self._socket.sendmsg(itertools.islice(self._buffers, _BUFFERS))

    def _sent(self, count: int) -> None:
        buffers = self._buffers
        self._size -= count
        while count:
            size = len(buffers[0])
            if size > count:
                buffers[0] = memoryview(buffers[0])[count:]
                break
            buffers.popleft()
            count -= size
        self._make_room()

    def _make_room(self) -> None:
        while self._crowd and self._size <= _FULL:
            _, rpc = self._crowd.popitem(last=False)
            if rpc.outgoing:
                self._sender.call_soon(partial(self._resume, rpc))
                return  # it may take all the room
            rpc.crowded = False
            self._sender.call_soon(rpc.on_room)

    def _resume(self, rpc: "Rpc") -> None:
        with self.lock:
            if rpc.stream in self.rpcs:
                self._pump(rpc)
            self._make_room()


@lru_cache(maxsize=64)
def _end_head(size: int) -> bytes:
    """Of trailers of so many bytes."""
    return frames.head(size, frames.HEADERS, frames.END_HEADERS | frames.END_STREAM)


def _cut(outgoing: deque[memoryview], room: int) -> tuple[list[memoryview], int]:
    """Takes as many bytes as there is room for, or all; returns them and their number."""
    pieces: list[memoryview] = []
    size = 0
    while outgoing and size < room:
        piece = outgoing[0]
        if size + len(piece) <= room:
            outgoing.popleft()
        else:
            outgoing[0] = piece[room - size :]
            piece = piece[: room - size]
        pieces.append(piece)
        size += len(piece)
    return pieces, size


def _grown(window: int, size: int) -> int:
    window += size
    if window > frames.MAX_WINDOW:
        raise ProtocolError(ErrorCode.FLOW_CONTROL_ERROR, "a window is too large")
    return window
