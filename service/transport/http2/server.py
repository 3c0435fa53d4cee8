"""Sockets and the one thread that polls them.

The thread reads what has arrived on every connection, runs the handlers until they await, and
sends. When nothing waits to be read, callbacks of `when_idle` run, each once in turn: that is where
batches of small models are cut, so that a batch holds everything that has arrived and nobody waits
for a clock. Where something always waits to be read they run all the same, every few rounds.
"""

import asyncio
import contextlib
import functools
import heapq
import os
import select
import socket
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final

from service.errors import Overloaded
from service.logs import Logger
from service.reread import Reread
from service.transport import (
    CallObserver,
    ConnectionLifetimes,
    Method,
    StreamMethod,
    TransportOptions,
    Usage,
)
from service.transport.http2.connection import Connection
from service.transport.http2.headers import RequestHeaders
from service.transport.http2.held import Held
from service.transport.http2.listening import accept, listen
from service.transport.http2.rpc import Denial, Refusal, Rpc
from service.transport.http2.streaming import Streaming
from service.transport.http2.unary import Unary

_TICK: Final = 0.05  # seconds between looks at deadlines, while RPCs run
_SLOW_TICK: Final = 1.0  # between looks at connections
# Beyond the limit of connections a few are open for a moment: probes must not take a service for
# dead that has many clients.
_SPARE: Final = 16
_SPARE_LIFETIMES: Final = ConnectionLifetimes(
    handshake_timeout=1.0, max_connection_age=1.0, max_connection_age_grace=1.0
)
_ONE: Final = (1).to_bytes(8, sys.byteorder)  # what an eventfd counts up by
_HEALTH: Final = "grpc.health.v1.Health"
_REFUSALS_LOGGED: Final = 10.0  # seconds between lines about connections that are refused
_MOST_ROUNDS: Final = 4  # of reading, before what waits for an idle moment runs without one


