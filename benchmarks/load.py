"""The load generator, a process of its own: `python -m benchmarks.load ...` prints a JSON line.

It knows neither protobuf nor a model: the caller gives a method, the bytes of a request and the
sizes that an answer may have. Imports nothing but the standard library, so it starts at once.
"""

import argparse
import base64
import contextlib
import gc
import json
import math
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from benchmarks.errors import BenchmarkError
from benchmarks.http2 import Method
from benchmarks.loops import Tally, Window, closed_loop, open_loop, percentile, poisson_arrivals
from benchmarks.pool import Pool
from benchmarks.processes import cpu_seconds, family, resident_bytes


@dataclass(frozen=True)
class Load:
    """How to load a server. `concurrency` callers in a closed loop, or `rate` Poisson arrivals a
    second in an open one; exactly one of the two. Times in seconds.

    `watch` is the server's process, whose use of CPU and memory is measured in the same window.
    """

    concurrency: int | None = None
    rate: float | None = None
    connections: int = 1
    warmup: float = 0.5
    duration: float = 2.0
    requests: int | None = None
    seed: int = 1
    watch: int | None = None

    def __post_init__(self) -> None:
        if (self.concurrency is None) == (self.rate is None):
            raise ValueError("a load has either a concurrency or a rate")


@dataclass(frozen=True)
class LoadReport:
    """What a load saw. Latencies in ms over calls that ended well; None where there was none, or
    the percentile has not ended; `refused_p99_ms` over those that the full server refused.
    `lag_p99_ms`: how late the generator itself was (open loop).

    `server_cpu_us` is the server's and `client_cpu_us` the generator's CPU time for each request.
    """

    requests: int
    errors: dict[str, int]
    seconds: float
    requests_per_second: float
    p50_ms: float | None
    p90_ms: float | None
    p99_ms: float | None
    max_ms: float | None
    lag_p99_ms: float | None
    refused_p99_ms: float | None
    client_cpu_us: float
    server_cpu_us: float | None = None
    resident_before: int | None = None
    resident_after: int | None = None


def measure(target: str, method: Method, load: Load) -> LoadReport:
    """Load the server from this process. Raises ConnectionLost if the server closes on us."""
    pool = Pool(target, method, load.connections)
    watched = family(load.watch) if load.watch is not None else []
    resident = [resident_bytes(watched)]
    client_cpu: list[float] = []
    server_cpu: list[float] = []

    def mark() -> None:
        client_cpu.append(time.process_time())
        server_cpu.append(cpu_seconds(watched))

    window = Window(load.warmup, load.duration, requests=load.requests)
    gc.collect()
    gc.freeze()
    gc.disable()
    if load.concurrency is not None:
        tally = closed_loop(pool, time.perf_counter, load.concurrency, window, mark)
    else:
        assert load.rate is not None
        arrivals = poisson_arrivals(load.rate, load.warmup + load.duration, load.seed)
        tally = open_loop(pool, time.perf_counter, arrivals, window, mark)
    resident.append(resident_bytes(watched))
    pool.close()
    summary = summarize(tally, client_cpu[-1] - client_cpu[0])
    if not watched:
        return summary
    cpu_us = (server_cpu[-1] - server_cpu[0]) / max(summary.requests, 1) * 1e6
    return replace(
        summary,
        server_cpu_us=cpu_us,
        resident_before=resident[0],
        resident_after=resident[-1],
    )


def summarize(tally: Tally, client_cpu: float) -> LoadReport:
    """The report of a tally, without the server's side; `client_cpu` in seconds."""
    requests = tally.codes.total()
    latencies, lags = sorted(tally.latencies), sorted(tally.lags)
    return LoadReport(
        requests=requests,
        errors={code: count for code, count in sorted(tally.codes.items()) if code != "OK"},
        seconds=tally.seconds,
        requests_per_second=tally.codes["OK"] / tally.seconds if tally.seconds else 0.0,
        p50_ms=_milliseconds(percentile(latencies, 50)),
        p90_ms=_milliseconds(percentile(latencies, 90)),
        p99_ms=_milliseconds(percentile(latencies, 99)),
        max_ms=_milliseconds(percentile(latencies, 100)),
        refused_p99_ms=_milliseconds(percentile(sorted(tally.refusals), 99)),
        lag_p99_ms=_milliseconds(percentile(lags, 99)),
        client_cpu_us=client_cpu / max(requests, 1) * 1e6,
    )


def run_load(
    target: str,
    method: Method,
    load: Load,
    meanwhile: Callable[["subprocess.Popen[bytes]"], None] = lambda process: None,
) -> LoadReport:
    """Load the server from a process of its own, which `meanwhile` may look at until it has ended.

    Raises BenchmarkError with what it said.
    """
    least, most = method.answer_bytes
    command = [sys.executable, "-m", "benchmarks.load", "--target", target, "--path", method.path]
    command += ["--answer-bytes", str(least), str(most)]
    for name, value in asdict(load).items():
        if value is not None:
            command += [f"--{name}", str(value)]
    limit = load.warmup + load.duration + 60
    pipe = subprocess.PIPE
    with tempfile.TemporaryFile() as request:
        request.write(base64.b64encode(method.request))
        request.seek(0)
        with subprocess.Popen(  # noqa: S603 - this very module
            command, stdin=request, stdout=pipe, stderr=pipe
        ) as process:
            try:
                meanwhile(process)
                said, errors = process.communicate(timeout=limit)
            except BaseException:
                process.kill()
                raise
    if process.returncode:
        raise BenchmarkError(errors.decode().strip() or f"ended with {process.returncode}")
    return LoadReport(**json.loads(said))


def main(arguments: Sequence[str] | None = None) -> int:
    """Reads the request's bytes as base64 from --request or standard input."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.load", description=__doc__)
    parser.add_argument("--target", required=True, metavar="HOST:PORT")
    parser.add_argument("--path", required=True, metavar="/PACKAGE.SERVICE/METHOD")
    parser.add_argument("--request", type=Path, metavar="FILE", help="serialized, as base64")
    parser.add_argument("--answer-bytes", type=int, nargs=2, default=(0, 2**31), metavar="N")
    for name, kind in _OPTIONS.items():
        parser.add_argument(f"--{name}", type=kind, default=argparse.SUPPRESS)
    options = vars(parser.parse_args(arguments))
    file = options["request"]
    encoded = file.read_bytes() if file else sys.stdin.buffer.read()
    method = Method(options["path"], base64.b64decode(encoded), tuple(options["answer_bytes"]))
    with contextlib.suppress(OSError):  # the kernel rounds up a sleep by 50 us, unless told not to
        Path("/proc/self/timerslack_ns").write_text("1")
    load = Load(**{name: options[name] for name in _OPTIONS if name in options})
    sys.stdout.write(json.dumps(asdict(measure(options["target"], method, load))) + "\n")
    return 0


_OPTIONS: dict[str, type] = {
    "concurrency": int,
    "rate": float,
    "connections": int,
    "warmup": float,
    "duration": float,
    "requests": int,
    "seed": int,
    "watch": int,
}


def _milliseconds(seconds: float) -> float | None:
    return seconds * 1000 if math.isfinite(seconds) else None


if __name__ == "__main__":
    sys.exit(main())
