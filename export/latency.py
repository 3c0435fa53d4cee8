"""How long a batch takes in onnxruntime, and which batches to run therefore."""

import platform
import statistics
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from vae.manifest.v1 import manifest_pb2

from export.graphs import Value

BUCKETS = (1, 2, 4, 8, 16, 32, 64, 128, 256)
_Feeds = dict[str, NDArray[np.generic]]
CPU = "CPUExecutionProvider"
CUDA = "CUDAExecutionProvider"
_SECONDS_PER_BUCKET = 0.01
_LONG_SECONDS = 0.1
# Between the end of a run and the start of the next, in the service (docs/performance.md).
_SERVICE_SECONDS = 115e-6
_WORTH_DOUBLING = 1.05  # throughput
_WORTH_A_BUCKET = 0.8  # duration of the next larger one
_LEAST_LARGEST = 16  # sessions of many threads want larger batches than the one thread measured
_MOST_LARGEST = 64  # of items so large that more of them than this take _MOST_BYTES
_MOST_BYTES = 2**24


def latency_tables(
    content: bytes, inputs: tuple[Value, ...], buckets: Sequence[int] = BUCKETS
) -> list[manifest_pb2.LatencyTable]:
    """A table for the CPU, with one thread, and one for CUDA where onnxruntime has it."""
    devices = {CPU: _cpu_name()}
    if CUDA in onnxruntime.get_available_providers() and (name := _gpu_name()) is not None:
        devices[CUDA] = name
    return [
        _table(content, inputs, buckets, provider, device) for provider, device in devices.items()
    ]


def buckets_to_measure(observation_bytes: int) -> tuple[int, ...]:
    """Those of BUCKETS whose batches of observations of so many bytes are not too large to hold."""
    largest = max(_MOST_LARGEST, _MOST_BYTES // observation_bytes)
    return tuple(bucket for bucket in BUCKETS if bucket <= largest)


def shortest_run(content: bytes, inputs: tuple[Value, ...], batch: int) -> float:
    """Seconds of the fastest of many runs on one thread of the CPU: to compare, not to promise."""
    session, feeds = _session(content, CPU), _zeros(inputs, batch)
    return min(_durations(session, feeds, 5 * _SECONDS_PER_BUCKET))


def recommended_buckets(tables: Iterable[manifest_pb2.LatencyTable]) -> list[int]:
    """The batch sizes to pad to, ascending from 1, that no graph of these tables can do without.

    The largest is where the throughput of a graph stops growing by 5 % for each item more, the
    service's own time counted; a smaller one stays if it takes less than 0.8 of the next.
    """
    by_graph = [{row.batch_size: row.seconds for row in table.batches} for table in tables]
    sizes = sorted({size for seconds in by_graph for size in seconds})
    kept = [max(map(_largest, by_graph))]
    for size in reversed(sizes[: sizes.index(kept[0])]):
        gains = any(seconds[size] < _WORTH_A_BUCKET * seconds[kept[0]] for seconds in by_graph)
        if gains or size == 1:
            kept.insert(0, size)
    return kept


def _largest(seconds: dict[int, float]) -> int:
    rates = {size: size / (_SERVICE_SECONDS + duration) for size, duration in seconds.items()}
    enough = max(rates.values()) / _WORTH_DOUBLING
    return max(_LEAST_LARGEST, min(size for size, rate in rates.items() if rate >= enough))


def _table(
    content: bytes, inputs: tuple[Value, ...], buckets: Sequence[int], provider: str, device: str
) -> manifest_pb2.LatencyTable:
    session = _session(content, provider)
    table = manifest_pb2.LatencyTable(
        execution_provider=session.get_providers()[0], device=device, threads=1
    )
    for bucket in buckets:
        durations = _durations(session, _zeros(inputs, bucket), _SECONDS_PER_BUCKET)
        table.batches.add(batch_size=bucket, seconds=statistics.median(durations))
    return table


def _session(content: bytes, provider: str) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(content, options, providers=[provider])


def _zeros(inputs: tuple[Value, ...], batch: int) -> _Feeds:
    return {value.name: np.zeros((batch, *value.shape), value.data_type) for value in inputs}


def _durations(session: onnxruntime.InferenceSession, feeds: _Feeds, seconds: float) -> list[float]:
    """Of runs for some time after two first ones; of a long one, that one alone."""
    for _ in range(2):  # the first run sets up what the others reuse
        first = _duration(session, feeds)
        if first > _LONG_SECONDS:
            return [first]
    durations: list[float] = []
    ends = time.perf_counter() + seconds
    while len(durations) < 3 or time.perf_counter() < ends:
        durations.append(_duration(session, feeds))
    return durations


def _duration(session: onnxruntime.InferenceSession, feeds: _Feeds) -> float:
    started = time.perf_counter()
    session.run(None, feeds)
    return time.perf_counter() - started


def _cpu_name() -> str:
    return _field(Path("/proc/cpuinfo"), "model name") or platform.machine() or "CPU"


def _gpu_name() -> str | None:
    """That of the first GPU; None without one, or without its driver."""
    for path in sorted(Path("/proc/driver/nvidia/gpus").glob("*/information")):
        return _field(path, "Model")
    return None


def _field(path: Path, name: str) -> str | None:
    """The value of the first line "name : value" of a file; None without."""
    try:
        lines = path.read_text().splitlines()
    except OSError:
        return None
    fields = (line.partition(":") for line in lines)
    return next((value.strip() for key, _, value in fields if key.strip() == name), None)
