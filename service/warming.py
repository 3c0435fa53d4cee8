"""Warms graphs up, and chooses how they run: inline or not, bound or plain."""

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from service.batching import Arrays, BatchingOptions
from service.bound import BoundRuns
from service.repository import Graph
from service.session import CUDA, GraphError, Session, SessionOptions

_logger = logging.getLogger(__name__)
Run = Callable[[Arrays], Arrays]
_INLINE_ITEMS = 64
_INLINE_SECONDS = 0.001  # for so many items
_CLOSE = 1e-3  # of a float, relative and absolute: what float16 and TensorFloat-32 have


class Disagreement(RuntimeError):
    """Bound runs do not give what plain runs give."""


@dataclass(frozen=True)
class Warm:
    """The runs of a file's graphs by kind, all buckets of which have run.

    inline: whether they are short enough to run on the thread that reads messages. item_seconds:
    of an item in a batch of 64. same_bits: what `gives_same_bits` says.
    """

    runs: Mapping[str, Run]
    inline: bool
    item_seconds: float
    same_bits: bool


def warm_up(
    name: str,
    graphs: Mapping[str, Graph],
    options: SessionOptions,
    batching: BatchingOptions,
    instances: int,
) -> Warm:
    """Loads the file that all of these graphs, by kind, are in. name: of the model, for the log.

    Inline a session has one thread: for less than a millisecond others are not worth waking.
    """
    first = next(iter(graphs.values()))
    inputs = noise(first, batching.max_batch_size)
    items = min(_INLINE_ITEMS, batching.max_batch_size)
    some = {name: array[:items] for name, array in inputs.items()}
    for threads in sorted({1, options.threads}):
        runs = _runs(name, graphs, replace(options, threads=threads), batching.buckets)
        run = next(iter(runs.values()))
        seconds = _seconds(run, some)
        inline = batching.max_queue_delay == 0 and instances == 1 and seconds < _INLINE_SECONDS
        if inline:
            break
    same_bits = gives_same_bits(run, inputs, batching.buckets)
    return Warm(runs, inline, seconds / items, same_bits)


def _runs(
    name: str, graphs: Mapping[str, Graph], options: SessionOptions, buckets: Sequence[int]
) -> Mapping[str, Run]:
    first = next(iter(graphs.values()))
    title = f"{name}.{next(iter(graphs))}"
    session, whole = _load(title, first, options)
    plain = {kind: session.giving(graph.output_names).run for kind, graph in graphs.items()}
    if options.provider != CUDA or options.cuda_runs == "plain" or not whole:
        return plain

    def load(capture: bool) -> BoundRuns:
        return Session(first.content, first.output_names, options, capture=capture).bound()

    capture = options.cuda_runs == "captured"
    return bound_or_plain(title, plain, first, load, buckets, capture=capture)


def _load(title: str, graph: Graph, options: SessionOptions) -> tuple[Session, bool]:
    """A session, and whether the provider runs all of it: CUDA may leave nodes to the CPU.

    Raises GraphError if the graph is at fault.
    """
    try:
        return Session(graph.content, graph.output_names, options), True
    except GraphError as error:
        if options.provider != CUDA:
            raise
        session = Session(graph.content, graph.output_names, options, cpu_nodes=True)
        _logger.warning("%s runs in part on the CPU, and without CUDA graphs: %s", title, error)
        return session, False


def bound_or_plain(
    name: str,
    plain: Mapping[str, Run],
    graph: Graph,
    load: Callable[[bool], BoundRuns],
    buckets: Sequence[int],
    *,
    capture: bool = True,
) -> Mapping[str, Run]:
    """Bound runs, with capture as CUDA graphs, that have proven to do what plain runs do.

    Anything that a device, a driver or a graph does not do ends in a warning and in plain runs,
    which are faster than bound ones without CUDA graphs. load: what gives bound runs of a session
    of their own, with capture or without: a capture that fails may leave its session unusable.
    """
    try:
        bound = load(capture)
        return {kind: proven(bound, run, graph, buckets) for kind, run in plain.items()}
    except Exception as error:  # noqa: BLE001 - a load's boundary: there is another way to run
        missing = "CUDA graphs" if capture else "bound buffers"
        _logger.warning("%s runs without %s: %s", name, missing, error)
        return plain


def proven(bound: BoundRuns, plain: Run, graph: Graph, buckets: Sequence[int]) -> Run:
    """A bound run that gives what the plain run gives: twice, in every bucket, once all are bound.

    Raises Disagreement if it does not, and whatever a run raises.
    """
    batches = [noise(graph, bucket, seed) for seed in (0, 1) for bucket in buckets]
    answers = [plain(inputs) for inputs in batches]
    examples = list(zip(batches, answers, strict=True))
    run = bound.bind(examples[: len(buckets)])
    for inputs, expected in examples:
        actual = run(inputs)
        for name, array in expected.items():
            if not _close(actual[name], array):
                raise Disagreement(f"{name} of {len(array)} items differ from those of a plain run")
    return run


def _close(actual: NDArray[np.generic], expected: NDArray[np.generic]) -> bool:
    """Whether floats are within _CLOSE, levels of uint8 within one, and codes the same."""
    if actual.dtype != expected.dtype or actual.shape != expected.shape:
        return False
    if np.issubdtype(expected.dtype, np.floating):
        return np.allclose(actual, expected, rtol=_CLOSE, atol=_CLOSE, equal_nan=True)
    allowed = 1 if expected.dtype == np.uint8 else 0
    distance = np.subtract(actual, expected, dtype=np.int64)
    return bool(np.all(np.abs(distance) <= allowed))


def gives_same_bits(run: Run, inputs: Arrays, buckets: Sequence[int]) -> bool:
    """Whether a graph gives an item the same bits in a batch of every size, first and last in it.

    inputs: arrays [largest bucket, ...] by name. Runs every bucket, so it warms up too. A
    measurement on this machine, not a proof: kernels choose their order of additions by sizes.
    """
    whole = run(inputs)
    largest = buckets[-1]

    def agree(part: Arrays, rows: slice) -> bool:
        return all(np.array_equal(part[name], whole[name][rows], equal_nan=True) for name in whole)

    slices = [slice(None, None, -1)]
    for bucket in buckets[:-1]:
        slices += [slice(0, bucket), slice(largest - bucket, largest)]
    parts = [run({name: array[rows].copy() for name, array in inputs.items()}) for rows in slices]
    return all(agree(part, rows) for part, rows in zip(parts, slices, strict=True))


def noise(graph: Graph, items: int, seed: int = 0) -> Arrays:
    """Inputs for so many items: noise where numbers go, and the first of codes and labels."""
    random = np.random.default_rng(seed)
    inputs: dict[str, NDArray[np.generic]] = {}
    for spec in graph.inputs:
        array = spec.zeros(items)
        if spec.dtype == np.uint8:
            array = random.integers(0, 256, array.shape, np.uint8)
        elif spec.dtype == np.float32:
            array = random.random(array.shape, np.float32)
        inputs[spec.name] = array
    return inputs


def _seconds(run: Run, inputs: Arrays) -> float:
    """The shortest of three runs."""
    durations = []
    for _ in range(3):
        started = time.perf_counter()
        run(inputs)
        durations.append(time.perf_counter() - started)
    return min(durations)
