"""The transport on grpc's public asyncio server."""

import asyncio
import functools
import math
import time
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any, TypeVar

import grpc
from google.protobuf.message import Message
from grpc import aio

from service.completion import Completion, Task
from service.errors import Cancelled
from service.logs import Logger
from service.reread import LOOK, Reread
from service.status import DETAILS_KEY
from service.transport import (
    Call,
    CallObserver,
    Method,
    Response,
    StreamMethod,
    TransportOptions,
    Usage,
    failure,
    log_slow,
    parse,
)
from service.transport.metadata import REQUEST_ID, new_request_id, request_id, values_of
from service.transport.tls import TlsFiles

T = TypeVar("T")
_Certificates = Reread[grpc.ServerCertificateConfiguration]
_END: Any = aio.EOF  # type: ignore[attr-defined]  # the stubs lack it


class PublicTransport:
    """See `service.transport.Transport`."""

    name = "public"

    def __init__(self, options: TransportOptions, observer: CallObserver, log: Logger) -> None:
        self._observer = observer
        self._log = log
        self._loop = asyncio.get_running_loop()
        self._server = aio.server(options=options.arguments())
        self._address = options.address
        self._tls = options.tls
        self._authorize = options.authorize
        self._slow_seconds = options.slow_seconds
        self._looking: asyncio.Task[None] | None = None
        self.port = 0

    def usage(self) -> Usage | None:
        """See Transport. The core counts neither connections nor bytes, and limits neither."""
        return None

    def add(self, methods: Sequence[Method | StreamMethod]) -> None:
        """See Transport."""
        by_service: dict[str, dict[str, grpc.RpcMethodHandler[Any, Any]]] = {}
        for method in methods:
            # Nothing is (de)serialized by grpc, so that we can answer what cannot be parsed.
            if isinstance(method, Method):
                handler = grpc.unary_unary_rpc_method_handler(self._unary(method))
            else:
                handler = grpc.stream_stream_rpc_method_handler(self._stream(method))
            by_service.setdefault(method.service, {})[method.name] = handler
        self._server.add_generic_rpc_handlers(
            tuple(
                grpc.method_handlers_generic_handler(service, handlers)
                for service, handlers in by_service.items()
            )
        )

    async def start(self) -> None:
        """See Transport."""
        try:
            if self._tls is None:
                self.port = self._server.add_insecure_port(self._address)
            else:
                certificates = _certificates(self._tls, self._log)
                self._looking = self._loop.create_task(_look(certificates))
                self.port = self._server.add_secure_port(
                    self._address, _credentials(self._tls, certificates)
                )
        except RuntimeError as error:
            raise OSError(f"cannot listen on {self._address}: is the port in use?") from error
        await self._server.start()

    async def stop(self, grace: float) -> None:
        """See Transport."""
        if self._looking is not None:
            self._looking.cancel()
        await self._server.stop(grace)

    def when_idle(self, callback: Callable[[], bool]) -> None:
        """See Transport. asyncio reads what has arrived before it runs what was called soon."""

        def call() -> None:
            if callback():
                self._loop.call_soon(call)

        self._loop.call_soon_threadsafe(call)

    def call_soon(self, callback: Callable[[], object]) -> None:
        """See Transport."""
        self._loop.call_soon_threadsafe(callback)

    def _unary(self, method: Method) -> Callable[[Any, Any], Awaitable[bytes]]:
        async def serve(data: bytes, context: Any) -> bytes:
            call = _call(context)

            async def handle() -> bytes:
                self._admit(method.path, call)
                response = await method.handler(parse(method.request_type, data), call)
                return response.SerializeToString()

            return await self._answer(method.path, handle(), context, call, self._slow_seconds)

        return serve

    def _stream(self, method: StreamMethod) -> Callable[[Any, Any], Awaitable[None]]:
        async def serve(_: Any, context: Any) -> None:
            stream = _Stream(context, method.request_type, self._loop)

            async def handle() -> None:
                self._admit(method.path, stream.call)
                await method.handler(stream)

            await self._answer(method.path, handle(), context, stream.call, math.inf)

        return serve

    def _admit(self, path: str, call: Call) -> None:
        if self._authorize is not None:
            self._authorize(path, call.metadata)

    async def _answer(
        self,
        path: str,
        handler: Coroutine[Completion[Any], None, T],
        context: Any,
        call: Call,
        slow_seconds: float,
    ) -> T:
        """Runs a handler; asyncio waits meanwhile, and cancels it when the client goes."""
        started = time.monotonic()
        identity = request_id(values_of(call.metadata, REQUEST_ID))
        ended: asyncio.Future[T] = self._loop.create_future()

        def settle(value: T | None, error: BaseException | None) -> None:
            if ended.done():
                return  # cancelled
            if error is None:
                ended.set_result(value)  # type: ignore[arg-type]  # it ended without an error
            else:
                ended.set_exception(error)

        def finish(value: T | None, error: BaseException | None) -> None:  # on any thread
            self._loop.call_soon_threadsafe(settle, value, error)

        task = Task(handler, finish)
        task.step()

        def count(code: grpc.StatusCode) -> str:
            """Before the client learns of the end; returns the RPC's id, if it needs one."""
            seconds = time.monotonic() - started
            self._observer.call_done(path, code.name, seconds)
            if seconds < slow_seconds:
                return identity
            named = identity or new_request_id()
            log_slow(self._log, path, named, code, seconds)
            return named

        try:
            value = await ended
        except asyncio.CancelledError:
            count(grpc.StatusCode.CANCELLED)
            task.cancel()
            raise
        except Exception as error:
            identity = identity or new_request_id()
            code, text, details = failure(error, path, self._log, identity)
            count(code)
            context.set_trailing_metadata(((DETAILS_KEY, details), (REQUEST_ID, identity)))
            await context.abort(code, text)
            raise AssertionError("abort raises") from error
        if named := count(grpc.StatusCode.OK):
            context.set_trailing_metadata(((REQUEST_ID, named),))
        return value


