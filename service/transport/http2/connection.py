"""One HTTP/2 connection: what its client sends, and its life from handshake to end.

All of it runs on the transport's thread, but for what `outgoing` says.
"""

import contextlib
import random
import socket
import ssl
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, Protocol

from service.transport import ConnectionLifetimes
from service.transport.http2 import frames, headers
from service.transport.http2.frames import ErrorCode, ProtocolError, Setting
from service.transport.http2.outgoing import Outgoing
from service.transport.metadata import MAX_METADATA

if TYPE_CHECKING:
    from service.transport.http2.rpc import Rpc

STREAM_WINDOW: Final = 2**20
_CONNECTION_WINDOW: Final = 2**24
_FRAME_SIZE: Final = 2**17  # the largest frame that clients may send
_READ: Final = 2**18
_SMALL: Final = 2**14  # bytes of a frame, up to which it waits until it is whole
_GOAWAY_SIZE: Final = 8  # and a text
_LEAVE: Final = 2.0  # seconds for a client to close too
_MAX_BLOCK: Final = 2**16
_CALL: Final = 6 * 2**10  # bytes that an open call takes: those of streams do, and others less
_LARGE_HEADERS: Final = 2**12  # bytes, beyond which they are counted beside that
_DRAIN_PING: Final = b"draining"
_KEEPALIVE_PING: Final = b"keepaliv"
# Streams that their clients reset so soon cost us work that no limit of open streams bounds
# (CVE-2023-44487). A connection may have some at once, and then so many a second, and one more for
# every stream that it lets live.
_SOON: Final = 0.1  # seconds
_RESETS: Final = 1000
_RESETS_A_SECOND: Final = 100.0


class Owner(Protocol):
    """What a connection needs of its transport. max_streams: open ones of one connection."""

    max_streams: int

    def clock(self) -> float:
        """Seconds of time.monotonic."""
        ...

    def open(self, connection: "Connection", stream: int, request: headers.RequestHeaders) -> "Rpc":
        """The RPC of a new stream."""
        ...

    def unsent(self, connection: "Connection") -> None:
        """Flushes the connection once all that arrived is handled."""
        ...

    def watch(self, connection: "Connection", *, writable: bool) -> None:
        """Whether to call `writable` when the socket takes more. From any thread."""
        ...

    def closed(self, connection: "Connection") -> None:
        """Forgets the connection, whose socket is still open."""
        ...

    def call_soon(self, callback: Callable[[], object]) -> None:
        """Runs callback on the transport's thread. From any thread."""
        ...

    def on_thread(self) -> bool:
        """Whether this is the transport's own thread."""
        ...


