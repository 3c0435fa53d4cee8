"""How long batches take on a device, run in the ways that there are.

plain, bound and captured are the service's own (`service.warming`): a batch comes from numpy arrays
and its outputs go there. "captured, pageable" is captured without pinned memory for the answers
(`service.pinned`). "onnxruntime, no copies" replays a CUDA graph on buffers of the device and
copies nothing: what is left is what the GPU computes. torch.compile copies as the service does.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import onnxruntime
import torch

from benchmarks.errors import BenchmarkError
from benchmarks.loops import percentile
from benchmarks.models import BenchModel, fresh_model
from service.batching import Arrays
from service.repository import Graph
from service.session import CUDA, Session, SessionOptions
from service.warming import noise, proven

PLAIN, BOUND, CAPTURED, PAGEABLE = "plain", "bound", "captured", "captured, pageable"
NO_COPIES, TORCH = "onnxruntime, no copies", "torch.compile"
Make = Callable[[int], Callable[[], object]]  # by items of a batch, what runs one


@dataclass(frozen=True)
class Latency:
    """Milliseconds of batches of so many items. graph: its kind and its precision."""

    model: str
    graph: str
    way: str
    items: int
    p50_ms: float
    p99_ms: float


def timed(run: Callable[[], object], seconds: float) -> tuple[float, float]:
    """Median and 99th percentile of a run in milliseconds, after a fifth as long to warm up."""
    durations: list[float] = []
    for limit in (seconds / 5, seconds):
        durations.clear()
        end = time.perf_counter() + limit
        while (started := time.perf_counter()) < end or not durations:
            run()
            durations.append(1000 * (time.perf_counter() - started))
    durations.sort()
    return percentile(durations, 50), percentile(durations, 99)


def service_ways(
    graph: Graph, options: SessionOptions, buckets: Sequence[int]
) -> Mapping[str, Callable[[], Make]]:
    """By name, what loads the graph in each of the service's ways."""

    def plain() -> Make:
        return _on_noise(graph, Session(graph.content, graph.output_names, options).run)

    def bound(capture: bool, pinned: bool = True) -> Make:
        unbound = Session(graph.content, graph.output_names, options).run
        session = Session(graph.content, graph.output_names, options, capture=capture)
        return _on_noise(graph, proven(session.bound(pinned=pinned), unbound, graph, buckets))

    return {
        PLAIN: plain,
        BOUND: partial(bound, False),
        CAPTURED: partial(bound, True),
        PAGEABLE: partial(bound, True, pinned=False),
    }


def _on_noise(graph: Graph, run: Callable[[Arrays], Arrays]) -> Make:
    return lambda items: partial(run, noise(graph, items))


def without_copies(graph: Graph, provider: str) -> Make:
    """onnxruntime on buffers of the device; with CUDA as a graph that this thread captures."""
    on_cuda = provider == CUDA
    options = {"cudnn_conv_algo_search": "HEURISTIC", "enable_cuda_graph": "1"} if on_cuda else {}
    session = onnxruntime.InferenceSession(graph.content, providers=[(provider, options)])
    if session.get_providers()[0] != provider:
        raise BenchmarkError(f"{provider} did not come up")
    device = "cuda" if on_cuda else "cpu"

    def make(items: int) -> Callable[[], object]:
        binding = session.io_binding()
        for name, array in noise(graph, items).items():
            value = onnxruntime.OrtValue.ortvalue_from_numpy(array, device, 0)
            binding.bind_ortvalue_input(name, value)
        for spec in graph.outputs:
            value = onnxruntime.OrtValue.ortvalue_from_shape_and_type(
                [items, *spec.shape], spec.dtype, device, 0
            )
            binding.bind_ortvalue_output(spec.name, value)
        run_options = onnxruntime.RunOptions()
        run_options.add_run_config_entry("gpu_graph_id", str(items))
        return partial(session.run_with_iobinding, binding, run_options)

    return make


def by_torch(model: BenchModel, precision: str, on_cuda: bool) -> Make:
    """The same decoder compiled by torch, whose mode "reduce-overhead" makes CUDA graphs.

    On the CPU, where this is a rehearsal, it is not compiled.
    """
    device = torch.device("cuda" if on_cuda else "cpu")
    dtype = {"float32": torch.float32, "float16": torch.float16}[precision]
    vae = fresh_model(model).to(device, dtype)
    decode = (
        torch.compile(vae.decode, mode="reduce-overhead", dynamic=False) if on_cuda else vae.decode
    )

    def make(items: int) -> Callable[[], object]:
        latents = np.random.default_rng(0).standard_normal(
            (items, model.latent_size), dtype=np.float32
        )

        def run() -> object:
            with torch.inference_mode():
                on_device = torch.from_numpy(latents).to(device, dtype)
                return decode(on_device).float().cpu().numpy()

        return run

    return make


def measure(
    model: str,
    graph: str,
    ways: Mapping[str, Callable[[], Make]],
    buckets: Sequence[int],
    seconds: float,
    note: Callable[[str], None],
) -> list[Latency]:
    """Every way in every bucket. A way that fails ends in a note; the others go on."""
    latencies: list[Latency] = []
    for way, load in ways.items():
        try:
            make = load()
            latencies += [
                Latency(model, graph, way, items, *timed(make(items), seconds)) for items in buckets
            ]
        except Exception as error:  # noqa: BLE001 - a peer or a driver; the results say why
            note(f"{model} {graph}, {way}: {type(error).__name__}: {error}")
    return latencies


def table(latencies: Sequence[Latency]) -> str:
    """p50 in ms: a line for each bucket of a graph, a column for each way."""
    ways = list(dict.fromkeys(latency.way for latency in latencies))
    cells = {(each.model, each.graph, each.items, each.way): each.p50_ms for each in latencies}
    rows = list(dict.fromkeys((each.model, each.graph, each.items) for each in latencies))
    lines = ["| model | graph | items | " + " | ".join(f"{way}, ms" for way in ways) + " |"]
    lines.append("| --- " * (3 + len(ways)) + "|")
    for row in rows:
        found = [cells.get((*row, way)) for way in ways]
        shown = ["" if value is None else f"{value:.3f}" for value in found]
        lines.append("| " + " | ".join([*map(str, row), *shown]) + " |")
    return "\n".join(lines)
