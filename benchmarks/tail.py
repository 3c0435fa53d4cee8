"""Where slow requests of a fleet spend their time.

Three replicas on this machine; one client that balances over them makes one-item calls of Sample at
random moments. A call's seconds, from its start to its answer, are those in the queue, those that
its batches ran (both are in the answer), and the rest: messages, sockets, both programs' loops. The
service's own histogram says how much of the rest is within the replicas.
"""

import asyncio
import contextlib
import datetime
import itertools
import json
import random
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc.aio
import numpy as np
from prometheus_client.parser import text_string_to_metric_families
from vae.v1.vae_service_pb2 import SampleRequest, SampleStreamRequest
from vae.v1.vae_service_pb2_grpc import VaeServiceStub

from benchmarks.machine import describe_commit, describe_machine
from benchmarks.models import MLP, build_repository
from benchmarks.runner import new_path
from scripts.launch import ServiceProcess, running_service
from vae_client.channel import OPTIONS

if TYPE_CHECKING:
    from vae.v1.vae_service_pb2_grpc import VaeServiceAsyncStub

_REPLICAS = 3
_RATE = 300.0  # calls a second
_SLOWEST = 0.01
_MODEL = f"models/{MLP.name}"
_GROWING = tuple(
    (name, value)
    for name, value in OPTIONS
    if name not in ("grpc.http2.bdp_probe", "grpc.http2.lookahead_bytes")
)
_SECONDS = "vae_request_duration_seconds_bucket"


@dataclass(frozen=True)
class Situation:
    """stream: which SampleStream the same channel reads: none, at "full" speed, or "paused"."""

    name: str
    stream: str = "none"
    options: Sequence[tuple[str, Any]] = OPTIONS


@dataclass(frozen=True)
class Call:
    """Seconds of one call."""

    total: float
    queue: float
    run: float


@dataclass(frozen=True)
class Tail:
    """Milliseconds. Of the slowest hundredth of the calls the mean of each stage. service: the
    bucket of the replicas' histogram that their p99 is in."""

    situation: str
    calls: int
    p50: float
    p99: float
    slowest: float
    queue: float
    run: float
    rest: float
    service: float
    streamed: int


SITUATIONS = (
    Situation("calls alone"),
    Situation("beside a stream at full speed", "full"),
    Situation("... whose window grows", "full", _GROWING),
    Situation("beside a stream that pauses", "paused"),
    Situation("... whose window grows", "paused", _GROWING),
)


def measure(folder: Path, seconds: float, say: Callable[[str], None]) -> Path:
    """Measures each situation for so many seconds; prints a table and writes it into folder."""
    tails = []
    with tempfile.TemporaryDirectory() as models:
        build_repository(Path(models))
        for situation in SITUATIONS:
            with contextlib.ExitStack() as stack:
                fleet = [
                    stack.enter_context(running_service(Path(models), "--threads", "1"))
                    for _ in range(_REPLICAS)
                ]
                tails.append(_situation(fleet, situation, seconds))
            say(render(tails[-1]))
    results = {
        "model": MLP.name,
        "replicas": _REPLICAS,
        "calls/s": _RATE,
        "slowest share": _SLOWEST,
        "ms": [asdict(tail) for tail in tails],
        "machine": describe_machine(),
        **describe_commit(),
    }
    path = new_path(folder, f"{datetime.datetime.now(datetime.UTC).date()}-tail")
    path.write_text(json.dumps(results, indent=1) + "\n")
    return path


def render(tail: Tail) -> str:
    """A line."""
    return (
        f"{tail.situation}: {tail.calls} calls, p50 {tail.p50} ms, p99 {tail.p99}, slowest "
        f"{tail.slowest}; slowest hundredth: queue {tail.queue}, run {tail.run}, rest {tail.rest}; "
        f"p99 within the replicas at most {tail.service}; {tail.streamed} items streamed"
    )