class Connection:
    """See the module. `now`: when it last read, in seconds of time.monotonic. `held`: bytes of its
    requests and answers in memory. `weighed`: its `overhead` when last looked at (both are
    `Held`'s). `spare`: it is one too many, and asks for health alone."""

    def __init__(
        self,
        sock: socket.socket,
        owner: Owner,
        lifetimes: ConnectionLifetimes,
        now: float,
        *,
        spare: bool = False,
    ) -> None:
        self.socket = sock
        self.now = now
        self.held = self.weighed = 0
        self.spare = spare
        self.outgoing = Outgoing(sock, self)
        self.rpcs = self.outgoing.rpcs
        self._clock = owner.clock
        self.on_thread = owner.on_thread  # see `outgoing.Sender`
        self.call_soon = owner.call_soon
        self._owner = owner
        self._lifetimes = lifetimes
        # A tenth more or less, so that clients that came together do not go together.
        self._max_age = lifetimes.max_connection_age * random.uniform(0.9, 1.1)  # noqa: S311
        self._opened = self._heard = now
        self._reader = headers.HeaderReader()
        self._input = b""  # less than a frame
        # Flags, stream and the bytes still to come of a large DATA frame in whose midst we are.
        self._partial: tuple[int, int, int] | None = None
        self._preface = frames.PREFACE  # what is still to come of it
        self._settled = False  # the client's settings have come
        self._block: tuple[int, int, bytearray] | None = None  # stream, flags, a block in pieces
        self._received = 0  # bytes of DATA that the client may not yet send again
        self._last_stream = 0
        self._streams = 0  # that have been opened
        self._resets = 0.0  # that are not forgiven yet
        self._forgiven = 0.0  # since the connection was opened
        self._pinged: float | None = None  # when it was asked for a sign of life
        self._drained: float | None = None  # when it was asked to go
        self._refusing = False  # new streams are not opened: the client knows that it shall go
        self._leaving: float | None = None  # when it began to close
        self.outgoing.ready = not isinstance(sock, ssl.SSLSocket)
        self.outgoing.send(_greeting(owner.max_streams))

    # What arrives.

    def readable(self, now: float) -> None:
        """Reads what has arrived and acts on it."""
        self.now = self._heard = now
        try:
            if self._leaving is not None:
                self._discard()
            elif self.outgoing.ready or self._shake_hands():
                self._receive()
        except (BlockingIOError, ssl.SSLWantReadError):
            return
        except ssl.SSLWantWriteError:
            self.watch(writable=True)
        except OSError:
            self.close()
        except ProtocolError as error:
            self._abandon()
            self.outgoing.send(frames.go_away(self._last_stream, error.code, str(error)))
            self._leave(now)

    def writable(self, now: float) -> None:
        """The socket takes more."""
        if self.outgoing.ready:
            self.outgoing.flush()
        else:
            self.watch(writable=False)
            self.readable(now)

    def _shake_hands(self) -> bool:
        assert isinstance(self.socket, ssl.SSLSocket)
        self.socket.do_handshake()
        if self.socket.selected_alpn_protocol() != "h2":
            self.close()
            return False
        self.outgoing.ready = True
        self.flush_later()
        return True

    def _receive(self) -> None:
        if not isinstance(self.socket, ssl.SSLSocket):
            self._take(self.socket.recv(_READ))
            return
        pending = 1
        while pending:
            with self.outgoing.lock:  # OpenSSL allows one thread at a time
                data = self.socket.recv(_READ)
                pending = self.socket.pending()
            self._take(data)

    def _take(self, data: bytes) -> None:
        """Acts on all whole frames."""
        if not data:
            self.close()
            return
        if self._input:
            data = self._input + data
        position, end = self._skip_preface(data), len(data)
        if self._partial is not None:
            position = self._on_part(data, position, end, *self._partial)
        read_head = frames.read_head
        while end - position >= frames.HEAD_SIZE:
            high, low, kind, flags, stream = read_head(data, position)
            length = high << 8 | low
            if length > _FRAME_SIZE:
                raise ProtocolError(ErrorCode.FRAME_SIZE_ERROR, "a frame is too large")
            start = position + frames.HEAD_SIZE
            stream &= frames.MAX_WINDOW  # the first bit means nothing
            if end - start < length:
                plain = kind == frames.DATA and not flags & frames.PADDED
                if plain and length > _SMALL and self._block is None:
                    position = self._on_part(data, start, end, flags, stream, length)
                break
            position = start + length
            if self._block is not None and kind != frames.CONTINUATION:
                raise ProtocolError(ErrorCode.PROTOCOL_ERROR, "expected the rest of a header block")
            if kind == frames.DATA:
                self._on_data(data, start, position, flags, stream)
            elif kind == frames.HEADERS:
                self._on_headers(data[start:position], flags, stream)
            elif (react := _REACTIONS.get(kind)) is not None:
                react(self, data[start:position], flags, stream)
        self._input = data[position:]

    def _skip_preface(self, data: bytes) -> int:
        count = min(len(data), len(self._preface))
        if data[:count] != self._preface[:count]:
            raise ProtocolError(ErrorCode.PROTOCOL_ERROR, "expected HTTP/2 with prior knowledge")
        self._preface = self._preface[count:]
        return count

    def _on_data(self, data: bytes, start: int, end: int, flags: int, stream: int) -> None:
        size = end - start
        self._received += size
        if self._received >= _CONNECTION_WINDOW // 2:
            self.outgoing.send(frames.window_update(0, self._received))
            self._received = 0
        rpc = self.rpcs.get(stream)
        if rpc is None:
            self._check_known(stream, "DATA")
            return  # the stream has ended here; its client does not know yet
        if rpc.half_closed:
            raise ProtocolError(ErrorCode.STREAM_CLOSED, "DATA after the end of a stream")
        if flags & frames.PADDED:
            start, end = _without_padding(data, start, end)
        rpc.on_data(data, start, end, size, bool(flags & frames.END_STREAM))

    def _on_part(
        self, data: bytes, start: int, end: int, flags: int, stream: int, missing: int
    ) -> int:
        """Takes what data[start:end] has of the bytes that are missing of a DATA frame; returns
        where they end."""
        stop = min(start + missing, end)
        missing -= stop - start
        self._partial = (flags, stream, missing) if missing else None
        if missing:
            flags &= ~frames.END_STREAM
        self._on_data(data, start, stop, flags, stream)
        return stop

    def _on_headers(self, payload: bytes, flags: int, stream: int) -> None:
        if flags & (frames.PADDED | frames.WITH_PRIORITY):
            start, end = 0, len(payload)
            if flags & frames.PADDED:
                start, end = _without_padding(payload, start, end)
            start += 5 if flags & frames.WITH_PRIORITY else 0
            if start > end:
                raise ProtocolError(ErrorCode.FRAME_SIZE_ERROR, "a frame without its priority")
            payload = payload[start:end]
        if flags & frames.END_HEADERS:
            self._on_block(payload, flags, stream)
        else:
            self._block = (stream, flags, bytearray(payload))

    def _on_continuation(self, payload: bytes, flags: int, stream: int) -> None:
        if self._block is None or self._block[0] != stream:
            raise ProtocolError(ErrorCode.PROTOCOL_ERROR, "CONTINUATION of no header block")
        _, first_flags, block = self._block
        block += payload
        last = flags & frames.END_HEADERS
        if len(block) > _MAX_BLOCK or not (payload or last):
            raise ProtocolError(ErrorCode.ENHANCE_YOUR_CALM, "a header block is too large")
        if last:
            self._block = None
            self._on_block(bytes(block), first_flags, stream)

    def _on_block(self, block: bytes, flags: int, stream: int) -> None:
        self.outgoing.demand_reading()
        request = self._reader.read(block)
        ended = bool(flags & frames.END_STREAM)
        if not stream & 1:
            raise ProtocolError(ErrorCode.PROTOCOL_ERROR, "a client's streams have odd numbers")
        if stream <= self._last_stream:
            rpc = self.rpcs.get(stream)
            if rpc is not None and ended:  # trailers, which gRPC's clients do not send
                rpc.on_data(b"", 0, 0, 0, ended)
            return
        if self._refusing:
            return  # it has been told the last stream that counts, and sends this one elsewhere
        self._last_stream = stream
        self._streams += 1
        if len(self.rpcs) >= self._owner.max_streams:
            self.outgoing.reset(stream, ErrorCode.REFUSED_STREAM)
            return
        rpc = self._owner.open(self, stream, request)
        rpc.window = self.outgoing.stream_window
        self.rpcs[stream] = rpc
        if request.size > _LARGE_HEADERS and not rpc.hold(request.size):
            return
        rpc.begin()
        if ended:
            rpc.on_data(b"", 0, 0, 0, ended)

    def _on_window_update(self, payload: bytes, flags: int, stream: int) -> None:
        size = frames.read_number(payload)
        if not size:
            raise ProtocolError(ErrorCode.PROTOCOL_ERROR, "a window grows by nothing")
        if stream:
            self._check_known(stream, "WINDOW_UPDATE")
        self.outgoing.widen(stream, size)

    def _on_reset(self, payload: bytes, flags: int, stream: int) -> None:
        frames.read_number(payload)
        self._check_known(stream, "RST_STREAM")
        rpc = self.outgoing.pop(stream)
        if rpc is not None:
            rpc.on_gone()
            if self.now - rpc.started < _SOON:
                self._count_reset()
        self.sent_all()

    def _count_reset(self) -> None:
        """Raises ProtocolError if there are too many."""
        forgiven = self._streams + (self.now - self._opened) * _RESETS_A_SECOND
        self._resets = max(0.0, self._resets - (forgiven - self._forgiven)) + 2  # it opened one
        self._forgiven = forgiven
        if self._resets > _RESETS:
            raise ProtocolError(ErrorCode.ENHANCE_YOUR_CALM, "streams are reset as they open")

    def _on_ping(self, payload: bytes, flags: int, stream: int) -> None:
        _check_connection(stream)
        self.outgoing.demand_reading()
        if len(payload) != len(_DRAIN_PING):
            raise ProtocolError(ErrorCode.FRAME_SIZE_ERROR, "a PING of a wrong size")
        if not flags & frames.ACK:
            self.outgoing.send(frames.frame(frames.PING, frames.ACK, 0, payload))
        elif payload == _KEEPALIVE_PING:
            self._pinged = None
        elif payload == _DRAIN_PING and self._drained is not None:
            # It has read that it shall go: from here on its streams count no more.
            self._refusing = True
            self.outgoing.send(
                frames.go_away(self._last_stream, ErrorCode.NO_ERROR, "draining"),
            )

    def _on_settings(self, payload: bytes, flags: int, stream: int) -> None:
        _check_connection(stream)
        self.outgoing.demand_reading()
        if flags & frames.ACK:
            if payload:
                raise ProtocolError(ErrorCode.FRAME_SIZE_ERROR, "an acknowledgement with settings")
            return
        values = frames.read_settings(payload)
        if values.get(Setting.ENABLE_PUSH, 0) > 1:
            raise ProtocolError(ErrorCode.PROTOCOL_ERROR, "ENABLE_PUSH: expected 0 or 1")
        window = values.get(Setting.INITIAL_WINDOW_SIZE, self.outgoing.stream_window)
        if window > frames.MAX_WINDOW:
            raise ProtocolError(ErrorCode.FLOW_CONTROL_ERROR, "a window is too large")
        size = values.get(Setting.MAX_FRAME_SIZE, self.outgoing.frame_size)
        if not frames.DEFAULT_FRAME_SIZE <= size <= frames.MAX_FRAME_SIZE:
            raise ProtocolError(ErrorCode.PROTOCOL_ERROR, "no such frame size")
        self._settled = True
        with self.outgoing.lock:  # what is sent before the client reads this has to fit the old
            self.outgoing.send(frames.frame(frames.SETTINGS, frames.ACK, 0, b""))
            self.outgoing.set_limits(window, size)

    def _on_push(self, payload: bytes, flags: int, stream: int) -> None:
        raise ProtocolError(ErrorCode.PROTOCOL_ERROR, "clients push nothing")

    def _on_go_away(self, payload: bytes, flags: int, stream: int) -> None:
        """The client closes by itself, when it has its answers."""
        _check_connection(stream)
        if len(payload) < _GOAWAY_SIZE:
            raise ProtocolError(ErrorCode.FRAME_SIZE_ERROR, "a GOAWAY of a wrong size")

    # What `outgoing` needs; from any thread, with its lock held.

    def flush_later(self) -> None:
        """See `outgoing.Sender`."""
        self._owner.unsent(self)

    def watch(self, *, writable: bool) -> None:
        """See `outgoing.Sender`."""
        self._owner.watch(self, writable=writable)

    def sent_all(self) -> None:
        """See `outgoing.Sender`."""
        if self._leaving is not None:
            with contextlib.suppress(OSError):  # it is gone already
                self.socket.shutdown(socket.SHUT_WR)
        elif self._refusing and not self.rpcs:
            self.call_soon(self._leave_now)

    def lost(self) -> None:
        """See `outgoing.Sender`."""
        self.call_soon(self.close)

    # Its life.

    def overhead(self) -> int:
        """Bytes in memory that `held` has not: of open calls, half frames, and unread answers."""
        if self.outgoing.closed:
            return 0
        half = len(self._input) + (len(self._block[2]) if self._block else 0)
        return len(self.rpcs) * _CALL + half + self.outgoing.size

    def give_way(self) -> None:
        """Others need the memory: its largest call ends, and without calls the connection."""
        rpcs = list(self.rpcs.values())  # which other threads may end meanwhile
        if rpcs:
            left = [rpc for rpc in rpcs if rpc.open or rpc.outgoing]  # others are being answered
            left.reverse()  # of equal ones the youngest, which has waited least
            if (largest := max(left, key=lambda rpc: rpc.held, default=None)) is not None:
                largest.on_overload()
            return
        self.outgoing.discard()
        self._input, self._block = b"", None
        self.call_soon(self.close)  # what it has sent may be in the midst of being read

    def expire(self, now: float) -> None:
        """Ends the RPCs whose deadlines have passed."""
        for rpc in list(self.rpcs.values()):
            if rpc.deadline is not None and rpc.deadline <= now:
                rpc.on_deadline()

    def keep(self, now: float) -> None:
        """What its lifetimes ask for: a handshake in time, signs of life, an end."""
        limits, age = self._lifetimes, now - self._opened
        if self._leaving is not None:
            if now - self._leaving > _LEAVE:
                self.close()
        elif not self._settled:
            waited = age > limits.handshake_timeout
            if waited or (self._drained is not None and now - self._drained > _LEAVE):
                self.close()
        elif self._pinged is not None and now - self._pinged > limits.keepalive_timeout:
            self.close()
        elif age > self._max_age + limits.max_connection_age_grace:
            self.cancel()
            self._leave(now)
        elif age > self._max_age:
            self.drain()
        elif self._pinged is None and now - self._heard > limits.keepalive_time:
            self._pinged = now
            self.outgoing.send(frames.frame(frames.PING, 0, 0, _KEEPALIVE_PING))

    def drain(self) -> None:
        """Asks the client to go elsewhere; streams that it opens until it knows are served."""
        if self._drained is None:
            self._drained = self._clock()
            self.outgoing.send(
                frames.go_away(frames.MAX_WINDOW, ErrorCode.NO_ERROR, "draining"),
                frames.frame(frames.PING, 0, 0, _DRAIN_PING),
            )

    def refill(self, stream: int, size: int) -> None:
        """Lets the client send so many bytes more on a stream."""
        self.outgoing.send(frames.window_update(stream, size))

    def cancel(self) -> None:
        """Cancels what runs."""
        for rpc in list(self.rpcs.values()):
            rpc.on_cancel()

    def close(self) -> None:
        """Closes the socket; what runs learns that its client is gone. Can be called again."""
        if self.outgoing.closed:
            return
        self.outgoing.close()
        self._owner.closed(self)
        self.socket.close()
        self._abandon()

    def _abandon(self) -> None:
        """Tells what runs that nobody waits."""
        for stream in list(self.rpcs):
            if (rpc := self.outgoing.pop(stream)) is not None:
                rpc.on_gone()

    def _leave(self, now: float) -> None:
        """Closes once all is sent and the client has closed too, or after a while.

        At once the kernel would reset the connection if the client had sent more, and the client
        could lose answers that it has not read.
        """
        if self._leaving is None:
            self._leaving = now
            self.flush_later()

    def _leave_now(self) -> None:
        self._leave(self._clock())

    def _discard(self) -> None:
        while True:
            if not self.socket.recv(_READ):
                self.close()
                return

    def _check_known(self, stream: int, kind: str) -> None:
        """Raises ProtocolError for a stream that has not been opened, unless none is any more."""
        if not stream & 1 or (stream > self._last_stream and not self._refusing):
            raise ProtocolError(ErrorCode.PROTOCOL_ERROR, f"{kind} of a stream that is not open")


