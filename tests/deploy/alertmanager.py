"""What a Prometheus sends its alerts to, for tests."""

import json
import queue
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

_SECONDS = 60.0


class Alertmanager:
    """Takes alerts at `address`, HOST:PORT."""

    def __init__(self, address: str, alerts: "queue.Queue[dict[str, Any]]") -> None:
        self.address = address
        self._alerts = alerts

    def wait_for(self, name: str) -> dict[str, Any]:
        """The next alert of that name. Raises queue.Empty if none comes for a minute."""
        while True:
            alert = self._alerts.get(timeout=_SECONDS)
            if alert["labels"]["alertname"] == name:
                return alert


@contextmanager
def running_alertmanager() -> Iterator[Alertmanager]:
    """An Alertmanager on a free port of loopback, which keeps what it is sent."""
    alerts: queue.Queue[dict[str, Any]] = queue.Queue()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            length = int(self.headers["Content-Length"])
            for alert in json.loads(self.rfile.read(length)):
                alerts.put(alert)
            self.send_response(200)
            self.end_headers()

        def log_message(self, *arguments: object) -> None:
            """Says nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield Alertmanager(f"127.0.0.1:{server.server_port}", alerts)
        finally:
            server.shutdown()
            thread.join()
