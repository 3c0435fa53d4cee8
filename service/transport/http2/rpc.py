"""gRPC on a stream: messages, deadlines, statuses. Runs the handlers."""

import struct
import zlib
from collections import deque
from typing import Any, Final, Protocol

import grpc
from google.protobuf.message import Message

from service.completion import Completion, Task
from service.errors import Cancelled, InvalidRequest
from service.logs import Logger
from service.transport import Call, CallObserver, Method, Response, StreamMethod, failure, parse
from service.transport.http2 import headers
from service.transport.http2.connection import STREAM_WINDOW, Connection
from service.transport.http2.frames import ErrorCode
from service.transport.spliced import Spliced

_PREFIX: Final = 5  # a byte that says whether the message is compressed, four of its length
_read_prefix = struct.Struct(">?L").unpack_from
_LARGE: Final = 2**15  # bytes of an answer, beyond which its pieces are sent from where they lie


class Rpc:
    """A stream. The connection calls `on_...` on the transport's thread, the first three with its
    lock not held."""

    __slots__ = (
        "_buffer",
        "_encoding",
        "_open",
        "_received",
        "_task",
        "connection",
        "crowded",
        "deadline",
        "half_closed",
        "outgoing",
        "path",
        "server",
        "started",
        "stream",
        "stream_bytes",
        "trailers",
        "window",
    )

    def __init__(
        self,
        server: "Server",
        connection: Connection,
        stream: int,
        request: headers.RequestHeaders,
        path: str,
    ) -> None:
        self.server = server
        self.connection = connection
        self.stream = stream
        self.stream_bytes = stream.to_bytes(4, "big")
        self.started = connection.now
        self.deadline = None if request.timeout is None else self.started + request.timeout
        self.path = path
        self.window = 0
        self.outgoing: deque[memoryview] = deque()
        self.trailers: bytes | None = None
        self.half_closed = False
        self._encoding = request.encoding
        self._buffer: bytearray | None = None
        self._received = 0
        self._task: Task[Any] | None = None
        self._open = [True]  # popped by whoever ends the RPC: atomic under the GIL
        self.crowded = False

    def begin(self) -> None:
        """The stream is open."""

    def on_message(self, data: bytes) -> None:
        """A whole message."""
        raise NotImplementedError

    def on_half_closed(self) -> None:
        """The client has sent all."""
        raise NotImplementedError

    def on_room(self) -> None:
        """There is room for the next message again."""

    def wants_more(self) -> bool:
        """Whether the client may send more than its window."""
        return True

    def on_data(self, data: bytes, start: int, end: int, size: int, ended: bool) -> None:
        """A piece of the client's messages: data[start:end]; `size` is what it took of windows."""
        if not self._open:
            return
        if ended:
            self.half_closed = True
        else:
            self._received += size
        if self._buffer is None:
            if end - start >= _PREFIX:
                compressed, length = _read_prefix(data, start)
                whole = end - start == _PREFIX + length and length <= self.server.max_message
                if whole and not compressed:
                    self.on_message(data[start + _PREFIX : end])  # as most are: whole in a frame
                    start = end
            if start < end:
                self._buffer = bytearray()
        if start < end:
            assert self._buffer is not None
            self._buffer += data[start:end]
            self._unpack(self._buffer)
        if ended and self._open:
            if self._buffer:
                self.fail(InvalidRequest("request", "the message ends in the middle"))
            else:
                self.on_half_closed()
        self.refill()

    def refill(self) -> None:
        """Lets the client send on, if it can and the handler follows."""
        if self._received > STREAM_WINDOW // 2 and not self.half_closed and self.wants_more():
            size, self._received = self._received, 0
            self.connection.refill(self.stream, size)

    def _unpack(self, buffer: bytearray) -> None:
        """Takes the whole messages out of the buffer."""
        position = 0
        while len(buffer) - position >= _PREFIX and self._open:
            flag, length = buffer[position], int.from_bytes(buffer[position + 1 : position + 5])
            if length > self.server.max_message or flag > 1:
                self._refuse(
                    grpc.StatusCode.RESOURCE_EXHAUSTED,
                    f"a message of {length} bytes: at most {self.server.max_message} are taken",
                )
                break
            end = position + _PREFIX + length
            if len(buffer) < end:
                break
            message = bytes(memoryview(buffer)[position + _PREFIX : end])
            position = end
            if flag:
                unpacked = self._decompress(message)
                if unpacked is None:
                    break
                message = unpacked
            self.on_message(message)
        if not self._open:
            buffer.clear()
        else:
            del buffer[:position]

    def _decompress(self, message: bytes) -> bytes | None:
        bits = {b"gzip": 31, b"deflate": 15}.get(self._encoding)
        if bits is None:
            self._refuse(grpc.StatusCode.UNIMPLEMENTED, "messages are gzip, deflate or identity")
            return None
        unpacker = zlib.decompressobj(bits)
        try:
            data = unpacker.decompress(message, self.server.max_message)
        except zlib.error:
            self._refuse(grpc.StatusCode.INTERNAL, "a compressed message is broken")
            return None
        if unpacker.unconsumed_tail or not unpacker.eof:
            self._refuse(
                grpc.StatusCode.RESOURCE_EXHAUSTED,
                f"a message is larger than {self.server.max_message} bytes, or broken",
            )
            return None
        return data

    def on_gone(self) -> None:
        """The client reset the stream or is gone."""
        self._count(grpc.StatusCode.CANCELLED)
        self._stop()

    def on_deadline(self) -> None:
        """The deadline has passed."""
        self._cut(grpc.StatusCode.DEADLINE_EXCEEDED, "the deadline passed")

    def on_cancel(self) -> None:
        """The service ends."""
        self._cut(grpc.StatusCode.UNAVAILABLE, "the service stopped before the request ended")

    def _cut(self, code: grpc.StatusCode, text: str) -> None:
        """Ends it from outside."""
        if self.outgoing:  # in the middle of a message no status can be sent
            self._count(code)
            self.connection.reset(self, ErrorCode.CANCEL)
        else:
            self._refuse(code, text)
        self._stop()

    def _stop(self) -> None:
        task, self._task = self._task, None
        if task is not None:
            task.cancel()

    def _refuse(self, code: grpc.StatusCode, text: str) -> None:
        if self._count(code):
            self._end(headers.trailers(code.value[0], text))

    def fail(self, error: BaseException | None) -> None:
        """Ends the RPC with a handler's error, or well."""
        self._task = None
        if not self._open:
            return
        if error is None:
            if self._count(grpc.StatusCode.OK):
                self._end(headers.OK_TRAILERS)
            return
        code, text, details = failure(error, self.path, self.server.log)
        if self._count(code):
            self._end(headers.trailers(code.value[0], text, details))

    def _end(self, trailers: bytes) -> None:
        raise NotImplementedError

    def _count(self, code: grpc.StatusCode) -> bool:
        """The RPC ends with this code; False if it has ended before."""
        try:
            self._open.pop()
        except IndexError:
            return False
        if self.path:
            seconds = self.server.clock() - self.started
            self.server.observer.call_done(self.path, code.name, seconds)
        return True


