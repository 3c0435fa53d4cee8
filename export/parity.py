"""Proof that onnxruntime computes what torch computes, on real observations."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import cast

import numpy as np
import onnxruntime
import torch
from numpy.typing import NDArray

from export.errors import ExportError
from export.graphs import Graph

BATCH_SIZES = (1, 2, 3, 17, 64)
_SEED = 20131220
Array = NDArray[np.float32]


def default_tolerances() -> dict[str, float]:
    """Largest absolute difference per output name: 1e-4 for each.

    Observations lie in [0, 1]; latents, mean and log_variance are a few units large, where
    float32 leaves about 1e-6.
    """
    return dict.fromkeys(("observations", "latents", "mean", "log_variance"), 1e-4)


@dataclass(frozen=True)
class Parity:
    """Largest absolute difference per output of one graph, over all batches and items."""

    kind: str
    errors: Mapping[str, float]
    tolerances: Mapping[str, float]

    @property
    def max_absolute_error(self) -> float:
        """The largest error of any output."""
        return max(self.errors.values())

    @property
    def tolerance(self) -> float:
        """The smallest tolerance of any output, which bounds nothing that was refused."""
        return min(self.tolerances[name] for name in self.errors)

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
        feeds = {
            value.name: items
            if value.name == "observations"
            else random.standard_normal((batch, *value.shape), dtype=np.float32)
            for value in graph.inputs
        }
        actual = session.run(names, feeds)
        for name, ours, theirs in zip(names, _torch_outputs(graph, feeds), actual, strict=True):
            errors[name] = max(errors[name], _difference(ours, theirs))
    return Parity(graph.kind, errors, tolerances)


def _torch_outputs(graph: Graph, feeds: Mapping[str, Array]) -> list[Array]:
    with torch.inference_mode():
        outputs = graph.module(*(torch.from_numpy(feed) for feed in feeds.values()))
    tensors = outputs if isinstance(outputs, tuple) else (outputs,)
    return [cast("Array", tensor.numpy()) for tensor in tensors]


def _difference(ours: Array, theirs: Array) -> float:
    """max |ours - theirs|; infinite if a shape or a number cannot be compared."""
    if ours.shape != theirs.shape:
        return float("inf")
    largest = float(np.abs(ours.astype(np.float64) - theirs).max())
    return largest if np.isfinite(largest) else float("inf")