class _Stream:
    """See `service.transport.Stream`."""

    def __init__(
        self, context: Any, request_type: type[Message], loop: asyncio.AbstractEventLoop
    ) -> None:
        self.call = _call(context)
        self._context = context
        self._request_type = request_type
        self._loop = loop
        self._tasks: set[asyncio.Task[None]] = set()

    def receive(self) -> Completion[Message | None]:
        """See Stream."""

        async def read() -> Message | None:
            data = await self._context.read()
            return None if data is _END else parse(self._request_type, data)

        return self._complete(read())

    def send(self, response: Response) -> Completion[None]:
        """See Stream."""
        return self._complete(self._context.write(response.SerializeToString()))

    def _complete(self, operation: Coroutine[Any, Any, T]) -> Completion[T]:
        """Runs a coroutine of asyncio; from any thread."""
        completion: Completion[T] = Completion()

        async def settle() -> None:
            try:
                completion.settle(await operation)
            except asyncio.CancelledError:
                completion.cancel()
                raise
            except (aio.AioRpcError, aio.BaseError, aio.UsageError):
                completion.settle(error=Cancelled("the caller is gone"))
            except Exception as error:  # noqa: BLE001 - the handler gets it
                completion.settle(error=error)

        def begin() -> None:
            task = self._loop.create_task(settle())
            self._tasks.add(task)  # asyncio itself holds tasks weakly
            task.add_done_callback(self._tasks.discard)

        self._loop.call_soon_threadsafe(begin)
        return completion


def _call(context: Any) -> Call:
    remaining = context.time_remaining()
    deadline = None if remaining is None else time.monotonic() + remaining
    return Call(deadline, context.invocation_metadata())


def _certificates(files: TlsFiles, log: Logger) -> _Certificates:
    return Reread(files.paths(), functools.partial(_read, files), log)


async def _look(certificates: _Certificates) -> None:
    """Reads them again if they have changed, though nobody connects."""
    while True:
        await asyncio.sleep(LOOK)
        certificates.content()


def _credentials(files: TlsFiles, certificates: _Certificates) -> grpc.ServerCredentials:
    """The core asks for the newest at every handshake; None tells it that nothing has changed."""
    given = [certificates.content()]

    def newest() -> grpc.ServerCertificateConfiguration | None:
        last, given[0] = given[0], certificates.content()
        return None if given[0] is last else given[0]

    return grpc.dynamic_ssl_server_credentials(
        given[0],
        newest,  # type: ignore[arg-type]  # the stubs lack None
        require_client_authentication=files.client_ca is not None,
    )


def _read(files: TlsFiles) -> grpc.ServerCertificateConfiguration:
    files.context()  # which raises for files that do not fit each other; the core would not
    return grpc.ssl_server_certificate_configuration(
        [(files.key.read_bytes(), files.certificate.read_bytes())],
        files.client_ca.read_bytes() if files.client_ca else None,
    )