class Unary(Rpc):
    """One message each way."""

    __slots__ = ("_method",)

    def __init__(
        self,
        server: "Server",
        connection: Connection,
        stream: int,
        request: headers.RequestHeaders,
        method: Method,
    ) -> None:
        super().__init__(server, connection, stream, request, method.path)
        self._method = method

    def on_message(self, data: bytes) -> None:
        """Runs the handler until it awaits."""
        if self._task is not None:
            self._stop()
            self.fail(InvalidRequest("request", "expected one message"))
            return
        try:
            request = parse(self._method.request_type, data)
        except InvalidRequest as error:
            self.fail(error)
            return
        task = Task(self._method.handler(request, Call(self.deadline)), self._finish)
        self._task = task
        task.step()

    def on_half_closed(self) -> None:
        """One without a message is answered with an error."""
        if self._task is None:
            self.fail(InvalidRequest("request", "expected one message"))

    def _finish(self, response: Response | None, error: BaseException | None) -> None:
        self._task = None
        if response is None:
            self.fail(error)
        elif self._count(grpc.StatusCode.OK):
            if isinstance(response, Spliced) and response.size > _LARGE:
                self.connection.open_answer(self)
                self.connection.send_message(self, response.pieces, response.size)
                self.connection.end(self, headers.OK_TRAILERS)
            else:
                self.connection.answer(self, response.SerializeToString())

    def _end(self, trailers: bytes) -> None:
        # An answer of trailers only starts with the headers of one.
        self.connection.end(self, headers.OPENING + trailers)


