"""Goal 7, on one CUDA GPU: `python -m benchmarks cuda`.

Batches in every way to run them (`benchmarks.device_runs`), requests through the service with the
share of time that the GPU is busy, and memory while encoder and decoder alternate. Without a GPU,
`--provider cpu` rehearses it all with onnxruntime's CPU provider.

It needs no `make setup`, only `PYTHONPATH=protos` in the root of the repository, and packages: for
the models torch, onnx, onnxscript, safetensors, fsspec, rich and tensorboardX; onnxruntime-gpu,
whose CUDA libraries torch brings; for the service grpcio, grpcio-health-checking,
grpcio-reflection, googleapis-common-protos, protobuf, hpack, pillow, prometheus-client, pydantic,
PyJWT, cryptography, structlog and uvloop.
"""

import json
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal

from benchmarks import device_memory, device_runs, device_service
from benchmarks.device_memory import Memory
from benchmarks.device_runs import NO_COPIES, TORCH, Latency, Make
from benchmarks.device_service import Served
from benchmarks.errors import BenchmarkError
from benchmarks.gpu import read_gpu
from benchmarks.machine import describe_commit, describe_machine, installed
from benchmarks.models import MODELS, BenchModel, build_repository
from benchmarks.runner import new_path
from benchmarks.servers import running
from service.repository import read_version
from service.session import ProviderError, SessionOptions, choose_provider

PARTS = ("latency", "service", "memory")
PRECISIONS = ("float32", "float16")
_PACKAGES = ("grpcio", "numpy", "onnxruntime", "onnxruntime-gpu", "protobuf", "torch", "uvloop")
# Precision, --cuda-runs and --processes; on the CPU all runs are plain, and float16 is refused.
_SERVICES = (
    ("float32", "plain", 1),
    ("float32", "captured", 1),
    ("float16", "captured", 1),
    ("float32", "captured", 2),
    ("float32", "captured", 4),
)
_KINDS = ("encoder", "decoder", "decoder_uint8")


@dataclass(frozen=True)
class Plan:
    """How long everything takes, times in seconds; a part of the full one is less than 10 minutes.

    seconds: of a bucket in a way. compiled: the batches that torch compiles for, which takes long.
    loads: items of a request, and callers.
    """

    seconds: float
    warmup: float
    duration: float
    alternations: int
    buckets: tuple[int, ...] = (1, 2, 4, 8, 16, 32, 64)
    compiled: tuple[int, ...] = (64,)
    loads: tuple[tuple[int, int], ...] = ((1, 1), (1, 64), (64, 4), (64, 16))


FULL = Plan(0.12, 0.3, 1.2, 100_000)
QUICK = Plan(0.05, 0.1, 0.5, 1_000, buckets=(1, 8, 64), loads=((1, 16), (64, 4)))


@dataclass
class Results:
    """What was seen, and what could not be measured."""

    latency: list[Latency] = field(default_factory=list)
    service: list[Served] = field(default_factory=list)
    memory: list[Memory] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def measure(
    plan: Plan,
    provider: Literal["cuda", "cpu"],
    parts: Sequence[str],
    folder: Path,
    what: str,
    say: Callable[[str], None],
) -> Path:
    """Measures, says the tables, and writes FOLDER/DATE-WHAT.json; returns its path.

    Raises BenchmarkError where there is no GPU, or onnxruntime has no CUDA.
    """
    on_cuda = provider == "cuda"
    gpu = read_gpu() if on_cuda else None
    try:
        options = SessionOptions(choose_provider(provider), threads=1)
    except ProviderError as error:
        raise BenchmarkError(str(error)) from error
    about: dict[str, Any] = {
        "date": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "gpu": None if gpu is None else asdict(gpu),
        "machine": describe_machine(),
        "versions": installed(_PACKAGES),
        "git": describe_commit(),
        "plan": asdict(plan),
    }
    results = Results()
    with tempfile.TemporaryDirectory(prefix="models-") as name:
        repository = Path(name)
        build_repository(repository, precisions=("float16",))
        if "latency" in parts:
            for model in MODELS:
                _latency(plan, model, repository, options, on_cuda, results)
            say(device_runs.table(results.latency))
        if "service" in parts:
            for precision, runs, processes in _SERVICES if on_cuda else _SERVICES[:1]:
                arguments = ["--provider", provider, "--precision", precision, "--cuda-runs", runs]
                with running(repository, arguments, processes=processes) as server:
                    results.service += device_service.measure(
                        server,
                        processes,
                        precision,
                        runs,
                        plan.loads,
                        plan.warmup,
                        plan.duration,
                        on_cuda,
                    )
            say(device_service.table(results.service))
        if "memory" in parts:
            for model in MODELS:
                version = read_version(repository, model.name, 1)
                results.memory.append(
                    device_memory.measure(
                        version, options, plan.buckets, plan.alternations, on_cuda
                    )
                )
            say(device_memory.table(results.memory))
    for note in results.notes:
        say(f"note: {note}")
    path = new_path(folder, f"{about['date'][:10]}-{what}")
    path.write_text(json.dumps(about | asdict(results), indent=1, allow_nan=False) + "\n")
    return path


def _latency(
    plan: Plan,
    model: BenchModel,
    repository: Path,
    options: SessionOptions,
    on_cuda: bool,
    results: Results,
) -> None:
    """The service's ways, and onnxruntime's own best; for decoders also torch."""

    def measured(
        label: str, ways: Mapping[str, Callable[[], Make]], buckets: Sequence[int]
    ) -> list[Latency]:
        note = results.notes.append
        return device_runs.measure(model.name, label, ways, buckets, plan.seconds, note)

    for precision in PRECISIONS:
        graphs = read_version(repository, model.name, 1, precision).graphs
        for kind in _KINDS:
            graph, label = graphs[kind], f"{kind}, {precision}"
            ways: dict[str, Callable[[], Make]] = {
                **device_runs.service_ways(graph, options, plan.buckets),
                NO_COPIES: partial(device_runs.without_copies, graph, options.provider),
            }
            compiled = {TORCH: partial(device_runs.by_torch, model, precision, on_cuda)}
            results.latency += measured(label, ways, plan.buckets)
            if kind == "decoder":
                results.latency += measured(label, compiled, plan.compiled)
