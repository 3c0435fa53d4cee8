import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from google.protobuf.json_format import Parse
from vae.manifest.v1 import manifest_pb2
from vae.v1 import tensor_pb2

from export.graphs import Graph
from export.manifest import build_manifest, manifest_json
from export.parity import Parity, default_tolerances
from tests.export.conftest import PLAIN
from tests.families import Families
from training.checkpoint import Run

Graphs = Mapping[str, tuple[Graph, ...]]
PARITY = {
    "encoder": Parity("encoder", {"latents": 1e-6, "mean": 3e-6}, default_tolerances()),
    "decoder": Parity(
        "decoder", {"observations": 2e-7, "observations_uint8": 0.002}, default_tolerances()
    ),
    "encoder_uint8": Parity("encoder_uint8", {"latents": 2e-6, "mean": 1e-6}, default_tolerances()),
    "scorer": Parity("scorer", {"rate": 2e-5, "distortion": 4e-4}, default_tolerances()),
    "scorer_uint8": Parity("scorer_uint8", {"rate": 1e-5}, default_tolerances()),
}


@pytest.fixture(params=PLAIN)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def manifest(name: str, runs: Mapping[str, Run], graphs: Graphs) -> manifest_pb2.Manifest:
    """As a reader of the file sees it: unknown fields are an error."""
    content = manifest_json(build_manifest(runs[name], graphs[name], PARITY, "served", 12))
    return Parse(content, manifest_pb2.Manifest())


def test_a_manifest_describes_the_model(
    manifest: manifest_pb2.Manifest, name: str, runs: Mapping[str, Run]
) -> None:
    model = runs[name].config.model
    assert manifest.format_version == 1
    assert (manifest.name, manifest.version) == ("served", 12)
    assert (manifest.family, manifest.likelihood) == (model.family, model.likelihood)
    assert manifest.preset == f"{name}-preset"
    assert manifest.prior == "standard_normal"
    assert (manifest.value_range.minimum, manifest.value_range.maximum) == (0, 1)
    assert list(manifest.labels) == []


def test_a_manifest_describes_observations_and_latents(
    manifest: manifest_pb2.Manifest, name: str, runs: Mapping[str, Run]
) -> None:
    size = runs[name].config.model.latent_size
    float32 = tensor_pb2.DATA_TYPE_FLOAT32
    observations, latents = manifest.observations, manifest.latents
    assert observations == tensor_pb2.TensorSpec(
        name="observations", data_type=float32, shape=[-1, 1, 8, 8]
    )
    assert latents == tensor_pb2.TensorSpec(name="latents", data_type=float32, shape=[-1, size])
    assert [(group.name, list(group.shape)) for group in manifest.latent_groups] == [
        ("latents", [size])
    ]


def test_a_manifest_describes_each_file(
    manifest: manifest_pb2.Manifest, name: str, graphs: Graphs
) -> None:
    for described, graph in zip(manifest.graphs, graphs[name], strict=True):
        assert manifest_pb2.GraphKind.Name(described.kind) == f"GRAPH_KIND_{graph.kind.upper()}"
        assert described.file == f"{graph.kind}.onnx"
        assert described.sha256 == hashlib.sha256(graph.content).hexdigest()
        assert described.size_bytes == len(graph.content)
        assert [spec.name for spec in described.inputs] == [value.name for value in graph.inputs]
        assert [spec.name for spec in described.outputs] == [v.name for v in graph.outputs]
        assert all(spec.shape[0] == -1 for spec in [*described.inputs, *described.outputs])
        assert (described.opset, described.precision) == (20, "float32")


def test_a_manifest_states_the_measured_parity(manifest: manifest_pb2.Manifest) -> None:
    parities = [graph.parity for graph in manifest.graphs]
    assert [parity.max_absolute_error for parity in parities] == [3e-6, 2e-7, 2e-6, 4e-4, 1e-5]
    assert [parity.tolerance for parity in parities] == [1e-4, 1e-4, 1e-4, 0.01, 0.01]
    assert {parity.different_codes_tolerance for parity in parities} == {0}
    assert list(parities[0].batch_sizes) == [1, 2, 3, 17, 64]


def published(families: Families, name: str) -> manifest_pb2.Manifest:
    path = Path(str(families.version(name).address)) / "manifest.json"
    return Parse(path.read_bytes(), manifest_pb2.Manifest())