class Streaming(Rpc):
    """See `service.transport.Stream`."""

    __slots__ = ("_incoming", "_method", "_opened", "_receiving", "_sending", "call")

    def __init__(
        self,
        server: "Server",
        connection: Connection,
        stream: int,
        request: headers.RequestHeaders,
        method: StreamMethod,
    ) -> None:
        super().__init__(server, connection, stream, request, method.path)
        self._method = method
        self._incoming: deque[bytes] = deque()
        self._receiving: Completion[Message | None] | None = None
        self._sending: Completion[None] | None = None
        self._opened = False
        self.call = Call(self.deadline)

    def begin(self) -> None:
        """Runs the handler until it awaits."""
        task = Task(self._method.handler(self), self._finish)
        self._task = task
        task.step()

    def receive(self) -> Completion[Message | None]:
        """See Stream."""
        completion: Completion[Message | None] = Completion()
        if self._incoming:
            self._settle(completion, self._incoming.popleft())
            if not self._incoming:
                self.server.call_soon(self.refill)
        elif self.half_closed:
            completion.settle(None)
        elif not self._open:
            completion.cancel()
        else:
            self._receiving = completion
            if self._incoming or self.half_closed or not self._open:  # meanwhile, on another thread
                self.server.call_soon(self._serve)
        return completion

    def send(self, response: Response) -> Completion[None]:
        """See Stream."""
        completion: Completion[None] = Completion()
        if not self._open:
            completion.cancel()
            return completion
        if not self._opened:
            self._opened = True
            self.connection.open_answer(self)
        message = response.SerializeToString()
        self._sending = completion
        if self.connection.send_message(self, (message,), len(message)):
            self._sending = None
            completion.settle()
        return completion

    def on_message(self, data: bytes) -> None:
        """Keeps it, or gives it to the handler."""
        self._incoming.append(data)
        self._serve()

    def on_half_closed(self) -> None:
        """The handler gets None."""
        self._serve()

    def on_room(self) -> None:
        """The handler goes on."""
        completion, self._sending = self._sending, None
        if completion is not None:
            completion.settle()

    def wants_more(self) -> bool:
        """Not while messages wait for the handler."""
        return not self._incoming

    def _serve(self) -> None:
        """Gives the handler that waits what there is."""
        completion = self._receiving
        if completion is None:
            return
        if self._incoming:
            self._receiving = None
            self._settle(completion, self._incoming.popleft())
        elif self.half_closed or not self._open:
            self._receiving = None
            completion.settle(None, None if self._open else Cancelled("the caller is gone"))

    def _settle(self, completion: Completion[Message | None], data: bytes) -> None:
        try:
            completion.settle(parse(self._method.request_type, data))
        except InvalidRequest as error:
            completion.settle(None, error)

    def _stop(self) -> None:
        super()._stop()
        for completion in (self._receiving, self._sending):
            if completion is not None:
                completion.settle(None, Cancelled("the caller is gone"))

    def _finish(self, value: None, error: BaseException | None) -> None:
        self.fail(error)

    def _end(self, trailers: bytes) -> None:
        self.connection.end(self, trailers if self._opened else headers.OPENING + trailers)


class Refusal(Rpc):
    """A request that no method answers."""

    __slots__ = ("_block",)

    def __init__(
        self, server: "Server", connection: Connection, stream: int, request: headers.RequestHeaders
    ) -> None:
        super().__init__(server, connection, stream, request, "")
        if request.http_status != 200:
            self._block = headers.http_answer(request.http_status)
        elif request.fault:
            code = grpc.StatusCode.INVALID_ARGUMENT
            self._block = headers.OPENING + headers.trailers(code.value[0], request.fault)
        else:
            code = grpc.StatusCode.UNIMPLEMENTED
            self._block = headers.OPENING + headers.trailers(code.value[0], "no such method")

    def begin(self) -> None:
        """Answers at once."""
        self._open.clear()
        self.connection.end(self, self._block)

    def on_data(self, data: bytes, start: int, end: int, size: int, ended: bool) -> None:
        """Nobody reads it."""

    def on_gone(self) -> None:
        """Nobody minds."""


class Server(Protocol):
    """What an RPC needs of the transport."""

    observer: CallObserver
    log: Logger
    max_message: int

    def clock(self) -> float: ...
    def call_soon(self, callback: Any) -> None:
        """Runs callback on the transport's thread."""
        ...
