"""How RPCs arrive and leave; knows no VAE.

The seam: `Method`s go in, a `Transport` serves them. `http2` is our own, `public` is grpc's asyncio
server; handlers know nothing of which one runs them.
"""

import math
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import grpc
from google.protobuf.message import DecodeError, Message

from service.completion import Completion
from service.errors import InferenceFailed, InvalidRequest, ServiceError
from service.logs import Logger
from service.status import status_of
from service.transport import lent
from service.transport.metadata import MAX_METADATA, Authorize, Metadata
from service.transport.tls import TlsFiles


class Response(Protocol):
    """A message, or what stands for one (`service.transport.spliced`)."""

    def SerializeToString(self) -> bytes: ...  # noqa: N802 - protobuf's name


Handler = Coroutine[Completion[Any], None, Response]


@dataclass(slots=True)  # made for every RPC, and a frozen one takes thrice the time
class Call:
    """What a handler knows of its RPC. deadline: seconds of time.monotonic, or None."""

    deadline: float | None
    metadata: Metadata = ()


class Stream(Protocol):
    """An RPC with many messages. A handler awaits both; either raises Cancelled with the RPC."""

    call: Call

    def receive(self) -> Completion[Any]:
        """The next request, or what `lent` makes of it; None when the client has sent all."""
        ...

    def send(self, response: Response) -> Completion[None]:
        """Sends a response; done when there is room for the next, so that memory stays bounded."""
        ...


@dataclass(frozen=True)
class Method:
    """A unary method. handler raises ServiceError."""

    service: str
    name: str
    request_type: type[Message]
    handler: Callable[[Any, Call], Handler]
    path: str = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "path", f"{self.service}/{self.name}")


@dataclass(frozen=True)
class StreamMethod:
    """A method with streams on one or both sides. handler raises ServiceError."""

    service: str
    name: str
    request_type: type[Message]
    handler: Callable[[Stream], Coroutine[Completion[Any], None, None]]
    path: str = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "path", f"{self.service}/{self.name}")


class CallObserver(Protocol):
    """What a transport reports of every finished RPC, for metrics."""

    def call_done(self, method: str, code: str, seconds: float) -> None: ...


@dataclass(frozen=True)
class ConnectionLifetimes:
    """Seconds. A connection is closed after its age, so that clients look for new replicas; what
    runs on it then may go on for the grace. One that is silent for `keepalive_time` is asked for a
    sign of life, and closed if none comes within the timeout."""

    handshake_timeout: float = 20.0
    keepalive_time: float = 60.0
    keepalive_timeout: float = 20.0
    max_connection_age: float = 300.0
    max_connection_age_grace: float = 30.0


@dataclass(frozen=True)
class TransportOptions:
    """address: "HOST:PORT"; port 0 takes a free one. max_message_bytes: both ways.

    max_concurrent_streams: of one connection. max_held_bytes: of requests that have arrived, in
    part or whole, and are not answered, of answers that are not sent, and of open calls, in all.
    reuse_port: whether other processes may listen on the port too; if not, one in use is an error.
    tls: None serves plain text. authorize: None serves everybody. slow_seconds: what unary RPCs
    must take to be logged.
    """

    address: str
    reuse_port: bool = False
    max_message_bytes: int = 64 * 2**20
    max_concurrent_streams: int = 1024
    max_connections: int = 4096
    max_held_bytes: int = 512 * 2**20
    lifetimes: ConnectionLifetimes = field(default_factory=ConnectionLifetimes)
    tls: TlsFiles | None = None
    authorize: Authorize | None = None
    slow_seconds: float = math.inf

    def arguments(self) -> tuple[tuple[str, int], ...]:
        """grpc's channel arguments."""
        lifetimes = self.lifetimes
        return (
            ("grpc.max_receive_message_length", self.max_message_bytes),
            ("grpc.max_send_message_length", self.max_message_bytes),
            ("grpc.max_connection_age_ms", round(lifetimes.max_connection_age * 1000)),
            ("grpc.max_connection_age_grace_ms", round(lifetimes.max_connection_age_grace * 1000)),
            ("grpc.max_concurrent_streams", self.max_concurrent_streams),
            # The batcher's queue says when it is full, and how long to wait; the core, which resets
            # streams at random from 1000 calls on that nobody has read yet, comes after it.
            ("grpc.server.max_pending_requests", 10_000),
            ("grpc.server.max_pending_requests_hard_limit", 20_000),
            ("grpc.keepalive_time_ms", round(lifetimes.keepalive_time * 1000)),
            ("grpc.keepalive_timeout_ms", round(lifetimes.keepalive_timeout * 1000)),
            ("grpc.keepalive_permit_without_calls", 1),
            ("grpc.http2.min_recv_ping_interval_without_data_ms", 5_000),
            ("grpc.so_reuseport", int(self.reuse_port)),
            # Alike: between the two the core refuses at random.
            ("grpc.max_metadata_size", MAX_METADATA),
            ("grpc.absolute_max_metadata_size", MAX_METADATA),
        )


