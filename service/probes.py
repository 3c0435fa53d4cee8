"""What operators ask over HTTP: /metrics for Prometheus, /livez and /readyz for a kubelet.

They say what grpc.health.v1 says, to those who cannot ask that: a kubelet's gRPC probes know no
TLS, and a load balancer may know no gRPC. Served in plain text and without credentials.
"""

import asyncio
import contextlib
import errno
import socket
import threading
from collections.abc import Callable, Iterable
from socketserver import ThreadingMixIn
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

from prometheus_client import CollectorRegistry, make_wsgi_app

Probe = Callable[[], bool]
"""Whether something holds; asked on any thread, and may wait a few seconds."""

METRICS, ALIVE, READY = "/metrics", "/livez", "/readyz"
_PATIENCE = 10.0  # seconds that a client may say nothing, or read nothing
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
    daemon_threads = True


class _ServerV6(_Server):
    address_family = socket.AF_INET6


class _Handler(WSGIRequestHandler):
    timeout = _PATIENCE  # or who connects and says nothing keeps a thread for ever

    def handle(self) -> None:
        with contextlib.suppress(OSError):  # it said nothing, or is gone
            super().handle()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base's name
        """Nothing: probes come every few seconds."""
