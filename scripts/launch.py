"""Starts a service as a process of its own on free ports, for the demo, tests and benchmarks."""

import contextlib
import json
import queue
import signal
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

_SECONDS = 60.0


class ServiceProcess:
    """A running service. target: its gRPC address. metrics_url: where Prometheus scrapes it."""

    def __init__(
        self, process: "subprocess.Popen[str]", echo: Callable[[str], None], host: str
    ) -> None:
        assert process.stderr is not None
        self.process = process
        self._echo = echo
        self._events: queue.Queue[dict[str, Any] | None] = queue.Queue()
        self._reader = threading.Thread(target=self._read, args=(process.stderr,), daemon=True)
        self._reader.start()
        listening = self.wait_for("listening")
        self.target = f"{host}:{listening['port']}"
        self._http = f"http://{host}:{listening['metrics_port']}"
        self.metrics_url = f"{self._http}/metrics"

    def wait_for(self, name: str) -> dict[str, Any]:
        """The next log event of that name. Raises RuntimeError if the service ends before."""
        while (event := self._events.get(timeout=_SECONDS)) is not None:
            if event.get("event") == name:
                return event
        code = self.process.wait(_SECONDS)
        raise RuntimeError(f"the service ended with {code} before it was {name}")

    def wait_for_all(self, processes: int) -> None:
        """Waits until each of so many processes is ready."""
        for _ in range(processes):
            self.wait_for("ready")

    def wait_until_ready(self, credentials: grpc.ChannelCredentials | None = None) -> None:
        """Waits until the service's health says that it takes requests."""
        request = health_pb2.HealthCheckRequest(service="vae.v1.VaeService")
        with (
            grpc.secure_channel(self.target, credentials)
            if credentials
            else grpc.insecure_channel(self.target)
        ) as channel:
            watch = health_pb2_grpc.HealthStub(channel).Watch(
                request, timeout=_SECONDS, wait_for_ready=True
            )
            for response in watch:
                if response.status == health_pb2.HealthCheckResponse.SERVING:
                    watch.cancel()
                    return

    def scrape(self) -> str:
        """What /metrics says."""
        with urllib.request.urlopen(self.metrics_url, timeout=10) as response:
            return str(response.read().decode())

    def says(self, probe: str) -> bool:
        """Whether a probe over HTTP, as "/readyz", is answered with 200, and not with 503."""
        try:
            with urllib.request.urlopen(f"{self._http}{probe}", timeout=10) as response:
                return bool(response.status == 200)
        except urllib.error.HTTPError as error:
            if error.code != 503:
                raise
            error.close()
            return False

    def stop(self) -> int:
        """Sends SIGTERM, waits for the drain and returns the exit code."""
        self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(_SECONDS)
        self.join()
        return code

    def join(self) -> None:
        """Waits until the log of a process that has ended is read, so that it can be closed."""
        self._reader.join(_SECONDS)

    def _read(self, stderr: IO[str]) -> None:
        for line in stderr:
            self._echo(line.rstrip("\n"))
            with contextlib.suppress(ValueError):  # a line that is no event
                self._events.put(json.loads(line))
        self._events.put(None)


@contextlib.contextmanager
def running_service(
    repository: Path,
    *options: str,
    echo: Callable[[str], None] = lambda line: None,
    credentials: grpc.ChannelCredentials | None = None,
    listen: str = "127.0.0.1:0",
    within: Sequence[str] = (),
) -> Iterator[ServiceProcess]:
    """A service of repository, ready for requests.

    `options` are further command-line options, `credentials` those of a client of TLS; `echo` gets
    every line of the log; `within` is a command that runs the service's, as `ip netns exec NAME`.
    Ends the process when the block ends, if nobody has.
    """
    command = [*within, sys.executable, "-m", "service", "--repository", str(repository)]
    command += ["--listen", listen, "--metrics-port", "0", *options]
    with started(command, echo, listen.rpartition(":")[0], credentials) as service:
        yield service


@contextlib.contextmanager
def started(
    command: Sequence[str],
    echo: Callable[[str], None],
    host: str = "127.0.0.1",
    credentials: grpc.ChannelCredentials | None = None,
) -> Iterator[ServiceProcess]:
    """The service that a command runs, as in a container, ready for requests on a host.

    Ends the process when the block ends, if nobody has.
    """
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        service = None
        try:
            service = ServiceProcess(process, echo, host)
            service.wait_until_ready(credentials)
            yield service
        finally:
            process.kill()
            if service is not None:
                service.join()
