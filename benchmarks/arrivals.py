"""Latencies under Poisson arrivals, and how long both programs wait for a core meanwhile.

One-item requests to the dense model. What a request costs with 1, 16 and 64 callers, in the same
run, is what `scripts/arrivals.py` makes its simulation of, and this is what it is held against.
The generator's and the service's waits for a core are in no metric of either, and yet in the
latencies: other programs, the kernel and this very benchmark, every 5 ms, run on the same cores.
"""

import datetime
import json
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.load import Load, LoadReport, run_load
from benchmarks.machine import describe_commit, describe_machine
from benchmarks.messages import decode
from benchmarks.models import MLP, build_repository
from benchmarks.runner import new_path
from benchmarks.servers import Server, running
from benchmarks.waits import sample, since, waited

CALLERS = (1, 16, 64)
_EVERY = 0.005
_LEAST = 0.0001  # a wait that is shorter is one of those that every wake-up has
_KEPT = ("requests_per_second", "p50_ms", "p99_ms", "lag_p99_ms", "server_cpu_us", "client_cpu_us")


@dataclass(frozen=True)
class Plan:
    """Rounds, each of which visits every load; rates in requests a second, times in seconds."""

    rounds: int = 5
    rates: tuple[float, ...] = (2_000.0, 5_000.0, 10_000.0, 15_000.0)
    warmup: float = 0.5
    duration: float = 2.0


def measure(plan: Plan, folder: Path, say: Callable[[str], None]) -> Path:
    """Says a line for each load and writes all into folder."""
    closed: list[Mapping[str, Any]] = []
    opened: list[Mapping[str, Any]] = []
    with tempfile.TemporaryDirectory(prefix="models-") as name:
        build_repository(Path(name), [MLP])
        with running(Path(name), ("--threads", "1")) as server:
            for number in range(plan.rounds):
                for callers in CALLERS:
                    report = run_load(
                        server.target,
                        decode(MLP, 1),
                        Load(
                            concurrency=callers,
                            warmup=plan.warmup,
                            duration=plan.duration / 2,
                            watch=server.pid,
                        ),
                    )
                    closed.append({"callers": callers, **_kept(report)})
                    say(_line(closed[-1]))
                for rate in plan.rates:
                    opened.append(_open(server, plan, rate, number))
                    say(_line(opened[-1]))
    results = {
        "model": MLP.name,
        "plan": asdict(plan),
        "closed": closed,
        "open": opened,
        "machine": describe_machine(),
        **describe_commit(),
    }
    path = new_path(folder, f"{datetime.datetime.now(datetime.UTC).date()}-arrivals")
    path.write_text(json.dumps(results, indent=1) + "\n")
    return path


def _line(entry: Mapping[str, Any]) -> str:
    """What can be said in a line: the waits all together, in seconds."""
    waits = {
        f"{who} waited": sum(took for _, took in pairs)
        for who, pairs in entry.get("waits", {}).items()
    }
    numbers = {key: value for key, value in entry.items() if key != "waits"} | waits
    return ", ".join(f"{key} {value:.4g}" for key, value in numbers.items())


def _kept(report: LoadReport) -> dict[str, float | None]:
    values = asdict(report)
    return {name: values[name] for name in _KEPT if values[name] is not None}


def _open(server: Server, plan: Plan, rate: float, number: int) -> dict[str, Any]:
    """What an open loop saw. waits: of the service and of the generator, since the first arrival
    (up to the milliseconds that the generator takes to end)."""
    load = Load(
        rate=rate, warmup=plan.warmup, duration=plan.duration, seed=number, watch=server.pid
    )
    samples: list[tuple[float, ...]] = []

    def watch(process: "subprocess.Popen[bytes]") -> None:
        with waited(server.pid) as service, waited(process.pid) as generator:
            samples.extend(sample((service, generator), lambda: process.poll() is None, _EVERY))

    report = run_load(server.target, decode(MLP, 1), load, watch)
    begin = time.perf_counter() - plan.warmup - plan.duration
    service, generator = since(samples, begin, _LEAST)
    waits = {"service": service, "generator": generator}
    return {"rate": rate, "seed": number, **_kept(report), "waits": waits}
