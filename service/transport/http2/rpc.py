"""gRPC on a stream: its messages, its deadline, its end."""

from collections import deque
from collections.abc import Sequence
from typing import Any, ClassVar, Final, Protocol

import grpc
from google.protobuf.message import Message

from service.completion import Task
from service.errors import InvalidRequest, Overloaded, ServiceError
from service.logs import Logger
from service.transport import CallObserver, Response, failure, log_slow
from service.transport.http2 import headers
from service.transport.http2.connection import STREAM_WINDOW, Connection
from service.transport.http2.frames import ErrorCode, ProtocolError
from service.transport.http2.held import Held
from service.transport.http2.messages import PREFIX, Packed, Unpacker, Unreadable, read_prefix
from service.transport.metadata import new_request_id
from service.transport.spliced import Buffer, Spliced

_GONE: Final = grpc.StatusCode.CANCELLED
_SMALL: Final = 2**12  # bytes of a message that is not counted by itself, but with its RPC


class Server(Protocol):
    """What an RPC needs of the transport."""

    observer: CallObserver
    log: Logger
    max_message: int
    slow_seconds: float
    held: Held

    def make_room(self) -> None:
        """Ends RPCs of who holds most, and last its connection, until no more is held than may
        be."""
        ...

    def clock(self) -> float:
        """Seconds of time.monotonic."""
        ...


class Rpc:
    """One stream; `Unary` and `Streaming` run the handlers.

    The connection calls `on_...` on the transport's thread. A handler may end it on any other, so
    whoever pops `open` ends it. `window`, `outgoing`, `unsent`, `trailers` and `crowded` are
    `Outgoing`'s.
    """

    __slots__ = (
        "_encoding",
        "_kind",
        "_received",
        "_unpacker",
        "connection",
        "crowded",
        "deadline",
        "half_closed",
        "held",
        "open",
        "outgoing",
        "path",
        "request_id",
        "server",
        "started",
        "stream",
        "stream_bytes",
        "task",
        "trailers",
        "unsent",
        "window",
    )
    unary: ClassVar = False

    def __init__(
        self,
        server: Server,
        connection: Connection,
        stream: int,
        request: headers.RequestHeaders,
        path: str,
        kind: type[Message] = Message,
    ) -> None:
        """kind: of its requests."""
        self.server = server
        self.connection = connection
        self.stream = stream
        self.stream_bytes = stream.to_bytes(4, "big")
        self.path = path
        self.request_id = request.request_id  # "" without
        self.started = connection.now
        self.deadline = None if request.timeout is None else self.started + request.timeout
        self.held = 0  # bytes of its requests and answers in memory: see `Held`
        self.half_closed = False  # the client has sent all
        self.open = [True]  # popping is atomic under the GIL
        self.task: Task[Any] | None = None
        self.window = 0
        self.outgoing: deque[memoryview] = deque()
        self.unsent = 0  # bytes of messages that wait in `outgoing`, once they had to
        self.trailers: bytes | None = None
        self.crowded = False
        self._encoding = request.encoding
        self._kind = kind
        self._unpacker: Unpacker | None = None
        self._received = 0  # bytes that the client may not yet send again

    # What subclasses do.

    def begin(self) -> None:
        """The stream is open."""

    def on_message(self, data: bytes | memoryview) -> None:
        """A whole message."""
        raise NotImplementedError

    def on_packed(self, message: Packed) -> None:
        """A compressed message. Raises Unreadable."""
        data = self.unpack(message)
        if self.hold(len(data)):
            self.on_message(data)

    def on_half_closed(self) -> None:
        """The client has sent all."""
        raise NotImplementedError

    def on_room(self) -> None:
        """There is room for the next message again."""

    def wants_more(self) -> bool:
        """Whether the client may send more than its window."""
        return True

    def write_end(self, trailers: bytes) -> None:
        """Sends the status."""
        raise NotImplementedError

    # What the connection tells.

    def on_data(self, data: bytes, start: int, end: int, size: int, ended: bool) -> None:
        """The bytes data[start:end] of the stream; `size` is what they took of the windows."""
        if not self.open:
            return
        self._received += size
        if self._received > STREAM_WINDOW:
            raise ProtocolError(ErrorCode.FLOW_CONTROL_ERROR, "more than the stream's window")
        if ended:
            self.half_closed = True
        if start < end:
            self._unpack(data, start, end)
        if ended and self.open:
            if self._unpacker is not None and not self._unpacker.empty:
                self.fail(InvalidRequest("request", "the message ends in the middle"))
            else:
                self.on_half_closed()
        self.refill()

    def on_gone(self) -> None:
        """The client reset the stream or is gone."""
        self._count(_GONE)
        self.cancel()

    def on_deadline(self) -> None:
        """The deadline has passed."""
        if self.outgoing:  # in the middle of a message no status can be sent
            self._count(grpc.StatusCode.DEADLINE_EXCEEDED)
            self.connection.outgoing.reset(self.stream, ErrorCode.CANCEL)
        else:
            self.close(grpc.StatusCode.DEADLINE_EXCEEDED, "the deadline passed")
        self.cancel()

    def on_overload(self) -> None:
        """Others need the memory that it holds."""
        if not self.outgoing:
            text = "the service holds as many bytes as it may; send or ask for fewer at a time"
            self.fail(Overloaded(text))
        if self.stream in self.connection.rpcs:  # in the middle of a message no status can be sent
            self._count(grpc.StatusCode.RESOURCE_EXHAUSTED)
            self.connection.outgoing.reset(self.stream, ErrorCode.ENHANCE_YOUR_CALM)
            self.cancel()

    def on_cancel(self) -> None:
        """The connection ends, and with it whatever is in the middle of a message.

        A reset would say that the RPC was cancelled; of a lost connection clients make UNAVAILABLE,
        and go on elsewhere.
        """
        if self.outgoing:
            self._count(grpc.StatusCode.UNAVAILABLE)
            self.connection.outgoing.drop(self.stream)
        else:
            text = "the service stopped before the request ended"
            self.close(grpc.StatusCode.UNAVAILABLE, text)
        self.cancel()

    # What handlers cause.

    def finish(self, error: BaseException | None) -> None:
        """The handler has ended, with an error or well."""
        self.task = None
        if not self.open:
            return
        if error is None:
            self.close(grpc.StatusCode.OK)
        else:
            self._close_for(error)

    def fail(self, error: ServiceError) -> None:
        """Ends the RPC for what the client sent; the handler learns that nobody waits."""
        if self.open:
            self._close_for(error)
        self.cancel()

    def close(self, code: grpc.StatusCode, text: str = "", details: bytes | None = None) -> None:
        """Ends the RPC with a status, unless it has ended."""
        if self._count(code):
            self.write_end(headers.trailers(code.value[0], text, details, self.request_id))

    def cancel(self) -> None:
        """Tells the handler that nobody waits."""
        task, self.task = self.task, None
        if task is not None:
            task.cancel()

    def refill(self) -> None:
        """Lets the client send on, if it can and the handler follows."""
        if self._received > STREAM_WINDOW // 2 and not self.half_closed and self.wants_more():
            size, self._received = self._received, 0
            self.connection.refill(self.stream, size)

    def _count(self, code: grpc.StatusCode) -> bool:
        """The RPC ends with this code; False if it has ended before."""
        try:
            self.open.pop()
        except IndexError:
            return False
        if self.path:
            seconds = self.server.clock() - self.started
            self.server.observer.call_done(self.path, code.name, seconds)
            if self.unary and seconds >= self.server.slow_seconds:
                self._log_slow(code, seconds)
        return True

    def _close_for(self, error: BaseException) -> None:
        self.request_id = self.request_id or new_request_id()
        self.close(*failure(error, self.path, self.server.log, self.request_id))

    def _log_slow(self, code: grpc.StatusCode, seconds: float) -> None:
        self.request_id = self.request_id or new_request_id()
        log_slow(self.server.log, self.path, self.request_id, code, seconds)

    def _unpack(self, data: bytes, start: int, end: int) -> None:
        if self._unpacker is None and end - start >= PREFIX:
            compressed, length = read_prefix(data, start)
            whole = end - start == PREFIX + length and length <= self.server.max_message
            if whole and not compressed:  # as most are
                if (self.unary and length <= _SMALL) or self.hold(end - start):
                    self.on_message(data[start + PREFIX : end])
                return
        if not self.hold(end - start):
            return
        if self._unpacker is None:
            self._unpacker = Unpacker(self.server.max_message, self._encoding, self._kind)
        try:
            for message in self._unpacker.feed(data, start, end):
                if not self.open:
                    return
                if isinstance(message, Packed):
                    self.on_packed(message)
                else:
                    self.on_message(message)
        except Unreadable as error:
            self.refuse(error)

    def hold(self, size: int) -> bool:
        """Counts bytes that have arrived; False if that ended this very RPC."""
        held = self.server.held
        held.add(self, size)
        if held.full:
            self.server.make_room()
        return bool(self.open)

    def unpack(self, message: Packed) -> bytes:
        """The message itself. Raises Unreadable."""
        assert self._unpacker is not None
        return self._unpacker.unpack(message)

    def refuse(self, error: Unreadable) -> None:
        """Ends the RPC, as what the client sent cannot be read."""
        self.close(error.code, error.text)
        self.cancel()

    def check_size(self, size: int) -> bool:
        """Whether an answer of so many bytes may be sent; if not, the RPC has ended."""
        most = self.server.max_message
        if size > most:
            text = f"an answer of {size} bytes: at most {most} are sent; ask for fewer items"
            self.close(grpc.StatusCode.RESOURCE_EXHAUSTED, text)
        return size <= most


