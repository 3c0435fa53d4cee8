"""The second opinion: NVIDIA's perf_analyzer, over the Open Inference Protocol."""

import csv
import json
import os
import subprocess
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from benchmarks.errors import BenchmarkError
from benchmarks.peers import Peers
from benchmarks.processes import CpuSampler
from benchmarks.servers import Server


@dataclass(frozen=True)
class Windows:
    """perf_analyzer measures windows of `milliseconds` until throughput and latency of the last
    three differ by at most `stability` percent, at most `trials` times."""

    milliseconds: int = 2000
    stability: int = 25
    trials: int = 10


@dataclass(frozen=True)
class PerfReport:
    """What perf_analyzer reports at one concurrency. `server_cpu_us`: CPU time for each request,
    where its windows were long enough to tell."""

    concurrency: int
    requests_per_second: float
    p50_ms: float
    p99_ms: float
    server_cpu_us: float | None = None


def run_perf_analyzer(
    peers: Peers, server: Server, model: str, concurrency: int, windows: Windows
) -> PerfReport:
    """Load `model` with requests of one random item. Raises BenchmarkError if perf_analyzer reports
    nothing, as when its windows never agree."""
    with tempfile.TemporaryDirectory(prefix="perf-") as name:
        table, profile = Path(name) / "report.csv", Path(name) / "profile.json"
        options = {
            "-m": model,
            "-i": "grpc",
            "-u": server.target,
            "--concurrency-range": concurrency,
            "--measurement-interval": windows.milliseconds,
            "--stability-percentage": windows.stability,
            "--max-trials": windows.trials,
            "--input-data": "random",
            "-f": table,
            "--profile-export-file": profile,
        }
        command = [str(peers.perf_analyzer)]
        for option, value in options.items():
            command += [option, str(value)]
        environment = os.environ | {"LD_LIBRARY_PATH": peers.perf_analyzer_libraries}
        with CpuSampler(server.pid) as sampler:
            process = subprocess.run(  # noqa: S603 - the peer that was just installed
                command,
                env=environment,
                capture_output=True,
                text=True,
                timeout=60 + windows.trials * windows.milliseconds / 500,
                check=False,
            )
        if process.returncode or not table.exists():
            said = (process.stderr.strip() or process.stdout.strip()).splitlines()
            raise BenchmarkError(f"perf_analyzer measured nothing: {said[-1] if said else '?'}")
        (report,) = parse_table(table.read_text().splitlines())
        seconds = sampler.seconds_per_request(parse_ends(profile.read_text()))
    if seconds is None:
        return report
    return PerfReport(**{**vars(report), "server_cpu_us": seconds * 1e6})


def parse_table(lines: Iterable[str]) -> list[PerfReport]:
    """The rows of perf_analyzer's CSV. Which columns it has depends on the server; latencies are
    in microseconds. Raises BenchmarkError if one that is needed is missing."""
    reports = []
    for row in csv.DictReader(lines):
        try:
            reports.append(
                PerfReport(
                    concurrency=int(row["Concurrency"]),
                    requests_per_second=float(row["Inferences/Second"]),
                    p50_ms=float(row["p50 latency"]) / 1000,
                    p99_ms=float(row["p99 latency"]) / 1000,
                )
            )
        except KeyError as error:
            raise BenchmarkError(f"perf_analyzer's table has no column {error}") from error
    return reports


def parse_ends(profile: str) -> list[int]:
    """When requests ended, ascending nanoseconds since the epoch, from a profile export."""
    return sorted(
        request["response_timestamps"][-1]
        for experiment in json.loads(profile)["experiments"]
        for request in experiment["requests"]
        if request["response_timestamps"]
    )
