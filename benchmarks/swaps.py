"""How long a health check waits while the service loads and warms up another version.

onnxruntime might hold Python's lock while it builds a session, and warm-up takes the cores; the
event loop has to answer all the same. The model is the 64x64 convolutional one.
"""

import datetime
import json
import shutil
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import grpc
import numpy as np
from grpc_health.v1 import health_pb2, health_pb2_grpc

from benchmarks.machine import describe_commit, describe_machine
from benchmarks.models import CONV, build_repository
from scripts.launch import ServiceProcess, running_service

_SWAPS = 20
_IDLE_SECONDS = 5.0
_INTERVAL = 0.002
_TIMEOUT = 10.0


@dataclass
class _Caller:
    """Asks for the service's health again and again, and keeps the seconds of every answer."""

    target: str
    seconds: list[float] = field(default_factory=list)
    ended: threading.Event = field(default_factory=threading.Event)

    def run(self) -> None:
        """Until `ended` is set."""
        request = health_pb2.HealthCheckRequest(service="vae.v1.VaeService")
        with grpc.insecure_channel(self.target) as channel:
            stub = health_pb2_grpc.HealthStub(channel)
            while not self.ended.wait(_INTERVAL):
                started = time.perf_counter()
                stub.Check(request, timeout=_TIMEOUT)
                self.seconds.append(time.perf_counter() - started)


def measure(folder: Path, say: Callable[[str], None]) -> Path:
    """Measures an idle service and one that swaps; prints both and writes them into folder."""
    with tempfile.TemporaryDirectory() as scratch:
        exported, served = Path(scratch) / "exported", Path(scratch) / "served"
        build_repository(exported)
        _publish(exported, served, 1)
        poll = ("--model-control", "poll", "--repository-poll-seconds", "0.1", "--threads", "1")
        with running_service(served, *poll) as service:
            service.wait_for("ready")
            idle = _waits(service, lambda: time.sleep(_IDLE_SECONDS))
            loads: list[float] = []

            def swap() -> None:
                for version in range(2, _SWAPS + 2):
                    _publish(exported, served, version)
                    loads.append(service.wait_for("model_loaded")["seconds"])

            swapping = _waits(service, swap)
    results = {
        "model": CONV.name,
        "swaps": _SWAPS,
        "load seconds": {"median": float(np.median(loads)), "longest": max(loads)},
        "health ms, idle": idle,
        "health ms, while swapping": swapping,
        "machine": describe_machine(),
        **describe_commit(),
    }
    for name in ("load seconds", "health ms, idle", "health ms, while swapping"):
        say(f"{name}: {results[name]}")
    date = datetime.datetime.now(datetime.UTC).date()
    path = folder / f"{date}-swaps.json"
    path.write_text(json.dumps(results, indent=2) + "\n")
    return path


def _waits(service: ServiceProcess, meanwhile: Callable[[], object]) -> dict[str, float]:
    """Milliseconds that health checks took meanwhile."""
    caller = _Caller(service.target)
    thread = threading.Thread(target=caller.run)
    thread.start()
    try:
        meanwhile()
    finally:
        caller.ended.set()
        thread.join()
    milliseconds = 1000 * np.array(caller.seconds)
    return {
        "calls": len(milliseconds),
        "p50": round(float(np.percentile(milliseconds, 50)), 2),
        "p99": round(float(np.percentile(milliseconds, 99)), 2),
        "longest": round(float(milliseconds.max()), 2),
    }


def _publish(exported: Path, served: Path, version: int) -> None:
    """Publishes the exported version under another number: written beside, then renamed."""
    beside = served / CONV.name / f".publishing-{version}"
    shutil.copytree(exported / CONV.name / "1", beside)
    manifest = json.loads((beside / "manifest.json").read_text())
    manifest["version"] = version
    (beside / "manifest.json").write_text(json.dumps(manifest))
    beside.rename(served / CONV.name / str(version))
