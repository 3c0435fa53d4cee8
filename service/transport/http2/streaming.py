"""Many messages, each way or one."""

import threading
from collections import deque
from typing import Any, Final

from service.completion import Completion, Task
from service.errors import InvalidRequest
from service.transport import Call, Response, StreamMethod, parse
from service.transport.http2 import headers
from service.transport.http2.connection import Connection
from service.transport.http2.messages import PREFIX, Packed, Unreadable
from service.transport.http2.rpc import Rpc, Server, pieces_of

# Bytes of a message, from which on its pieces are sent from where they lie. A copy of fewer costs
# no more than what it spares: the model's outputs can be written to the same memory sooner.
_LARGE: Final = 2**20


class Streaming(Rpc):
    """See `service.transport.Stream`. The handler runs from the start."""

    __slots__ = (
        "_complete",
        "_delivered",
        "_incoming",
        "_lock",
        "_method",
        "_opened",
        "_receiving",
        "_sending",
        "call",
    )

    def __init__(
        self,
        server: Server,
        connection: Connection,
        stream: int,
        request: headers.RequestHeaders,
        method: StreamMethod,
    ) -> None:
        super().__init__(server, connection, stream, request, method.path, method.request_type)
        self._method = method
        self._incoming: deque[bytes | memoryview] = deque()
        self._receiving: Completion[Any] | None = None
        self._sending: Completion[None] | None = None
        self._opened = False
        self._delivered = 0  # bytes of the request that the handler had last
        self._complete = False  # the last message has arrived
        self._lock = threading.Lock()  # of what waits and who waits for it
        self.call = Call(self.deadline, request.fields)

    def receive(self) -> Completion[Any]:
        """See Stream."""
        completion: Completion[Any] = Completion()
        self.server.held.add(self, -self._delivered)
        self._delivered = 0
        if self._incoming:
            self._settle(completion, self._incoming.popleft())
            if not self._incoming:
                self.connection.call_soon(self.refill)
            return completion
        self._receiving = completion
        if self._incoming or self._complete or not self.open:  # before, or on another thread
            self._serve()
        return completion

    def send(self, response: Response) -> Completion[None]:
        """See Stream."""
        completion: Completion[None] = Completion()
        if not self.open:
            completion.cancel()
            return completion
        pieces, size = pieces_of(response, _LARGE)
        if not self.check_size(size):
            completion.cancel()
            return completion
        outgoing = self.connection.outgoing
        if not self._opened:
            self._opened = True
            outgoing.open_answer(self)
        self._sending = completion
        if outgoing.send_message(self, pieces, size):
            self.on_room()
        return completion

    def begin(self) -> None:
        """See Rpc."""
        self.task = Task(self._method.handler(self), self._end)
        self.task.step()

    def on_message(self, data: bytes | memoryview) -> None:
        """See Rpc."""
        self._incoming.append(data)
        self._serve()

    def on_packed(self, message: Packed) -> None:
        """See Rpc. Unpacked when the handler receives it, so that what waits stays small."""
        self.on_message(message)

    def on_half_closed(self) -> None:
        """See Rpc."""
        self._complete = True
        self._serve()

    def on_room(self) -> None:
        """See Rpc."""
        completion, self._sending = self._sending, None
        if completion is not None:
            completion.settle()

    def wants_more(self) -> bool:
        """See Rpc. Not while messages wait for the handler."""
        return not self._incoming

    def write_end(self, trailers: bytes) -> None:
        """See Rpc."""
        self.connection.outgoing.end(self, trailers if self._opened else headers.OPENING + trailers)

    def cancel(self) -> None:
        """See Rpc."""
        super().cancel()
        for completion in (self._receiving, self._sending):
            if completion is not None:
                completion.cancel()

    def _serve(self) -> None:
        """Gives the handler that waits what there is. From any thread."""
        with self._lock:
            completion = self._receiving
            if completion is None or not (self._incoming or self._complete or not self.open):
                return
            self._receiving = None
            data = self._incoming.popleft() if self._incoming else None
        if data is not None:
            self._settle(completion, data)
            if not self.connection.on_thread():  # where `on_data` looks after it arrived
                self.connection.call_soon(self.refill)
        elif self.open:
            completion.settle(None)
        else:
            completion.cancel()

    def _settle(self, completion: Completion[Any], data: bytes | memoryview) -> None:
        self._delivered = PREFIX + len(data)
        try:
            unpacked: bytes | memoryview = data
            if isinstance(data, Packed):
                unpacked = self.unpack(data)
                self._delivered += len(unpacked)
                self.server.held.add(self, len(unpacked))
            completion.settle(parse(self._method.request_type, unpacked))
        except InvalidRequest as error:
            completion.settle(None, error)
        except Unreadable as error:
            self.refuse(error)
            completion.cancel()

    def _end(self, value: None, error: BaseException | None) -> None:
        self.finish(error)
