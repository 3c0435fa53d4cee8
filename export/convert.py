"""The way from a run to a published model version."""

from dataclasses import dataclass
from pathlib import Path

from export.checks import check_graph
from export.graphs import Graph, trace_graphs
from export.manifest import build_manifest, manifest_json
from export.parity import Parity, measure, measure_elbo
from export.publish import check_name, publish
from training.checkpoint import Run


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
    observations, labels = dataset.observations("test"), dataset.test_labels
    pixels = dataset.maximum is not None
    graphs = trace_graphs(run.model, name, run.config.preset, pixels=pixels)
    for graph in graphs:
        check_graph(graph)
    parity = measure(graphs, observations, labels=labels)
    scorer = next((graph for graph in graphs if graph.kind == "scorer"), None)
    elbo = None if scorer is None else measure_elbo(scorer, observations, labels)

    def manifest(version: int) -> bytes:
        described = build_manifest(
            run, graphs, parity, name, version, label_names=dataset.label_names, elbo=elbo
        )
        return manifest_json(described)

    files = {graph.file: graph.content for graph in graphs}
    return Version(publish(repository, name, files, manifest), graphs, parity)
