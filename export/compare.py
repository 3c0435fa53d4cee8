"""How two versions differ: their latent spaces, and their outputs for the same inputs."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from vae.manifest.v1 import manifest_pb2

from export.errors import ExportError
from export.stored import StoredVersion, value_of

ITEMS = 64
_SEED = 20131220
_Array = NDArray[np.generic]


@dataclass(frozen=True)
class Difference:
    """Of one output of one graph of both versions, over `ITEMS` items.

    largest and mean are absolute; relative is the root mean square of the difference as a share of
    that of the first version's output.
    """

    file: str
    output: str
    largest: float
    mean: float
    relative: float


@dataclass(frozen=True)
class Comparison:
    """latent_space: whether both understand each other's latents. weights: whether the checkpoint
    is the same. alone: files that only one version has. not_comparable: files and why."""

    latent_space: bool
    weights: bool
    differences: tuple[Difference, ...]
    alone: tuple[str, ...]
    not_comparable: tuple[str, ...]

    def table(self) -> str:
        """For people."""
        lines = [
            f"  latent space  {'the same' if self.latent_space else 'different'}",
            f"  weights       {'the same' if self.weights else 'different'}",
            "",
            f"  {'graph':<24} {'output':<20} {'largest':>9} {'mean':>9} {'relative':>9}",
        ]
        lines += [
            f"  {each.file:<24} {each.output:<20} {each.largest:>9.2e} {each.mean:>9.2e}"
            f" {each.relative:>9.2e}"
            for each in self.differences
        ]
        lines += [f"  {file:<24} only one version has it" for file in self.alone]
        return "\n".join([*lines, *(f"  {reason}" for reason in self.not_comparable)])


def compare(first: StoredVersion, second: StoredVersion) -> Comparison:
    """Run each graph that both have in onnxruntime, on the same inputs from a fixed seed.

    Observations are uniform over the value range (standard normal where that has no end), codes and
    labels uniform over what both know; noise and latents are standard normal. Raises ExportError if
    a file cannot be read or run.
    """
    ours = {graph.file: graph for graph in first.manifest.graphs}
    theirs = {graph.file: graph for graph in second.manifest.graphs}
    differences: list[Difference] = []
    not_comparable: list[str] = []
    for file in ours.keys() & theirs.keys():
        a, b = ours[file], theirs[file]
        if (list(a.inputs), list(a.outputs)) != (list(b.inputs), list(b.outputs)):
            not_comparable.append(f"{file:<24} takes or gives something else")
            continue
        feeds = _feeds(a, first.manifest, second.manifest)
        differences += _differences(file, _run(first, a, feeds), _run(second, b, feeds))
    return Comparison(
        first.manifest.latent_space == second.manifest.latent_space,
        first.manifest.checkpoint_sha256 == second.manifest.checkpoint_sha256,
        tuple(sorted(differences, key=lambda each: (each.file, each.output))),
        tuple(sorted(ours.keys() ^ theirs.keys())),
        tuple(sorted(not_comparable)),
    )


def _feeds(
    graph: manifest_pb2.Graph, first: manifest_pb2.Manifest, second: manifest_pb2.Manifest
) -> dict[str, _Array]:
    random = np.random.default_rng(_SEED)
    limits = {
        "label": min(len(first.labels), len(second.labels)),
        "latents": min(first.code_count, second.code_count),
    }
    feeds: dict[str, _Array] = {}
    for value in map(value_of, graph.inputs):
        shape = (ITEMS, *value.shape)
        if value.data_type == "uint8":
            feeds[value.name] = random.integers(0, 256, shape, np.uint8)
        elif value.data_type == "int64":
            feeds[value.name] = random.integers(0, max(1, limits.get(value.name, 1)), shape)
        elif value.name == "observations" and np.isfinite(first.value_range.maximum):
            low, high = first.value_range.minimum, first.value_range.maximum
            feeds[value.name] = random.uniform(low, high, shape).astype(np.float32)
        else:
            feeds[value.name] = random.standard_normal(shape, np.float32)
    return feeds


def _run(
    version: StoredVersion, graph: manifest_pb2.Graph, feeds: dict[str, _Array]
) -> dict[str, _Array]:
    content = version.read(graph)
    names = [spec.name for spec in graph.outputs]
    try:
        session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
        return dict(zip(names, session.run(names, feeds), strict=True))
    except Exception as error:  # onnxruntime's errors have no class in common
        reason = str(error).strip().partition("\n")[0]
        raise ExportError(f"{version}/{graph.file} does not run: {reason}") from error


def _differences(
    file: str, ours: dict[str, _Array], theirs: dict[str, _Array]
) -> Iterator[Difference]:
    for output, mine in ours.items():
        a, b = mine.astype(np.float64), theirs[output].astype(np.float64)
        distance = np.abs(a - b)
        size = float(np.sqrt(np.square(a).mean()))
        relative = (
            float(np.sqrt(np.square(distance).mean())) / size if size else float(distance.any())
        )
        yield Difference(file, output, float(distance.max()), float(distance.mean()), relative)