def test_a_ladder_names_the_parts_of_its_latents(families: Families) -> None:
    manifest = published(families, "ladder")
    groups = [(group.name, list(group.shape)) for group in manifest.latent_groups]
    assert groups == [("1x1_0", [5, 1, 1]), ("4x4_0", [1, 4, 4])]
    assert list(manifest.latents.shape) == [-1, 5 + 16]
    assert manifest.prior == "graph"


def test_latents_that_are_codes_are_int64_below_their_count(families: Families) -> None:
    manifest = published(families, "vq")
    assert manifest.latents.data_type == tensor_pb2.DATA_TYPE_INT64
    assert list(manifest.latents.shape) == [-1, 2, 2]
    assert (manifest.code_count, manifest.prior) == (7, "graph")
    [prior] = [graph for graph in manifest.graphs if graph.file == "prior.onnx"]
    assert prior.parity.different_codes == 0 < prior.parity.different_codes_tolerance
    assert list(prior.inputs[0].shape) == [-1, 2, 2, 7]


def test_a_conditional_model_names_its_labels(families: Families) -> None:
    manifest = published(families, "conditional")
    assert list(manifest.labels) == list("0123456789")
    assert manifest.prior == "graph"
    for graph in manifest.graphs:
        label = graph.inputs[-1]
        assert (label.name, list(label.shape)) == ("label", [-1])
        assert label.data_type == tensor_pb2.DATA_TYPE_INT64


def test_other_models_name_no_labels_and_no_codes(families: Families) -> None:
    manifest = published(families, "perceptual")
    assert not manifest.labels
    assert manifest.code_count == 0


def test_observations_that_are_no_pixels_have_no_bounds(families: Families) -> None:
    value_range = published(families, "numbers").value_range
    assert (value_range.minimum, value_range.maximum) == (-math.inf, math.inf)


def test_a_scorer_states_the_elbo_of_both_sides(families: Families, name: str) -> None:
    for graph in published(families, name).graphs:
        metric = graph.end_metric
        if graph.file != "scorer.onnx":
            assert not graph.HasField("end_metric")
            continue
        assert (metric.name, metric.items, metric.bound) == ("elbo", 30, 0.01)
        assert metric.value < 0
        assert abs(metric.value - metric.reference) <= metric.bound


def test_batch_buckets_ascend_from_one(manifest: manifest_pb2.Manifest) -> None:
    buckets = list(manifest.batch_buckets)
    assert buckets[0] == 1
    assert buckets == sorted(set(buckets))


def test_a_manifest_holds_the_metrics_that_were_measured(
    manifest: manifest_pb2.Manifest, name: str, runs: Mapping[str, Run]
) -> None:
    metrics = dict(runs[name].metrics)
    assert dict(manifest.training_metrics) == metrics


def test_a_metric_of_zero_is_a_measurement(runs: Mapping[str, Run], graphs: Graphs) -> None:
    run = replace(runs["mlp"], metrics={"active_units": 0, "log_likelihood": None})
    manifest = build_manifest(run, graphs["mlp"], PARITY, "served", 1)
    assert dict(manifest.training_metrics) == {"active_units": 0}


def test_a_manifest_knows_its_checkpoint_time_and_tools(
    manifest: manifest_pb2.Manifest, name: str, runs: Mapping[str, Run]
) -> None:
    weights = (runs[name].path / "weights.safetensors").read_bytes()
    assert manifest.checkpoint_sha256 == hashlib.sha256(weights).hexdigest()
    age = datetime.now(UTC) - manifest.create_time.ToDatetime(UTC)
    assert timedelta(0) <= age < timedelta(minutes=5)
    assert {"torch", "onnx", "onnxruntime"} <= manifest.tool_versions.keys()


def test_the_same_weights_share_their_latent_space_and_others_do_not(
    runs: Mapping[str, Run], graphs: Graphs
) -> None:
    first, again, other_weights, other_name = (
        build_manifest(runs[run], graphs[run], PARITY, served, version).latent_space
        for run, served, version in [
            ("mlp", "served", 1),
            ("mlp", "served", 2),
            ("conv", "served", 3),
            ("mlp", "another", 1),
        ]
    )
    assert first == again
    assert len({first, other_weights, other_name}) == 3


def test_the_file_is_canonical_proto_json(runs: Mapping[str, Run], graphs: Graphs) -> None:
    content = manifest_json(build_manifest(runs["mlp"], graphs["mlp"], PARITY, "served", 2**40))
    document = json.loads(content)
    assert content.endswith(b"}\n")
    assert document["version"] == str(2**40)
    assert document["graphs"][0]["kind"] == "GRAPH_KIND_ENCODER"
