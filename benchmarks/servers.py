"""The servers that are measured, as the scenarios see them."""

import contextlib
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import grpc

from benchmarks.records import SERVICE
from scripts.launch import running_service


@dataclass(frozen=True)
class Server:
    """A running server. `pid` is its first process; `start_seconds` is from exec to ready, with
    every model loaded."""

    name: str
    target: str
    pid: int
    start_seconds: float


def call(target: str, path: str, request: bytes, seconds: float = 30.0) -> bytes:
    """One unary call with serialized messages, once the server listens. Raises grpc.RpcError."""
    options = [("grpc.max_receive_message_length", -1)]
    with grpc.insecure_channel(target, options=options) as channel:
        method = channel.unary_unary(path, request_serializer=None, response_deserializer=None)
        answer: bytes = method(request, timeout=seconds, wait_for_ready=True)
        return answer


@contextlib.contextmanager
def running(
    repository: Path, options: Sequence[str], checkout: Path | None = None, processes: int = 1
) -> Iterator[Server]:
    """The project's service, of another checkout if one is given, once so many processes are ready;
    ends with the block."""
    started = time.perf_counter()
    within = _within(checkout.resolve()) if checkout else ()
    options = [*options, "--processes", str(processes)]
    with running_service(repository, *options, within=within) as process:
        process.wait_for_all(processes)
        seconds = time.perf_counter() - started
        name = checkout.resolve().name if checkout else SERVICE
        name += f", {processes} processes" * (processes > 1)
        yield Server(name, process.target, process.process.pid, seconds)


def _within(checkout: Path) -> tuple[str, ...]:
    """Runs a command there; Python looks in the working directory first, then in PYTHONPATH."""
    return ("env", "-C", str(checkout), f"PYTHONPATH={checkout}:{checkout / 'protos'}")