def pieces_of(response: Response, least: int = 0) -> tuple[Sequence[Buffer], int]:
    """The pieces of a serialized response, and its bytes; those of fewer bytes are joined."""
    if isinstance(response, Spliced) and response.size >= least:
        return response.pieces, response.size
    message = response.SerializeToString()
    return (message,), len(message)


class Refusal(Rpc):
    """A request that no method answers."""

    __slots__ = ("_block",)

    def __init__(
        self, server: Server, connection: Connection, stream: int, request: headers.RequestHeaders
    ) -> None:
        super().__init__(server, connection, stream, request, "")
        if request.http_status != 200:
            self._block = headers.http_answer(request.http_status)
            return
        code, text = request.fault or (grpc.StatusCode.UNIMPLEMENTED, "no such method")
        self._block = headers.OPENING + headers.trailers(code.value[0], text)

    def begin(self) -> None:
        """Answers at once."""
        self.open.clear()
        self.connection.outgoing.end(self, self._block)


class Denial(Rpc):
    """A request that its client may not make, answered before any message of it is read."""

    __slots__ = ("_error",)

    def __init__(
        self,
        server: Server,
        connection: Connection,
        stream: int,
        request: headers.RequestHeaders,
        path: str,
        error: Exception,
    ) -> None:
        super().__init__(server, connection, stream, request, path)
        self._error = error

    def begin(self) -> None:
        """Answers at once."""
        self.finish(self._error)

    def write_end(self, trailers: bytes) -> None:
        """See Rpc."""
        self.connection.outgoing.end(self, headers.OPENING + trailers)
