"""Graphs of another precision are published where they keep their bounds."""

import hashlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
import pytest

import export.precision
from export.__main__ import main
from export.graphs import Graph
from export.latency import BUCKETS
from export.precision import convert
from export.stored import open_version
from export.verify import verify
from service.repository import read_version
from tests.families import Families


def items(families: Families, name: str) -> tuple[np.ndarray, np.ndarray | None]:
    dataset = families.run(name).dataset()
    return dataset.observations("test"), dataset.test_labels


def operators(content: bytes) -> list[str]:
    return [node.op_type for node in onnx.load_model_from_string(content).graph.node]


@pytest.mark.parametrize("name", ["mlp", "conv", "conditional"])
def test_float16_holds_half_the_bytes_and_float32_where_it_is_needed(
    families: Families, name: str
) -> None:
    graphs = families.version(name).graphs
    variants = convert(graphs, "float16", *items(families, name))
    assert {graph.file for graph in variants.graphs} == {
        f"{graph.kind}.float16.onnx" for graph in graphs
    }
    assert not variants.refusals
    encoder = next(graph for graph in variants.graphs if graph.kind == "encoder")
    model = onnx.load_model_from_string(encoder.content)
    types = {tensor.data_type for tensor in model.graph.initializer if np.prod(tensor.dims) > 50}
    assert types == {onnx.TensorProto.FLOAT16}
    assert {value.type.tensor_type.elem_type for value in model.graph.output} == {
        onnx.TensorProto.FLOAT
    }
    assert variants.elbo is not None
    assert variants.elbo.items == 30


def test_int8_is_published_only_if_it_is_faster(
    families: Families, monkeypatch: pytest.MonkeyPatch
) -> None:
    graphs = families.version("mlp").graphs
    for seconds, faster in (({True: 1.0, False: 2.0}, True), ({True: 2.0, False: 1.0}, False)):

        def shortest_run(
            content: bytes, inputs: object, batch: int, seconds: Mapping[bool, float] = seconds
        ) -> float:
            return seconds["MatMulInteger" in operators(content)]

        monkeypatch.setattr(export.precision, "shortest_run", shortest_run)
        variants = convert(graphs, "int8", *items(families, "mlp"))
        assert bool(variants.graphs) == faster
        assert all("MatMulInteger" in operators(graph.content) for graph in variants.graphs)
        assert all("it is not faster: 2e+03 ms" in text for text in variants.refusals.values())
        assert len(variants.graphs) + len(variants.refusals) == len(graphs)


def test_a_precision_whose_elbo_is_off_has_no_graphs(
    families: Families, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(export.precision.ELBO_TOLERANCES, "float16", 0.0)
    variants = convert(families.version("mlp").graphs, "float16", *items(families, "mlp"))
    assert variants.graphs == ()
    assert "the ELBO of 30 test items is" in variants.refusals["scorer.float16.onnx"]


def test_a_graph_beyond_its_bound_is_left_out(
    families: Families, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = export.precision.tolerances("float16")
    monkeypatch.setattr(export.precision, "tolerances", lambda precision: real | {"mean": 0.0})
    variants = convert(families.version("mlp").graphs, "float16", *items(families, "mlp"))
    assert {graph.kind for graph in variants.graphs} == {"decoder", "scorer", "scorer_uint8"}
    assert "output mean differs by" in variants.refusals["encoder.float16.onnx"]


@pytest.fixture(scope="module")
def published(families: Families, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository with the model "a" in two precisions."""
    repository = tmp_path_factory.mktemp("precisions")
    arguments = [str(families.run("mlp").path), "--repository", str(repository), "--name", "a"]
    assert main([*arguments, "--precision", "float32,float16"]) == 0
    return repository


def test_the_manifest_says_what_was_measured_of_each_precision(published: Path) -> None:
    version = open_version(str(published / "a"))
    verify(version)
    by_file: dict[str, Graph] = {graph.file: graph for graph in version.manifest.graphs}
    assert {graph.precision for graph in by_file.values()} == {"float32", "float16"}
    scorer = by_file["scorer.float16.onnx"]
    assert scorer.end_metric.bound == 0.02
    assert abs(scorer.end_metric.value - scorer.end_metric.reference) <= 0.02
    assert 0 < by_file["encoder.float16.onnx"].parity.max_absolute_error <= 0.02
    assert len(by_file["encoder.float16.onnx"].latency_tables[0].batches) == len(BUCKETS)


@pytest.mark.parametrize("precision", ["float32", "float16", "int8"])
def test_the_service_reads_float32_unless_told_otherwise(published: Path, precision: str) -> None:
    """What a version does not have in the precision that is asked for, it has in float32."""
    graphs = read_version(published, "a", 1, precision).graphs
    file = "encoder.float16.onnx" if precision == "float16" else "encoder.onnx"
    expected = (published / "a" / "1" / file).read_bytes()
    assert hashlib.sha256(graphs["encoder"].content).digest() == hashlib.sha256(expected).digest()
    assert read_version(published, "a", 1).graphs.keys() == graphs.keys()


def test_an_unknown_precision_is_exit_code_2(
    families: Families, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [str(families.run("mlp").path), "--repository", str(tmp_path), "--name", "a"]
    assert main([*arguments, "--precision", "bfloat16"]) == 2
    assert capsys.readouterr().err == (
        "error: precision 'bfloat16' is none of float32, float16, int8\n"
    )
