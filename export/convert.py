"""The way from a run to a published model version."""

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from export.checks import check_graph
from export.errors import ExportError
from export.graphs import Graph, trace_graphs
from export.manifest import build_manifest, manifest_json
from export.parity import Parity, measure
from export.publish import check_name, publish
from training.checkpoint import Run
from training.data import Dataset

# Whose prior is the standard normal noise itself, and whose decoder takes latents alone.
_SERVED: Final = ("mlp", "conv", "autoencoder", "perceptual")


@dataclass(frozen=True)
class Version:
    """A published version: its directory, its graphs and their parity by kind."""

    path: Path
    graphs: tuple[Graph, ...]
    parity: dict[str, Parity]


def export_run(run: Run, repository: Path, name: str, data_path: str | None = None) -> Version:
    """Publish `run` as the next version of model `name`.

    The run's data set, on which agreement is measured, is read from `data_path` or from where it
    lay when the run was fitted.

    Nothing is written before the graphs have passed every check. Raises ExportError if the name,
    a graph, its agreement with torch or the repository is at fault, and TrainingError if the
    data set cannot be read or is another one.
    """
    check_name(name)
    dataset = run.dataset(data_path)
    _check_served(run, dataset)
    observations = dataset.observations("test")
    graphs = trace_graphs(run.model, name, run.config.preset)
    for graph in graphs:
        check_graph(graph)
    parity = measure(graphs, observations)

    def manifest(version: int) -> bytes:
        return manifest_json(build_manifest(run, graphs, parity, name, version))

    files = {graph.file: graph.content for graph in graphs}
    return Version(publish(repository, name, files, manifest), graphs, parity)


def _check_served(run: Run, dataset: Dataset) -> None:
    """Raises ExportError for a model that an encoder and a decoder alone would serve wrongly."""
    family = run.model.family
    if family not in _SERVED:
        raise ExportError(
            f"family {family} cannot be exported yet: its prior or its decoder is no graph so far; "
            f"those that can are {', '.join(_SERVED)}"
        )
    if dataset.maximum is None:
        raise ExportError(f"{dataset.name} is no images: only observations from 0 to 1 are served")
