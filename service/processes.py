"""Several service processes on one port: Python runs on one core at a time, a process on its own.

The kernel spreads connections over the processes, so clients need several connections to reach
all of them (many clients have them, or a load balancer does). This process starts the others,
restarts one that dies, passes SIGTERM on, and speaks for all of them over HTTP (`merged`). They end
with it (`lifeline`). Each follows the repository by itself; what one is asked to load, all do
(`wanted`).

Triton's ModelStatistics are those of the process that a connection reached.
"""

import asyncio
import contextlib
import errno
import json
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from prometheus_client import CollectorRegistry, Counter

from service.cpus import cpu_quota
from service.lifeline import lifeline
from service.logs import Logger
from service.merged import MergedMetrics, all_say_yes
from service.probes import ALIVE, READY, runs, serve_probes
from service.server import longest_drain, on_signals
from service.settings import Settings

_FIRST_DELAY = 1.0
_LAST_DELAY = 30.0
_SOUND_SECONDS = 60.0
_LINE_BYTES = 2**20
_NO_IPV6 = (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL)


@dataclass
class _Child:
    """One process, and the port of its metrics while it listens."""

    index: int
    process: asyncio.subprocess.Process
    metrics_port: int | None = None


def restart_delay(previous: float, lived: float) -> float:
    """Seconds until a process that lived so long is started again; previous: the last delay.

    Twice the last, at most half a minute; from a second on after a minute of life.
    """
    if lived >= _SOUND_SECONDS:
        previous = 0.0
    return min(max(2 * previous, _FIRST_DELAY), _LAST_DELAY)


def exit_code(code: int) -> int:
    """A process's code as a shell has it: 128 and the signal for one that a signal ended.

    One that SIGTERM ended had not come far enough to drain, which is no failure.
    """
    if code == -signal.SIGTERM:
        return 0
    return code if code >= 0 else 128 - code


async def supervise(settings: Settings, arguments: Sequence[str], log: Logger) -> int:
    """Runs `settings.processes` processes until told to stop; the largest of their exit codes.

    One that dies is started again, later each time, while others serve. One that ends before it
    listens when no other does ends all, with its code: whoever started us knows what to do then.
    """
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    on_signals(loop, stopping.set)
    children: dict[int, _Child] = {}
    registry = CollectorRegistry()

    def ports() -> dict[int, int]:
        known = list(children.values())
        return {child.index: port for child in known if (port := child.metrics_port) is not None}

    registry.register(MergedMetrics(ports))
    restarts = Counter(
        "vae_process_restarts_total",
        "Processes that died and were started again.",
        registry=registry,
    )
    with (
        reserved(settings.listen) as port,
        lifeline() as descriptor,
        _shared_file(settings) as wanted,
    ):
        alive = runs(loop)
        metrics_server, metrics_port = serve_probes(
            settings.metrics_host,
            settings.metrics_port,
            registry,
            lambda: alive() and all_say_yes(ports, ALIVE),
            lambda: bool(ports()) and not stopping.is_set() and all_say_yes(ports, READY),
        )
        log.info("listening", processes=settings.processes, port=port, metrics_port=metrics_port)
        command = _command(settings, arguments, port, descriptor, wanted)

        async def keep(index: int) -> int:
            delay = 0.0
            while True:
                started = time.monotonic()
                process = await asyncio.create_subprocess_exec(
                    *command,
                    stderr=asyncio.subprocess.PIPE,
                    limit=_LINE_BYTES,
                    pass_fds=(descriptor,),
                )
                child = children[index] = _Child(index, process)
                if stopping.is_set():
                    process.terminate()
                await _forward_log(child)
                code = await process.wait()
                served, child.metrics_port = child.metrics_port is not None, None
                if stopping.is_set():
                    return exit_code(code)
                log.error("process_died", process=index, code=code, served=served)
                if not served and not any(other.metrics_port for other in children.values()):
                    stopping.set()
                    return exit_code(code) or 1
                delay = restart_delay(delay, time.monotonic() - started)
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(stopping.wait(), delay)
                    return 0
                restarts.inc()

        keepers = [asyncio.create_task(keep(index)) for index in range(settings.processes)]
        await stopping.wait()
        _each_alive(children, "terminate")
        _, late = await asyncio.wait(keepers, timeout=longest_drain(settings))
        if late:
            log.error("killing", processes=len(late))
            _each_alive(children, "kill")
        codes = await asyncio.gather(*keepers)
        metrics_server.shutdown()
        metrics_server.server_close()
    log.info("stopped", processes=settings.processes)
    return max(codes)


def _each_alive(children: dict[int, _Child], call: str) -> None:
    for child in children.values():
        if child.process.returncode is None:
            with contextlib.suppress(ProcessLookupError):  # it ended, and nobody has looked yet
                getattr(child.process, call)()


def _command(
    settings: Settings, arguments: Sequence[str], port: int, descriptor: int, wanted: Path | None
) -> list[str]:
    """The command line of a process: as ours, and the later of two equal options counts."""
    host = settings.listen.rpartition(":")[0]
    cpus = settings.cpus or cpu_quota()
    own = {
        "listen": f"{host}:{port}",
        "reuse-port": "true",
        "processes": "1",
        "lifeline": str(descriptor),
        "cpus": str(max(1, cpus // settings.processes)),
        "metrics-host": "127.0.0.1",
        "metrics-port": "0",
    }
    if wanted is not None:
        own["wanted-file"] = str(wanted)
    options = [text for name, value in own.items() for text in (f"--{name}", value)]
    return [sys.executable, "-m", "service", *arguments, *options]


@contextlib.contextmanager
def _shared_file(settings: Settings) -> Iterator[Path | None]:
    """Where the processes read what one of them was asked to load; None if that cannot be."""
    if settings.wanted_file is not None or settings.model_control != "explicit":
        yield settings.wanted_file
        return
    with tempfile.TemporaryDirectory(prefix="vae-service-") as folder:
        yield Path(folder) / "wanted.json"


@contextlib.contextmanager
def reserved(listen: str) -> Iterator[int]:
    """Holds an address and gives its port, so that no other program takes it meanwhile.

    A bound socket that does not listen gets no connections. Without IPv6, [::] is every address of
    IPv4, as it is for gRPC. Raises OSError if somebody else has the address, or nobody can have it.
    """
    host, _, port = listen.rpartition(":")
    host = host.strip("[]")
    try:
        bound = _bound(socket.AF_INET6 if ":" in host else socket.AF_INET, host, int(port))
    except OSError as error:
        if host != "::" or error.errno not in _NO_IPV6:
            raise OSError(error.errno, f"cannot listen on {listen}: {error.strerror}") from error
        bound = _bound(socket.AF_INET, "", int(port))
    with bound:
        yield int(bound.getsockname()[1])


def _bound(family: socket.AddressFamily, host: str, port: int) -> socket.socket:
    bound = socket.socket(family, socket.SOCK_STREAM)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        bound.bind((host, port))
    except OSError:
        bound.close()
        raise
    return bound


async def _forward_log(child: _Child) -> None:
    """Writes the log of a process into ours, with its number, until it ends."""
    assert child.process.stderr is not None
    async for line in child.process.stderr:
        try:
            event = {"process": child.index, **json.loads(line)}
        except (ValueError, TypeError):  # no JSON, or no event
            sys.stderr.write(line.decode(errors="replace"))
            continue
        if event.get("event") == "listening":
            child.metrics_port = event["metrics_port"]
        sys.stderr.write(json.dumps(event) + "\n")