@dataclass(frozen=True)
class Usage:
    """What clients take of a transport now. refused: connections beyond the limit, since the start.

    held_bytes: of requests that have arrived and are not answered, of answers not sent, and of open
    calls. max_connections, max_held_bytes: beyond which it refuses.
    """

    connections: int
    max_connections: int
    refused: int
    held_bytes: int
    max_held_bytes: int


class Transport(Protocol):
    """A server of methods."""

    name: str
    port: int  # once it listens

    def usage(self) -> Usage | None:
        """What clients take of it; None where it does not know. From any thread."""
        ...

    def add(self, methods: Sequence[Method | StreamMethod]) -> None:
        """Serves methods; before start()."""
        ...

    async def start(self) -> None:
        """Listens. Raises OSError if the address cannot be had. On asyncio's loop, as stop() is."""
        ...

    async def stop(self, grace: float) -> None:
        """Refuses new RPCs, waits at most grace seconds for running ones, then cancels them.

        Clients that know the connection are told to go elsewhere; what they send meanwhile never
        started here, so their library sends it again by itself. Can be called again.
        """
        ...

    def when_idle(self, callback: Callable[[], bool]) -> None:
        """Calls back as soon as no arrived message waits to be read, or some rounds of reading
        later where one always does; again while it returns True, in turn with others that wait.

        From any thread. callback runs on the thread that reads messages, so it must be quick.
        """
        ...

    def call_soon(self, callback: Callable[[], object]) -> None:
        """Calls back on the thread that reads and sends messages. From any thread."""
        ...


def parse(kind: type[Message], data: bytes | memoryview) -> Any:
    """The message of data, or what `lent` makes of it. Raises InvalidRequest if it is none."""
    try:
        return lent.read(kind, data)
    except DecodeError as error:
        name = kind.DESCRIPTOR.full_name
        raise InvalidRequest("request", f"expected the bytes of a {name}") from error


def failure(
    error: BaseException, path: str, log: Logger, request_id: str
) -> tuple[grpc.StatusCode, str, bytes]:
    """Code, text and details of an RPC's error; what is ours to mend goes into the log as one."""
    if not isinstance(error, ServiceError):
        # The boundary of the RPC: the caller learns nothing internal, the log all.
        failed = InferenceFailed("the request failed; the service's log says why")
        failed.__cause__ = error
        error = failed
    code, text, details = status_of(error)
    if code is grpc.StatusCode.INTERNAL:
        log.error("request_failed", method=path, request_id=request_id, exc_info=error)
    else:
        log.debug("request_refused", method=path, request_id=request_id, code=code.name, text=text)
    return code, text, details


def log_slow(
    log: Logger, path: str, request_id: str, code: grpc.StatusCode, seconds: float
) -> None:
    """Tells of an RPC that took long."""
    log.warning(
        "request_slow",
        method=path,
        request_id=request_id,
        code=code.name,
        seconds=round(seconds, 3),
    )