# By type of frame. PRIORITY and unknown ones mean nothing here.
_REACTIONS: Final[dict[int, Callable[[Connection, bytes, int, int], Any]]] = {
    frames.RST_STREAM: Connection._on_reset,
    frames.SETTINGS: Connection._on_settings,
    frames.PUSH_PROMISE: Connection._on_push,
    frames.PING: Connection._on_ping,
    frames.GOAWAY: Connection._on_go_away,
    frames.WINDOW_UPDATE: Connection._on_window_update,
    frames.CONTINUATION: Connection._on_continuation,
}


def _greeting(max_streams: int) -> bytes:
    """What every client is told first."""
    return frames.settings(
        {
            Setting.MAX_CONCURRENT_STREAMS: max_streams,
            Setting.INITIAL_WINDOW_SIZE: STREAM_WINDOW,
            Setting.MAX_FRAME_SIZE: _FRAME_SIZE,
            Setting.MAX_HEADER_LIST_SIZE: MAX_METADATA,
        }
    ) + frames.window_update(0, _CONNECTION_WINDOW - frames.DEFAULT_WINDOW)


def _check_connection(stream: int) -> None:
    if stream:
        raise ProtocolError(ErrorCode.PROTOCOL_ERROR, "a frame of the connection, on a stream")


def _without_padding(data: bytes, start: int, end: int) -> tuple[int, int]:
    padding = data[start] if end > start else 0
    if end - start < padding + 1:
        raise ProtocolError(ErrorCode.PROTOCOL_ERROR, "more padding than payload")
    return start + 1, end - padding
