"""Several service processes on one port: Python runs on one core at a time, a process on its own.

The kernel spreads connections over the processes, so clients need several connections to reach
all of them (many clients have them, or a load balancer does). This process starts the others,
restarts one that dies, passes SIGTERM on, and merges their metrics: every series gets a label
`process`, so that nothing is counted twice and a sum is right.
"""

import asyncio
import contextlib
import json
import signal
import socket
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from prometheus_client import CollectorRegistry, Counter
from prometheus_client.core import Metric
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

from service.logs import Logger
from service.metrics import serve_metrics
from service.session import cpu_quota
from service.settings import Settings

_SCRAPE_SECONDS = 5.0
_RESTART_SECONDS = 1.0


@dataclass
class _Child:
    """One process, and the port of its metrics once it listens."""

    index: int
    process: asyncio.subprocess.Process
    metrics_port: int | None = None


async def supervise(settings: Settings, arguments: Sequence[str], log: Logger) -> int:
    """Runs `settings.processes` processes until SIGTERM or SIGINT; the largest of their exit codes.

    A process that ends before it listens ends all of them, as the next would end likewise; one
    that dies later is started again after a second.
    """
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    children: dict[int, _Child] = {}
    registry = CollectorRegistry()
    registry.register(_Merged(children))
    restarts = Counter(
        "vae_process_restarts_total",
        "Processes that died and were started again.",
        registry=registry,
    )
    with _reserved(settings.listen) as port:
        metrics_server, metrics_port = serve_metrics(
            settings.metrics_host, settings.metrics_port, registry
        )
        log.info("listening", processes=settings.processes, port=port, metrics_port=metrics_port)
        command = _command(settings, arguments, port)

        async def keep(index: int) -> int:
            while True:
                process = await asyncio.create_subprocess_exec(
                    *command, stderr=asyncio.subprocess.PIPE
                )
                child = children[index] = _Child(index, process)
                if stopping.is_set():
                    process.terminate()
                await _forward_log(child)
                code = await process.wait()
                if stopping.is_set() or child.metrics_port is None:
                    stopping.set()
                    return abs(code)
                log.error("process_died", process=index, code=code)
                restarts.inc()
                await asyncio.sleep(_RESTART_SECONDS)

        keepers = [asyncio.create_task(keep(index)) for index in range(settings.processes)]
        await stopping.wait()
        for child in children.values():
            if child.process.returncode is None:
                child.process.terminate()
        codes = await asyncio.gather(*keepers)
        metrics_server.shutdown()
        metrics_server.server_close()
    log.info("stopped", processes=settings.processes)
    return max(codes)


def _command(settings: Settings, arguments: Sequence[str], port: int) -> list[str]:
    """The command line of a process: as ours, and the later of two equal options counts."""
    host = settings.listen.rpartition(":")[0]
    threads = settings.threads or max(1, cpu_quota() // settings.processes)
    own = {
        "listen": f"{host}:{port}",
        "reuse-port": "true",
        "processes": "1",
        "threads": str(threads),
        "metrics-host": "127.0.0.1",
        "metrics-port": "0",
    }
    options = [text for name, value in own.items() for text in (f"--{name}", value)]
    return [sys.executable, "-m", "service", *arguments, *options]


@contextlib.contextmanager
def _reserved(listen: str) -> Iterator[int]:
    """Holds an address and gives its port, so that no other program takes it meanwhile.

    A bound socket that does not listen gets no connections. Raises OSError if somebody else has it.
    """
    host, _, port = listen.rpartition(":")
    address = (host.strip("[]"), int(port))
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as reserved:
        reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        reserved.bind(address)
        yield int(reserved.getsockname()[1])


async def _forward_log(child: _Child) -> None:
    """Writes the log of a process into ours, with its number, until it ends."""
    assert child.process.stderr is not None
    async for line in child.process.stderr:
        try:
            event = {"process": child.index, **json.loads(line)}
        except ValueError:
            sys.stderr.write(line.decode(errors="replace"))
            continue
        if event.get("event") == "listening":
            child.metrics_port = event["metrics_port"]
        sys.stderr.write(json.dumps(event) + "\n")


class _Merged(Collector):
    """The metrics of all processes, each sample with the number of its process."""

    def __init__(self, children: dict[int, _Child]) -> None:
        self._children = children

    def collect(self) -> Iterator[Metric]:
        """Asks every process; one that does not answer is left out."""
        merged: dict[str, Metric] = {}
        for child in list(self._children.values()):
            for family in _scrape(child):
                whole = merged.setdefault(
                    family.name, Metric(family.name, family.documentation, family.type)
                )
                for sample in family.samples:
                    labels = {**sample.labels, "process": str(child.index)}
                    whole.samples.append(sample._replace(labels=labels))
        yield from merged.values()


def _scrape(child: _Child) -> list[Metric]:
    if child.metrics_port is None:
        return []
    url = f"http://127.0.0.1:{child.metrics_port}/metrics"
    try:
        with urllib.request.urlopen(url, timeout=_SCRAPE_SECONDS) as response:
            text = response.read().decode()
    except (urllib.error.URLError, OSError):
        return []
    return list(text_string_to_metric_families(text))
