"""One message each way."""

import grpc

from service.completion import Task
from service.errors import InvalidRequest
from service.transport import Call, Method, Response, parse
from service.transport.http2 import headers
from service.transport.http2.connection import Connection
from service.transport.http2.rpc import Rpc, Server, pieces_of


class Unary(Rpc):
    """Runs the handler when the message is here."""

    __slots__ = ("_metadata", "_method")
    unary = True

    def __init__(
        self,
        server: Server,
        connection: Connection,
        stream: int,
        request: headers.RequestHeaders,
        method: Method,
    ) -> None:
        super().__init__(server, connection, stream, request, method.path, method.request_type)
        self._method = method
        self._metadata = request.fields

    def on_message(self, data: bytes | memoryview) -> None:
        """See Rpc."""
        if self.task is not None:
            self.fail(InvalidRequest("request", "expected one message"))
            return
        try:
            request = parse(self._method.request_type, data)
        except InvalidRequest as error:
            self.fail(error)
            return
        call = Call(self.deadline, self._metadata)
        self.task = Task(self._method.handler(request, call), self._answer)
        self.task.step()

    def on_half_closed(self) -> None:
        """See Rpc."""
        if self.task is None:
            self.fail(InvalidRequest("request", "expected one message"))

    def write_end(self, trailers: bytes) -> None:
        """See Rpc. A status without a message comes in the headers' place."""
        self.connection.outgoing.end(self, headers.OPENING + trailers)

    def _answer(self, response: Response | None, error: BaseException | None) -> None:
        if response is None:
            self.finish(error)
            return
        self.task = None
        pieces, size = pieces_of(response)
        if self.check_size(size) and self._count(grpc.StatusCode.OK):
            trailers = headers.OK_TRAILERS
            if self.request_id:
                trailers = headers.trailers(0, "", request_id=self.request_id)
            self.connection.outgoing.answer(self, pieces, size, trailers)
