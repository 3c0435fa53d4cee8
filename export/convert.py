"""The way from a run to a published model version."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from vae.manifest.v1 import manifest_pb2

from export.checks import check_graph
from export.graphs import Graph, Precision, trace_graphs
from export.manifest import build_manifest, describe_graph, manifest_json
from export.measurements import add_measurements
from export.objects import publish_objects
from export.parity import elbo_percentiles, measure, measure_elbo
from export.precision import convert
from export.publish import check_name, publish
from export.storage import Location, local_path, locate
from training.checkpoint import Run


@dataclass(frozen=True)
class Version:
    """A version, its graphs in float32, and where it was published: None for a dry run.

    refusals: why files of another precision that were asked for are not in it.
    """

    address: str | None
    manifest: manifest_pb2.Manifest
    graphs: tuple[Graph, ...]
    refusals: Mapping[str, str]


def export_run(
    run: Run,
    repository: str | Path,
    name: str,
    data_path: str | None = None,
    *,
    precisions: Iterable[Precision] = (),
    dry_run: bool = False,
) -> Version:
    """Publish `run` as the next version of model `name`; in a dry run do all else.

    The graphs are in float32 and, where they keep their bounds, in `precisions` too.
    `repository` is a path, or a URL that fsspec knows. The run's data set, on which agreement is
    measured, is read from `data_path` or from where it lay when the run was fitted.

    Nothing is written before the graphs have passed every check. Raises ExportError if the name,
    a graph, its agreement with torch or the repository is at fault, and TrainingError if the
    data set cannot be read or is another one.
    """
    check_name(name)
    destination = locate(str(repository))
    dataset = run.dataset(data_path)
    observations, labels = dataset.observations("test"), dataset.test_labels
    pixels = dataset.maximum is not None
    graphs = trace_graphs(run.model, name, run.config.preset, pixels=pixels)
    for graph in graphs:
        check_graph(graph)
    parity = measure(graphs, observations, labels=labels)
    scorer = next((graph for graph in graphs if graph.kind == "scorer"), None)
    elbo = None if scorer is None else measure_elbo(scorer, observations, labels)
    percentiles: list[float] = []
    if scorer is not None:
        trained_on = dataset.observations("train")
        percentiles = elbo_percentiles(scorer, trained_on, dataset.train_labels)
    files = {graph.file: graph.content for graph in graphs}
    description = build_manifest(
        run,
        graphs,
        parity,
        name,
        0,
        label_names=dataset.label_names,
        elbo=elbo,
        elbo_percentiles=percentiles,
    )
    refusals: dict[str, str] = {}
    for precision in precisions:
        variants = convert(graphs, precision, observations, labels)
        refusals |= variants.refusals
        files |= {graph.file: graph.content for graph in variants.graphs}
        description.graphs.extend(
            describe_graph(graph, variants.parity[graph.kind], variants.elbo)
            for graph in variants.graphs
        )
    add_measurements(description, files)

    def manifest(version: int) -> bytes:
        description.version = version
        return manifest_json(description)

    address = None if dry_run else _publish(destination, name, files, manifest)
    return Version(address, description, graphs, refusals)


def _publish(
    repository: Location,
    name: str,
    files: Mapping[str, bytes],
    manifest: Callable[[int], bytes],
) -> str:
    path = local_path(repository.address)
    if path is not None:
        return str(publish(path, name, files, manifest))
    return publish_objects(repository, name, files, manifest).address
