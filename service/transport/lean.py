"""The transport on the C core's completion queue: several times less CPU for each RPC.

grpc's own synchronous server is written on the same few calls of `grpc._cython.cygrpc`; they are
private, so `choice` proves them before the service relies on them, and `public` stands by.

One thread polls the queue and reads what arrives; a handler runs on it until it awaits, and is
answered from whatever thread settles what it awaits, as the core may be called from any thread.
When nothing waits to be read, callbacks of `when_idle` run: that is where batches of small models
are cut, so that a batch holds everything that has arrived and nobody waits for a clock.

Copies of a payload: the core's slices into the bytes of the message (1), the message into the field
of the parsed protobuf (2), the field into the bytes that numpy looks at (3); on the way back the
array into the serialized message (1, see `service.wire`), and that into the core's slice (2).
"""

import asyncio
import contextlib
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, Final

import grpc
from google.protobuf.message import Message
from grpc._cython import cygrpc  # type: ignore[attr-defined]  # private, without types

from service.completion import Completion, Task
from service.errors import Cancelled, InvalidRequest
from service.logs import Logger
from service.status import DETAILS_KEY
from service.transport import (
    Call,
    CallObserver,
    Method,
    Response,
    StreamMethod,
    TransportOptions,
    failure,
    parse,
)

_REQUESTED: Final = 64  # calls that the core may hand over before we ask for the next
# Seconds that a batch waits for the message of a header that has arrived. The core rounds up to a
# whole millisecond; a message that comes ends the wait at once.
_PATIENCE: Final = 0.0005
_AT_ONCE: Final = 0.0  # long past: the moment itself would be rounded up to a millisecond too
_FOREVER: Final = 1e9  # seconds; a call without a deadline has more left


class LeanTransport:
    """See `service.transport.Transport`."""

    name = "lean"

    def __init__(self, options: TransportOptions, observer: CallObserver, log: Logger) -> None:
        self.observer = observer
        self.log = log
        self._methods: dict[bytes, Method | StreamMethod] = {}
        self._queue = cygrpc.CompletionQueue()
        self._server = cygrpc.Server(options.arguments(), False)
        self._server.register_completion_queue(self._queue)
        self._address = options.address
        self.port = 0
        self._idle: list[Callable[[], bool]] = []
        self._expected = 0  # messages whose headers have arrived since the last idle moment
        self.epoch = 0  # counts idle moments
        self._stopping = False
        self._shut = False
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._loop, name="transport", daemon=True)

    def add(self, methods: Sequence[Method | StreamMethod]) -> None:
        """See Transport."""
        self._methods |= {f"/{method.path}".encode(): method for method in methods}

    async def start(self) -> None:
        """See Transport."""
        with contextlib.suppress(RuntimeError):
            self.port = self._server.add_http2_port(self._address.encode())
        if not self.port:
            raise OSError(f"cannot listen on {self._address}: is the port in use?")
        self._server.start()
        self._thread.start()

    async def stop(self, grace: float) -> None:
        """See Transport."""
        if not self._thread.is_alive():
            return
        if not self._stopping:
            self._stopping = True
            self._server.shutdown(self._queue, self._on_shutdown)
        if not await asyncio.to_thread(self._ended.wait, grace):
            self._server.cancel_all_calls()
            await asyncio.to_thread(self._ended.wait)

    def when_idle(self, callback: Callable[[], bool]) -> None:
        """See Transport. From another thread it runs at once, on that thread."""
        if threading.current_thread() is self._thread:
            self._idle.append(callback)
        else:
            while callback():
                pass

    def _loop(self) -> None:
        for _ in range(_REQUESTED):
            self._request()
        while not self._shut:
            event = self._queue.poll(self._until())
            tag = event.tag
            if tag is None:  # a timeout
                self._run_idle()
                continue
            try:
                tag(event)
            except Exception as error:
                self.log.error("transport_failed", exc_info=error)
            event = tag = None  # they hold the call, which has to be free when the core ends it
        while self._queue.poll(time.time() + _PATIENCE).tag is not None:
            pass  # completions that nobody waits for
        self._server.destroy()
        self._ended.set()

    def _until(self) -> float | None:
        """When to stop waiting for the next event, in seconds of time.time; None never."""
        if not self._idle:
            return None
        return time.time() + _PATIENCE if self._expected > 0 else _AT_ONCE

    def _run_idle(self) -> None:
        self.epoch += 1
        self._expected = 0
        callbacks, self._idle = self._idle, []
        for callback in callbacks:
            if callback():
                self._idle.append(callback)

    def _request(self) -> None:
        """Asks the core for one more call."""
        if not self._stopping:
            with contextlib.suppress(ValueError):  # the server began to stop this very moment
                self._server.request_call(self._queue, self._queue, self._on_call)

    def _on_call(self, event: Any) -> None:
        if not event.success:
            return  # the server stops
        self._request()
        method = self._methods.get(event.call_details.method)
        if method is None:
            _refuse(event.call, grpc.StatusCode.UNIMPLEMENTED, "no such method")
        elif isinstance(method, Method):
            self._expected += 1
            _Unary(self, method, event)
        else:
            _Stream(self, method, event)

    def _on_shutdown(self, event: Any) -> None:
        self._shut = True

    def arrived(self, epoch: int) -> None:
        """The message of a header of that epoch is here."""
        if epoch == self.epoch:
            self._expected -= 1