def summary(
    situation: str, calls: Sequence[Call], buckets: Mapping[float, float], streamed: int
) -> Tail:
    """Of calls, and of calls by the upper bound of their bucket in the replicas, not added up."""
    by_total = sorted(calls, key=lambda call: call.total)
    slow = by_total[-max(1, round(len(by_total) * _SLOWEST)) :]
    totals = [call.total for call in by_total]
    queue = float(np.mean([call.queue for call in slow]))
    run = float(np.mean([call.run for call in slow]))
    rest = float(np.mean([call.total for call in slow])) - queue - run
    return Tail(
        situation,
        len(calls),
        p50=_milliseconds(np.median(totals)),
        p99=_milliseconds(np.percentile(totals, 99)),
        slowest=_milliseconds(totals[-1]),
        queue=_milliseconds(queue),
        run=_milliseconds(run),
        rest=_milliseconds(rest),
        service=_milliseconds(_quantile(buckets, 1 - _SLOWEST)),
        streamed=streamed,
    )


def _milliseconds(seconds: Any) -> float:
    return round(1000 * float(seconds), 2)


def _quantile(buckets: Mapping[float, float], share: float) -> float:
    """The upper bound of the bucket that the quantile is in."""
    wanted, found = share * sum(buckets.values()), 0.0
    for bound in sorted(buckets):
        found += buckets[bound]
        if found >= wanted:
            return bound
    raise ValueError("no calls")


def _situation(fleet: Sequence[ServiceProcess], situation: Situation, seconds: float) -> Tail:
    before, calls, streamed = asyncio.run(_load(fleet, situation, seconds))
    after = _buckets(fleet)
    between = {bound: after[bound] - before.get(bound, 0.0) for bound in after}
    return summary(situation.name, calls, between, streamed)


def _buckets(fleet: Sequence[ServiceProcess]) -> dict[float, float]:
    """How many calls of Sample fell into each bucket on all replicas."""
    sums: dict[float, float] = {}
    for replica in fleet:
        for family in text_string_to_metric_families(replica.scrape()):
            for sample in family.samples:
                if sample.name == _SECONDS and sample.labels["method"].endswith("/Sample"):
                    bound = float(sample.labels["le"])
                    sums[bound] = sums.get(bound, 0.0) + sample.value
    bounds = sorted(sums)
    counts = itertools.pairwise([0.0, *(sums[bound] for bound in bounds)])
    return {bound: upto - below for bound, (below, upto) in zip(bounds, counts, strict=True)}


async def _load(
    fleet: Sequence[ServiceProcess], situation: Situation, seconds: float
) -> tuple[dict[float, float], list[Call], int]:
    """The replicas' calls before, the calls, and how many items the stream brought beside them."""
    target = "ipv4:" + ",".join(replica.target for replica in fleet)
    calls: list[Call] = []
    async with grpc.aio.insecure_channel(target, options=situation.options) as channel:
        stub = VaeServiceStub(channel)
        await _connected(stub)
        before = await asyncio.to_thread(_buckets, fleet)
        async with _streaming(stub, situation.stream) as streamed:
            loop = asyncio.get_running_loop()
            due, end = loop.time(), loop.time() + seconds
            running = []
            while due < end:
                due += random.expovariate(_RATE)
                await asyncio.sleep(due - loop.time())
                running.append(asyncio.create_task(_call(stub)))
            calls = list(await asyncio.gather(*running))
    return before, calls, sum(streamed)


async def _connected(stub: "VaeServiceAsyncStub") -> None:
    """Calls until the channel must have connected to every replica, and all is warm."""
    for _ in range(100):
        await _call(stub)


async def _call(stub: "VaeServiceAsyncStub") -> Call:
    request = SampleRequest(model=_MODEL, sample_count=1, seed=1)
    started = time.perf_counter()
    answer = await stub.Sample(request, timeout=60)
    total = time.perf_counter() - started
    return Call(total, answer.execution.queue_seconds, answer.execution.compute_seconds)


@contextlib.asynccontextmanager
async def _streaming(stub: "VaeServiceAsyncStub", how: str) -> AsyncIterator[list[int]]:
    """Reads a stream of 64 items a chunk meanwhile; how many came with each."""
    streamed: list[int] = []

    async def read() -> None:
        request = SampleRequest(model=_MODEL, sample_count=2**40, seed=1)
        async for chunk in stub.SampleStream(SampleStreamRequest(request=request)):
            streamed.append(chunk.response.observations.shape[0])
            if how == "paused":
                await asyncio.sleep(0.1)

    if how == "none":
        yield streamed
        return
    reading = asyncio.create_task(read())
    try:
        yield streamed
    finally:
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)
