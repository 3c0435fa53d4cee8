"""Proof that onnxruntime computes what torch computes, on real observations."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import cast

import numpy as np
import onnxruntime
import torch
from numpy.typing import NDArray

from export.errors import ExportError
from export.graphs import LEVELS, Graph, Value

BATCH_SIZES = (1, 2, 3, 17, 64)
_SEED = 20131220
Array = NDArray[np.float32]


def default_tolerances() -> dict[str, float]:
    """Largest absolute difference per output name: 1e-4 for each.

    Observations lie in [0, 1]; latents, mean and log_variance are a few units large, where
    float32 leaves about 1e-6. An observation in uint8 is half a level off by itself.
    """
    tolerances = dict.fromkeys(("observations", "latents", "mean", "log_variance"), 1e-4)
    return tolerances | {"observations_uint8": 0.5 / LEVELS + 1e-4}


@dataclass(frozen=True)
class Parity:
    """Largest absolute difference per output of one graph, over all batches and items."""

    kind: str
    errors: Mapping[str, float]
    tolerances: Mapping[str, float]

    @property
    def max_absolute_error(self) -> float:
        """The largest error of any float32 output."""
        return max(error for name, error in self.errors.items() if not _is_uint8(name))

    @property
    def tolerance(self) -> float:
        """The smallest tolerance of any output, which bounds nothing that was refused."""
        return min(self.tolerances[name] for name in self.errors)  # never that of a uint8

    @property
    def failures(self) -> list[str]:
        """A phrase per output beyond its tolerance."""
        return [
            f"{self.kind} output {name} differs by {error:.3g} (tolerance {self.tolerances[name]})"
            for name, error in self.errors.items()
            if error > self.tolerances[name]
        ]


def measure(
    graphs: Iterable[Graph], observations: Array, tolerances: Mapping[str, float] | None = None
) -> dict[str, Parity]:
    """Compare each graph with its module at batches of 1, 2, 3, 17 and 64; parity by kind.

    `observations` [N, C, H, W] float32 in [0, 1] are taken in turn; noise and latents are
    standard normal from a fixed seed. Raises ExportError with every output of every graph whose
    largest absolute difference is beyond its tolerance or not finite, or whose shape differs.
    """
    tolerances = default_tolerances() if tolerances is None else tolerances
    results: dict[str, Parity] = {
        graph.kind: _measure(graph, observations, tolerances) for graph in graphs
    }
    failures = [failure for parity in results.values() for failure in parity.failures]
    if failures:
        raise ExportError(f"onnxruntime disagrees with torch: {'; '.join(failures)}")
    return results


def _measure(graph: Graph, observations: Array, tolerances: Mapping[str, float]) -> Parity:
    session = onnxruntime.InferenceSession(graph.content, providers=["CPUExecutionProvider"])
    random = np.random.default_rng(_SEED)
    names = [value.name for value in graph.outputs]
    errors = dict.fromkeys(names, 0.0)
    start = 0
    for batch in BATCH_SIZES:
        items = observations.take(range(start, start + batch), axis=0, mode="wrap")
        start += batch
        feeds = {value.name: _feed(value, items, random) for value in graph.inputs}
        actual = session.run(names, feeds)
        expected = _torch_outputs(graph, feeds)
        for name, theirs in zip(names, actual, strict=True):
            errors[name] = max(errors[name], _difference(expected[name], theirs))
    return Parity(graph.kind, errors, tolerances)


def _is_uint8(name: str) -> bool:
    return name.endswith("_uint8")


def _feed(value: Value, items: Array, random: np.random.Generator) -> NDArray[np.generic]:
    """Real observations where the graph takes them, standard normal numbers elsewhere."""
    if value.name == "observations":
        return items
    if _is_uint8(value.name):
        return np.rint(items * LEVELS).astype(np.uint8)
    return random.standard_normal((len(items), *value.shape), dtype=np.float32)


def _torch_outputs(graph: Graph, feeds: Mapping[str, NDArray[np.generic]]) -> dict[str, Array]:
    """What torch computes, by output name; for an output in uint8, what it stands for."""
    with torch.inference_mode():
        outputs = graph.module(*(torch.from_numpy(feed) for feed in feeds.values()))
    tensors = outputs if isinstance(outputs, tuple) else (outputs,)
    names = [value.name for value in graph.outputs if value.data_type == "float32"]
    arrays = {
        name: cast("Array", tensor.numpy()) for name, tensor in zip(names, tensors, strict=True)
    }
    return arrays | {f"{name}_uint8": array for name, array in arrays.items()}


def _difference(ours: Array, theirs: Array | NDArray[np.uint8]) -> float:
    """max |ours - theirs|; infinite if a shape or a number cannot be compared."""
    if ours.shape != theirs.shape:
        return float("inf")
    if theirs.dtype == np.uint8:
        theirs = (theirs / LEVELS).astype(np.float32)
    largest = float(np.abs(ours.astype(np.float64) - theirs).max())
    return largest if np.isfinite(largest) else float("inf")