class _Rpc:
    """What every RPC has: its deadline, its end, and the news that its client is gone."""

    __slots__ = ("_core", "_deadline", "_started", "_task", "_transport", "cancelled", "path")

    def __init__(self, transport: LeanTransport, path: str, event: Any) -> None:
        self._transport = transport
        self._core = event.call
        self._started = time.monotonic()
        remaining = event.call_details.deadline - time.time()
        self._deadline = self._started + remaining if remaining < _FOREVER else None
        self._task: Task[Any] | None = None
        self.path = path
        self.cancelled = False
        self._core.start_server_batch((cygrpc.ReceiveCloseOnServerOperation(0),), self._on_close)

    def _on_close(self, event: Any) -> None:
        if event.batch_operations[0].cancelled():
            self.cancelled = True
            task = self._task  # another thread may end it meanwhile
            if task is not None:
                task.cancel()

    def _end(self, error: BaseException | None, *operations: Any) -> None:
        """Sends the status of error after operations; counts the RPC."""
        code, text, metadata = grpc.StatusCode.OK, "", None
        if self.cancelled:
            code = grpc.StatusCode.CANCELLED
        elif error is not None:
            code, text, details = failure(error, self.path, self._transport.log)
            metadata = ((DETAILS_KEY, details),)
        self._transport.observer.call_done(self.path, code.name, time.monotonic() - self._started)
        if not self.cancelled:
            status = cygrpc.SendStatusFromServerOperation(metadata, code.value[0], text, 0)
            self._core.start_server_batch((*operations, status), _ignore)
        self._task = None


class _Unary(_Rpc):
    __slots__ = ("_epoch", "_method")

    def __init__(self, transport: LeanTransport, method: Method, event: Any) -> None:
        super().__init__(transport, method.path, event)
        self._method = method
        self._epoch = transport.epoch
        self._core.start_server_batch((cygrpc.ReceiveMessageOperation(0),), self._on_message)

    def _on_message(self, event: Any) -> None:
        self._transport.arrived(self._epoch)
        data = event.batch_operations[0].message()
        if data is None:
            self._finish(None, InvalidRequest("request", "expected one message"))
            return
        try:
            request = parse(self._method.request_type, data)
        except InvalidRequest as error:
            self._finish(None, error)
            return
        self._task = Task(self._method.handler(request, Call(self._deadline)), self._finish)
        self._task.step()

    def _finish(self, response: Response | None, error: BaseException | None) -> None:
        if response is None:
            self._end(error, cygrpc.SendInitialMetadataOperation(None, 0))
        else:
            self._end(
                None,
                cygrpc.SendInitialMetadataOperation(None, 0),
                cygrpc.SendMessageOperation(response.SerializeToString(), 0),
            )


class _Stream(_Rpc):
    """See `service.transport.Stream`."""

    __slots__ = ("_opened", "_request_type", "call")

    def __init__(self, transport: LeanTransport, method: StreamMethod, event: Any) -> None:
        super().__init__(transport, method.path, event)
        self._request_type = method.request_type
        self._opened = False
        self.call = Call(self._deadline)
        self._task = Task(method.handler(self), self._finish)
        self._task.step()

    def receive(self) -> Completion[Message | None]:
        """See Stream."""
        completion: Completion[Message | None] = Completion()

        def settle(event: Any) -> None:
            data = event.batch_operations[0].message()
            if data is None:
                completion.settle(None, Cancelled("the caller is gone") if self.cancelled else None)
                return
            try:
                completion.settle(parse(self._request_type, data))
            except InvalidRequest as error:
                completion.settle(None, error)

        self._core.start_server_batch((cygrpc.ReceiveMessageOperation(0),), settle)
        return completion

    def send(self, response: Response) -> Completion[None]:
        """See Stream."""
        completion: Completion[None] = Completion()

        def settle(event: Any) -> None:
            completion.settle(None, None if event.success else Cancelled("the caller is gone"))

        message = cygrpc.SendMessageOperation(response.SerializeToString(), 0)
        self._core.start_server_batch((*self._opening(), message), settle)
        return completion

    def _opening(self) -> tuple[Any, ...]:
        """The metadata that goes before the first message."""
        operations = () if self._opened else (cygrpc.SendInitialMetadataOperation(None, 0),)
        self._opened = True
        return operations

    def _finish(self, value: None, error: BaseException | None) -> None:
        self._end(error, *self._opening())


def _refuse(call: Any, code: grpc.StatusCode, text: str) -> None:
    operations = (
        cygrpc.SendInitialMetadataOperation(None, 0),
        cygrpc.ReceiveCloseOnServerOperation(0),
        cygrpc.SendStatusFromServerOperation(None, code.value[0], text, 0),
    )
    call.start_server_batch(operations, _ignore)


def _ignore(event: Any) -> None:
    """The completion of an answer: nothing follows."""
