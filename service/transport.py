"""How RPCs arrive and leave, on grpc's asyncio server. Knows no VAE."""

import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import grpc
from google.protobuf.message import DecodeError, Message
from grpc import aio

from service.errors import InferenceFailed, InvalidRequest, ServiceError
from service.logs import Logger
from service.status import DETAILS_KEY, status_of


@dataclass(frozen=True)
class Call:
    """What a handler knows of its RPC. deadline: seconds of time.monotonic, or None."""

    deadline: float | None


@dataclass(frozen=True)
class Method:
    """A unary method. handler takes a request_type and a Call; it raises ServiceError."""

    service: str
    name: str
    request_type: type[Message]
    handler: Callable[[Any, Call], Awaitable[Message]]


class CallObserver(Protocol):
    """What a transport reports of every finished RPC, for metrics."""

    def call_done(self, method: str, code: str, seconds: float) -> None: ...


@dataclass(frozen=True)
class TransportOptions:
    """address: "HOST:PORT"; port 0 takes a free one. max_message_bytes: both ways."""

    address: str
    max_message_bytes: int = 64 * 2**20


class Transport:
    """A server for methods: start() listens, stop() ends."""

    def __init__(self, options: TransportOptions, observer: CallObserver, log: Logger) -> None:
        self._observer = observer
        self._log = log
        self.server = aio.server(
            options=[
                ("grpc.max_receive_message_length", options.max_message_bytes),
                ("grpc.max_send_message_length", options.max_message_bytes),
                ("grpc.max_connection_age_ms", 300_000),  # clients look for new replicas
                ("grpc.max_connection_age_grace_ms", 30_000),
                ("grpc.max_concurrent_streams", 1024),
                ("grpc.keepalive_time_ms", 60_000),
                ("grpc.keepalive_timeout_ms", 20_000),
                ("grpc.keepalive_permit_without_calls", 1),
                ("grpc.http2.min_recv_ping_interval_without_data_ms", 10_000),
                ("grpc.so_reuseport", 0),  # a port in use is an error
            ]
        )
        try:
            self.port = self.server.add_insecure_port(options.address)
        except RuntimeError as error:
            raise OSError(f"cannot listen on {options.address}: is the port in use?") from error

    def add(self, methods: Sequence[Method]) -> None:
        """Serves methods; before start()."""
        by_service: dict[str, dict[str, grpc.RpcMethodHandler[Any, Any]]] = {}
        for method in methods:
            by_service.setdefault(method.service, {})[method.name] = (
                grpc.unary_unary_rpc_method_handler(
                    self._wrap(method),
                    request_deserializer=None,  # handle parses, so that it can answer what fails
                    response_serializer=_serialize,
                )
            )
        self.server.add_generic_rpc_handlers(
            tuple(
                grpc.method_handlers_generic_handler(service, handlers)
                for service, handlers in by_service.items()
            )
        )

    async def start(self) -> None:
        """Listens."""
        await self.server.start()

    async def stop(self, grace: float) -> None:
        """Refuses new RPCs, waits at most grace seconds for running ones, then cancels them.

        Clients that know the connection are told to go elsewhere; what they send meanwhile never
        started here, so their library sends it again by itself.
        """
        await self.server.stop(grace)

    def _wrap(self, method: Method) -> Callable[[Any, Any], Awaitable[Message]]:
        path = f"{method.service}/{method.name}"

        async def handle(data: bytes, context: Any) -> Message:
            started = time.monotonic()
            code = grpc.StatusCode.CANCELLED
            try:
                remaining = context.time_remaining()
                deadline = None if remaining is None else started + remaining
                try:
                    request = _parse(method.request_type, data)
                    response = await method.handler(request, Call(deadline))
                except ServiceError:
                    raise
                except Exception as error:
                    # The boundary of the RPC: the caller learns nothing internal, the log all.
                    raise InferenceFailed(
                        "the request failed; the service's log says why"
                    ) from error
                code = grpc.StatusCode.OK
                return response
            except ServiceError as error:
                code, text, details = status_of(error)
                if code is grpc.StatusCode.INTERNAL:
                    self._log.error("request_failed", method=path, exc_info=error)
                context.set_trailing_metadata(((DETAILS_KEY, details),))
                await context.abort(code, text)
                raise AssertionError("abort raises") from error
            finally:
                self._observer.call_done(path, code.name, time.monotonic() - started)

        return handle


def _parse(kind: type[Message], data: bytes) -> Message:
    try:
        return kind.FromString(data)
    except DecodeError as error:
        name = kind.DESCRIPTOR.full_name
        raise InvalidRequest("request", f"expected the bytes of a {name}") from error


def _serialize(message: Message) -> bytes:
    return message.SerializeToString()
