"""Proof that onnxruntime computes what torch computes, on real observations."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import cast

import numpy as np
import onnxruntime
import torch
from numpy.typing import NDArray

from export.errors import ExportError
from export.graphs import Graph, Value
from export.modules import LEVELS

BATCH_SIZES = (1, 2, 3, 17, 64)
ELBO_ITEMS = 1000
_SEED = 20131220
_CODES = "codes"  # stands for latents of int64, whose error is the share of those that differ
_TIES = 0.02
_ELBO_BATCH = 100
Array = NDArray[np.float32]
Labels = NDArray[np.int64]


def default_tolerances() -> dict[str, float]:
    """Largest difference per output name: 1e-4 for what lies in [0, 1] or is a few units large,
    where float32 leaves about 1e-6, and 0.01 nats for a score, a sum over all dims.

    An observation in uint8 is half a level off by itself. Of latents that are codes it is the share
    of different ones: a tie within float32's error falls either way, and one in a prior changes
    what it draws after it, which is all of an item at worst and less than 0.02 of those compared.
    """
    tolerances = dict.fromkeys(("observations", "latents", "mean", "log_variance"), 1e-4)
    tolerances |= dict.fromkeys(("rate", "distortion", "log_weight"), 0.01)
    return tolerances | {"observations_uint8": 0.5 / LEVELS + 1e-4, _CODES: _TIES}


@dataclass(frozen=True)
class Parity:
    """Largest absolute difference per output of one graph, over all batches and items."""

    kind: str
    errors: Mapping[str, float]
    tolerances: Mapping[str, float]

    @property
    def max_absolute_error(self) -> float:
        """The largest error of any float32 output, 0 without one."""
        return max((self.errors[name] for name in self._float32), default=0.0)

    @property
    def tolerance(self) -> float:
        """The smallest tolerance of any float32 output, which bounds nothing that was refused."""
        return min((self.tolerances[name] for name in self._float32), default=0.0)

    @property
    def different_codes(self) -> float:
        """The share of codes that differ; 0 without codes."""
        return self.errors.get(_CODES, 0.0)

    @property
    def different_codes_tolerance(self) -> float:
        """The largest share that would not be refused; 0 without codes."""
        return self.tolerances[_CODES] if _CODES in self.errors else 0.0

    @property
    def failures(self) -> list[str]:
        """A phrase per output beyond its tolerance."""
        return [
            f"{self.kind} output {name} differs by {error:.3g} (tolerance {self.tolerances[name]})"
            for name, error in self.errors.items()
            if error > self.tolerances[name]
        ]

    @property
    def _float32(self) -> list[str]:
        return [name for name in self.errors if not _is_uint8(name) and name != _CODES]


@dataclass(frozen=True)
class ElboParity:
    """Mean ELBO in nats of the same items and noise, through onnxruntime and through torch."""

    onnxruntime: float
    torch: float
    items: int
    tolerance: float


def measure(
    graphs: Iterable[Graph],
    observations: Array,
    tolerances: Mapping[str, float] | None = None,
    labels: Labels | None = None,
) -> dict[str, Parity]:
    """Compare each graph with its module at batches of 1, 2, 3, 17 and 64; parity by kind.

    `observations` [N, C, H, W] float32 are taken in turn with their labels [N]; noise and latents
    are standard normal from a fixed seed, and codes are uniform. Raises ExportError with every
    output of every graph whose difference is beyond its tolerance or not finite, or whose shape
    differs.
    """
    tolerances = default_tolerances() if tolerances is None else tolerances
    results: dict[str, Parity] = {
        graph.kind: _measure(graph, _Items(observations, labels), tolerances) for graph in graphs
    }
    failures = [failure for parity in results.values() for failure in parity.failures]
    if failures:
        raise ExportError(f"onnxruntime disagrees with torch: {'; '.join(failures)}")
    return results


def measure_elbo(
    scorer: Graph, observations: Array, labels: Labels | None = None, tolerance: float = 0.01
) -> ElboParity:
    """The mean ELBO of the first 1000 `observations`, one draw each from a fixed seed.

    Raises ExportError if it differs by more than `tolerance` nats from that of the scorer's module.
    """
    session = _session(scorer)
    random = np.random.default_rng(_SEED)
    items = _Items(observations, labels)
    count = min(ELBO_ITEMS, len(observations))
    ours = theirs = 0.0
    for start in range(0, count, _ELBO_BATCH):
        feeds = items.feeds(scorer, start, min(_ELBO_BATCH, count - start), random)
        rate, distortion = session.run(["rate", "distortion"], feeds)
        theirs -= float((rate.astype(np.float64) + distortion).sum()) / count
        expected = _torch_outputs(scorer, feeds)
        ours -= float((expected["rate"].astype(np.float64) + expected["distortion"]).sum()) / count
    if not abs(ours - theirs) <= tolerance:  # NaN is not either
        raise ExportError(
            f"the ELBO of {count} test items is {theirs:.4f} nats through onnxruntime and "
            f"{ours:.4f} through torch (tolerance {tolerance})"
        )
    return ElboParity(theirs, ours, count, tolerance)


def elbo_percentiles(
    scorer: Graph, observations: Array, labels: Labels | None = None
) -> list[float]:
    """The 0th to 100th percentiles of the ELBO in nats of at most 1000 items, spread evenly over
    `observations`, through onnxruntime with one draw each from a fixed seed."""
    session = _session(scorer)
    random = np.random.default_rng(_SEED)
    rows = np.linspace(0, len(observations) - 1, min(ELBO_ITEMS, len(observations))).round()
    chosen = rows.astype(np.int64)
    items = _Items(observations[chosen], None if labels is None else labels[chosen])
    elbos: list[Array] = []
    for start in range(0, len(chosen), _ELBO_BATCH):
        feeds = items.feeds(scorer, start, min(_ELBO_BATCH, len(chosen) - start), random)
        rate, distortion = session.run(["rate", "distortion"], feeds)
        elbos.append(-(rate + distortion))
    percentiles: list[float] = np.percentile(np.concatenate(elbos), np.arange(101)).tolist()
    return percentiles


@dataclass(frozen=True)
class _Items:
    """What graphs are fed with: real items where they take them."""

    observations: Array
    labels: Labels | None

    def feeds(
        self, graph: Graph, start: int, batch: int, random: np.random.Generator
    ) -> dict[str, NDArray[np.generic]]:
        """The inputs of `batch` items from `start` on; after the last comes the first."""
        rows = range(start, start + batch)
        return {value.name: self._feed(value, rows, random) for value in graph.inputs}

    def _feed(self, value: Value, rows: range, random: np.random.Generator) -> NDArray[np.generic]:
        shape = (len(rows), *value.shape)
        if value.name in ("observations", "observations_uint8"):
            items = self.observations.take(rows, axis=0, mode="wrap")
            return np.rint(items * LEVELS).astype(np.uint8) if _is_uint8(value.name) else items
        if value.name == "label" and self.labels is not None:
            return self.labels.take(rows, mode="wrap")
        if value.data_type == "int64":
            return random.integers(0, value.limit, shape)
        return random.standard_normal(shape, dtype=np.float32)


def _measure(graph: Graph, items: _Items, tolerances: Mapping[str, float]) -> Parity:
    session = _session(graph)
    random = np.random.default_rng(_SEED)
    names = [value.name for value in graph.outputs]
    errors = {_error_name(value): 0.0 for value in graph.outputs}
    start = 0
    for batch in BATCH_SIZES:
        feeds = items.feeds(graph, start, batch, random)
        start += batch
        actual = session.run(names, feeds)
        expected = _torch_outputs(graph, feeds)
        for value, theirs in zip(graph.outputs, actual, strict=True):
            name = _error_name(value)
            errors[name] = max(errors[name], _difference(expected[value.name], theirs))
    return Parity(graph.kind, errors, tolerances)


def _session(graph: Graph) -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(graph.content, providers=["CPUExecutionProvider"])


def _error_name(value: Value) -> str:
    return _CODES if value.data_type == "int64" else value.name


def _is_uint8(name: str) -> bool:
    return name.endswith("_uint8")


def _torch_outputs(graph: Graph, feeds: Mapping[str, NDArray[np.generic]]) -> dict[str, Array]:
    """What torch computes, by output name; for an output in uint8, what it stands for."""
    with torch.inference_mode():
        outputs = graph.module(*(torch.from_numpy(feed) for feed in feeds.values()))
    tensors = outputs if isinstance(outputs, tuple) else (outputs,)
    names = [value.name for value in graph.outputs if value.data_type != "uint8"]
    arrays = {
        name: cast("Array", tensor.numpy()) for name, tensor in zip(names, tensors, strict=True)
    }
    return arrays | {f"{name}_uint8": array for name, array in arrays.items()}


def _difference(ours: Array, theirs: NDArray[np.generic]) -> float:
    """max |ours - theirs|, or the share of different codes; infinite if a shape or a number cannot
    be compared."""
    if ours.shape != theirs.shape:
        return float("inf")
    if theirs.dtype == np.int64:
        return float((ours != theirs).mean())
    if theirs.dtype == np.uint8:
        theirs = theirs.astype(np.float32) / LEVELS
    largest = float(np.abs(ours.astype(np.float64) - theirs.astype(np.float64)).max())
    return largest if np.isfinite(largest) else float("inf")
