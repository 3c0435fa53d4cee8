"""What operators ask over HTTP: /metrics for Prometheus, /livez and /readyz for a kubelet.

They say what grpc.health.v1 says, to those who cannot ask that: a kubelet's gRPC probes know no
TLS, and a load balancer may know no gRPC. Served in plain text and without credentials.
"""

import asyncio
import contextlib
import errno
import socket
import threading
import time
from collections.abc import Callable, Iterable
from socketserver import ThreadingMixIn
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

from prometheus_client import CollectorRegistry, make_wsgi_app

Probe = Callable[[], bool]
"""Whether something holds; asked on any thread, and may wait a few seconds."""

METRICS, ALIVE, READY = "/metrics", "/livez", "/readyz"
_PATIENCE = 10.0  # seconds from a connection to its end: a request and an answer
_MOST = 64  # connections at once; one more ends the oldest, which are those of slow clients
_ANSWER_SECONDS = 4.0  # less than a kubelet's timeout for liveness


def runs(loop: asyncio.AbstractEventLoop, seconds: float = _ANSWER_SECONDS) -> Probe:
    """Whether a loop gets round to what it is given within so many seconds.

    The server of probes has threads of its own, which would answer for a loop that hangs.
    """

    def answers() -> bool:
        done = threading.Event()
        try:
            loop.call_soon_threadsafe(done.set)
        except RuntimeError:  # it is closed
            return False
        return done.wait(seconds)

    return answers


def serve_probes(
    host: str, port: int, registry: CollectorRegistry, alive: Probe, ready: Probe
) -> tuple[WSGIServer, int]:
    """Serves on an address until shutdown(); returns the server and its port. 0 takes a free one.

    A probe is answered with 200 or 503. Raises OSError if the address cannot be had.
    """
    application = _application(registry, {ALIVE: alive, READY: ready})
    family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
    kind = _Server if family is socket.AF_INET else _ServerV6
    try:
        server = make_server(host, port, application, kind, _Handler)
    except OSError as error:
        reason = "the port is in use" if error.errno == errno.EADDRINUSE else str(error)
        raise OSError(f"cannot listen on {host}:{port} for metrics: {reason}") from error
    threading.Thread(target=server.serve_forever, name="probes", daemon=True).start()
    return server, int(server.server_address[1])


def _application(registry: CollectorRegistry, probes: dict[str, Probe]) -> WSGIApplication:
    metrics = make_wsgi_app(registry)

    def answer(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        path = environ["PATH_INFO"]
        if path == METRICS:
            scraped: Iterable[bytes] = metrics(environ, start_response)
            return scraped
        if path not in probes:
            status, text = "404 Not Found", f"There are {METRICS}, {ALIVE} and {READY}."
        elif probes[path]():
            status, text = "200 OK", "yes"
        else:
            status, text = "503 Service Unavailable", "no"
        start_response(status, [("Content-Type", "text/plain; charset=utf-8")])
        return [f"{text}\n".encode()]

    return answer


class _Server(ThreadingMixIn, WSGIServer):
    """A thread for each connection, none of which lasts."""

    daemon_threads = True
    request_queue_size = _MOST

    def __init__(self, *arguments: Any) -> None:
        self._since: dict[socket.socket, float] = {}  # of open connections, the oldest first
        self._lock = threading.Lock()
        super().__init__(*arguments)

    def process_request(self, request: Any, client_address: Any) -> None:
        with self._lock:
            self._since[request] = time.monotonic()
            for oldest in list(self._since)[:-_MOST]:
                self._end(oldest)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        with self._lock:
            self._since.pop(request, None)
        super().shutdown_request(request)

    def service_actions(self) -> None:
        """Called twice a second: ends those whose client sends, or reads, a byte now and then."""
        with self._lock:
            late = time.monotonic() - _PATIENCE
            for request in [each for each, since in self._since.items() if since < late]:
                self._end(request)

    def _end(self, request: socket.socket) -> None:
        del self._since[request]
        with contextlib.suppress(OSError):  # it has ended already
            request.shutdown(socket.SHUT_RDWR)  # its thread, which waits for it, goes on


class _ServerV6(_Server):
    address_family = socket.AF_INET6


class _Handler(WSGIRequestHandler):
    def handle(self) -> None:
        with contextlib.suppress(OSError):  # it said nothing, or is gone
            super().handle()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base's name
        """Nothing: probes come every few seconds."""