class Http2Transport:
    """See `service.transport.Transport`."""

    name = "http2"

    def __init__(self, options: TransportOptions, observer: CallObserver, log: Logger) -> None:
        self.observer = observer
        self.log = log
        self.max_message = options.max_message_bytes
        self.max_streams = options.max_concurrent_streams
        self.held = Held(options.max_held_bytes)
        self.slow_seconds = options.slow_seconds
        self.clock = time.monotonic
        self.port = 0
        self._options = options
        self._authorize = options.authorize
        tls = options.tls
        self._certificates = Reread(tls.paths(), tls.context, log) if tls else None
        self._methods: dict[bytes, Method | StreamMethod] = {}
        self._listeners: list[socket.socket] = []
        self._deaf = False  # no more files can be opened: nothing is accepted for a while
        self._epoll = select.epoll()
        self._handlers: dict[int, Callable[[int], object]] = {}
        self._connections: set[Connection] = set()
        self._spares = 0  # of them, which take nobody's place: who leaves one comes to a whole one
        self._refused = 0  # connections
        self._refusal_logged = -_REFUSALS_LOGGED
        self._unsent: set[Connection] = set()
        self._idle: list[Callable[[], bool]] = []
        self._rounds = 0  # of reading, since they last ran
        self._soon: deque[Callable[[], object]] = deque()
        waker = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._waker = open(waker, "wb", buffering=0)  # noqa: SIM115 - the loop's end closes it
        self._epoll.register(self._waker, select.EPOLLIN | select.EPOLLET)  # nobody reads it
        self._asleep = False  # or about to be: other threads have to wake the thread
        self._running = False  # whether an RPC was open at the last tick, or has come since
        self._stopping = False
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._loop, name="transport", daemon=True)
        self._thread_id = 0

    def usage(self) -> Usage:
        """See Transport."""
        return Usage(
            connections=len(self._connections),
            max_connections=self._options.max_connections,
            refused=self._refused,
            held_bytes=self.held.bytes,
            max_held_bytes=self._options.max_held_bytes,
        )

    def add(self, methods: Sequence[Method | StreamMethod]) -> None:
        """See Transport."""
        self._methods |= {f"/{method.path}".encode(): method for method in methods}

    async def start(self) -> None:
        """See Transport."""
        self._listeners = listen(self._options.address, reuse_port=self._options.reuse_port)
        self.port = self._listeners[0].getsockname()[1]
        self._hear()
        self._thread.start()

    async def stop(self, grace: float) -> None:
        """See Transport."""
        if not self._thread.is_alive():
            return
        self.call_soon(self._drain)
        if not await asyncio.to_thread(self._ended.wait, grace):
            self.call_soon(self._abort)
            await asyncio.to_thread(self._ended.wait)

    def when_idle(self, callback: Callable[[], bool]) -> None:
        """See Transport. From another thread it runs at once, on that thread."""
        if self.on_thread():
            self._idle.append(callback)
        else:
            while callback():
                pass

    # What connections and RPCs need: see `connection.Owner` and `rpc.Server`.

    def open(self, connection: Connection, stream: int, request: RequestHeaders) -> Rpc:
        """The RPC of a new stream."""
        self._running = True
        method = self._methods.get(request.path)
        if method is None or request.http_status != 200 or request.fault:
            return Refusal(self, connection, stream, request)
        if connection.spare and method.service != _HEALTH:
            full = Overloaded("the service has as many connections as it takes")
            return Denial(self, connection, stream, request, method.path, full)
        if self._authorize is not None:
            try:
                self._authorize(method.path, request.fields)
            except Exception as error:  # noqa: BLE001 - of the RPC; what is a defect denies too
                return Denial(self, connection, stream, request, method.path, error)
        if isinstance(method, Method):
            return Unary(self, connection, stream, request, method)
        return Streaming(self, connection, stream, request, method)

    def make_room(self) -> None:
        """See `rpc.Server`. The largest request of the connection that holds most ends first."""
        weigh = self.held.weigh
        heap = [(-weigh(each), number, each) for number, each in enumerate(self._connections)]
        heapq.heapify(heap)
        while self.held.full and heap:
            weight, number, connection = heapq.heappop(heap)
            connection.give_way()
            if (left := -weigh(connection)) > weight:  # or another thread is ending its call
                heapq.heappush(heap, (left, number, connection))

    def on_thread(self) -> bool:
        """Whether this is the thread that polls."""
        return threading.get_ident() == self._thread_id

    def unsent(self, connection: Connection) -> None:
        """Sends what the connection has once all that arrived is handled."""
        self._unsent.add(connection)

    def watch(self, connection: Connection, *, writable: bool) -> None:
        """Whether to flush the connection when its socket takes more."""
        events = select.EPOLLIN | (select.EPOLLOUT if writable else 0)
        with contextlib.suppress(OSError, ValueError):  # it has been closed meanwhile
            self._epoll.modify(connection.socket, events)

    def closed(self, connection: Connection) -> None:
        """Forgets the connection, whose socket is still open."""
        if connection in self._connections:
            self._connections.remove(connection)
            self._spares -= connection.spare
            self.held.weigh(connection)
        self._unsent.discard(connection)
        self._unregister(connection.socket)

    def call_soon(self, callback: Callable[[], object]) -> None:
        """See Transport."""
        self._soon.append(callback)
        if self._asleep and not self.on_thread():
            with contextlib.suppress(OSError, ValueError):  # all has ended
                self._waker.write(_ONE)

    # The thread.

    def _loop(self) -> None:
        self._thread_id = threading.get_ident()
        next_tick = next_slow_tick = time.monotonic()
        while self._connections or not self._stopping:
            while self._soon:
                self._guard(self._soon.popleft())
            while self._unsent:
                self._guard(self._unsent.pop().outgoing.flush)
            over = self._stopping and not self._connections
            patience = _TICK if self._running else _SLOW_TICK
            self._asleep = True  # before it looks: whoever comes later wakes it
            busy = self._idle or self._soon or over
            events = self._epoll.poll(0 if busy else patience)
            self._asleep = False
            for number, mask in events:
                if (handler := self._handlers.get(number)) is not None:
                    self._guard(handler, mask)
            if self._idle:
                self._rounds += 1
                if not events or self._rounds >= _MOST_ROUNDS:
                    self._run_idle()
            now = time.monotonic()
            if now >= next_tick:
                next_tick = now + _TICK
                self._expire(now)
            if now >= next_slow_tick:
                next_slow_tick = now + _SLOW_TICK
                self._keep(now)
        self._epoll.close()
        self._waker.close()
        self._ended.set()

    def _guard(self, callback: Callable[..., object], *arguments: int) -> None:
        try:
            callback(*arguments)
        except Exception as error:
            # A defect of ours must not end the service for everybody else.
            self.log.error("transport_failed", exc_info=error)

    def _run_idle(self) -> None:
        self._rounds = 0
        callbacks, self._idle = self._idle, []
        for callback in callbacks:
            if callback():
                self._idle.append(callback)

    def _expire(self, now: float) -> None:
        running = [connection for connection in self._connections if connection.rpcs]
        self._running = bool(running)
        for connection in running:
            connection.expire(now)
            self.held.weigh(connection)
        if self.held.full:
            self.make_room()

    def _keep(self, now: float) -> None:
        for connection in list(self._connections):
            connection.keep(now)
            self.held.weigh(connection)
        if self.held.full:
            self.make_room()
        if self._certificates is not None:
            self._certificates.content()  # which reads them again, though nobody connects
        if self._deaf and not self._stopping:
            self._deaf = False
            self._hear()

    def _register(self, sock: socket.socket, handler: Callable[[int], object]) -> None:
        self._handlers[sock.fileno()] = handler
        self._epoll.register(sock, select.EPOLLIN)

    def _unregister(self, sock: socket.socket) -> None:
        if self._handlers.pop(sock.fileno(), None) is not None:
            self._epoll.unregister(sock)

    def _hear(self) -> None:
        for listener in self._listeners:
            self._register(listener, functools.partial(self._accept, listener))

    def _accept(self, listener: socket.socket, _: int) -> None:
        try:
            for sock in accept(listener, self._certificates):
                self._serve(sock)
        except OSError as error:
            self.log.error("accept_failed", reason=str(error))
            self._deaf = True
            for each in self._listeners:
                self._unregister(each)

    def _serve(self, sock: socket.socket) -> None:
        now = time.monotonic()
        spare = len(self._connections) - self._spares >= self._options.max_connections
        if spare:
            self._count_refusal(now)
            if self._spares >= _SPARE:
                sock.close()
                return
        lifetimes = _SPARE_LIFETIMES if spare else self._options.lifetimes
        connection = Connection(sock, self, lifetimes, now, spare=spare)

        def on_event(mask: int) -> None:
            if mask & select.EPOLLOUT:
                connection.writable(time.monotonic())
            if mask & ~select.EPOLLOUT:
                connection.readable(time.monotonic())

        self._connections.add(connection)
        self._spares += spare
        self._register(sock, on_event)

    def _count_refusal(self, now: float) -> None:
        self._refused += 1
        if now - self._refusal_logged >= _REFUSALS_LOGGED:
            self._refusal_logged = now
            self.log.warning(
                "connections_refused", limit=self._options.max_connections, refused=self._refused
            )

    def _drain(self) -> None:
        """Listens no more, and sends clients elsewhere."""
        if self._stopping:
            return
        self._stopping = True
        for listener in self._listeners:
            self._unregister(listener)
            listener.close()
        for connection in list(self._connections):
            connection.drain()

    def _abort(self) -> None:
        """Cancels what runs, and closes."""
        for connection in list(self._connections):
            connection.cancel()
            connection.outgoing.flush()
            connection.close()
