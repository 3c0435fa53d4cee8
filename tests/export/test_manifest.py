import hashlib
import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from google.protobuf.json_format import Parse
from vae.manifest.v1 import manifest_pb2
from vae.v1 import tensor_pb2

from export.graphs import Graph
from export.manifest import build_manifest, manifest_json
from export.parity import Parity, default_tolerances
from training.checkpoint import Run

Graphs = dict[str, tuple[Graph, ...]]
PARITY = {
    "encoder": Parity("encoder", {"latents": 1e-6, "mean": 3e-6}, default_tolerances()),
    "decoder": Parity(
        "decoder", {"observations": 2e-7, "observations_uint8": 0.002}, default_tolerances()
    ),
    "encoder_uint8": Parity("encoder_uint8", {"latents": 2e-6, "mean": 1e-6}, default_tolerances()),
}


@pytest.fixture(params=["mlp", "conv", "gaussian"])
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def manifest(name: str, runs: dict[str, Run], graphs: Graphs) -> manifest_pb2.Manifest:
    """As a reader of the file sees it: unknown fields are an error."""
    content = manifest_json(build_manifest(runs[name], graphs[name], PARITY, "served", 12))
    return Parse(content, manifest_pb2.Manifest())


def test_a_manifest_describes_the_model(
    manifest: manifest_pb2.Manifest, name: str, runs: dict[str, Run]
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
    manifest: manifest_pb2.Manifest, name: str, runs: dict[str, Run]
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
    assert [parity.max_absolute_error for parity in parities] == [3e-6, 2e-7, 2e-6]
    assert {parity.tolerance for parity in parities} == {1e-4}
    assert list(parities[0].batch_sizes) == [1, 2, 3, 17, 64]


def test_batch_buckets_ascend_from_one(manifest: manifest_pb2.Manifest) -> None:
    buckets = list(manifest.batch_buckets)
    assert buckets[0] == 1
    assert buckets == sorted(set(buckets))


def test_a_manifest_holds_the_metrics_that_were_measured(
    manifest: manifest_pb2.Manifest, name: str, runs: dict[str, Run]
) -> None:
    metrics = dict(runs[name].metrics)
    assert dict(manifest.training_metrics) == metrics


def test_a_metric_of_zero_is_a_measurement(runs: dict[str, Run], graphs: Graphs) -> None:
    run = replace(runs["mlp"], metrics={"active_units": 0, "log_likelihood": None})
    manifest = build_manifest(run, graphs["mlp"], PARITY, "served", 1)
    assert dict(manifest.training_metrics) == {"active_units": 0}


def test_a_manifest_knows_its_checkpoint_time_and_tools(
    manifest: manifest_pb2.Manifest, name: str, runs: dict[str, Run]
) -> None:
    weights = (runs[name].path / "weights.safetensors").read_bytes()
    assert manifest.checkpoint_sha256 == hashlib.sha256(weights).hexdigest()
    age = datetime.now(UTC) - manifest.create_time.ToDatetime(UTC)
    assert timedelta(0) <= age < timedelta(minutes=5)
    assert {"torch", "onnx", "onnxruntime"} <= manifest.tool_versions.keys()


def test_the_same_weights_share_their_latent_space_and_others_do_not(
    runs: dict[str, Run], graphs: Graphs
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


def test_the_file_is_canonical_proto_json(runs: dict[str, Run], graphs: Graphs) -> None:
    content = manifest_json(build_manifest(runs["mlp"], graphs["mlp"], PARITY, "served", 2**40))
    document = json.loads(content)
    assert content.endswith(b"}\n")
    assert document["version"] == str(2**40)
    assert document["graphs"][0]["kind"] == "GRAPH_KIND_ENCODER"
