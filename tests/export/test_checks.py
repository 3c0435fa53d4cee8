import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from export.checks import check_graph, opset
from export.errors import ExportError
from export.graphs import Graph


@pytest.fixture
def decoder(graphs: Mapping[str, tuple[Graph, ...]]) -> Graph:
    return graphs["mlp"][1]


@pytest.fixture
def proto(decoder: Graph) -> onnx.ModelProto:
    """The decoder's file, to be damaged."""
    return onnx.load_model_from_string(decoder.content)


Damage = Callable[[onnx.ModelProto], object]


def node(operator: str, inputs: list[str], **attributes: object) -> Damage:
    """Adds an operator whose output nobody reads."""

    def damage(proto: onnx.ModelProto) -> None:
        proto.graph.node.append(helper.make_node(operator, inputs, ["extra"], **attributes))

    return damage


def random_in_a_branch(proto: onnx.ModelProto) -> None:
    output = helper.make_tensor_value_info("drawn", TensorProto.FLOAT, [2])
    drawn = helper.make_node("RandomUniform", [], ["drawn"], shape=[2])
    branch = helper.make_graph([drawn], "branch", [], [output])
    condition = numpy_helper.from_array(np.array(True), "condition")
    proto.graph.initializer.append(condition)
    node("If", ["condition"], then_branch=branch, else_branch=branch)(proto)


def weights_elsewhere(proto: onnx.ModelProto) -> None:
    tensor = proto.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="weights.bin")


def another_domain(proto: onnx.ModelProto) -> None:
    proto.opset_import.append(helper.make_opsetid("com.microsoft", 1))


def first_dim(proto: onnx.ModelProto) -> onnx.TensorShapeProto.Dimension:
    return proto.graph.input[0].type.tensor_type.shape.dim[0]


def rename(value: onnx.ValueInfoProto, name: str) -> None:
    value.name = name


def test_the_graphs_of_every_family_can_be_served(family: list[Graph]) -> None:
    for graph in family:
        check_graph(graph)


@pytest.mark.parametrize(
    ("damage", "complaint"),
    [
        pytest.param(
            node("RandomNormal", [], shape=[2]), "operator RandomNormal is random", id="1"
        ),
        pytest.param(node("RandomNormalLike", ["latents"]), "RandomNormalLike is random", id="2"),
        pytest.param(node("Bernoulli", ["latents"]), "Bernoulli is random", id="3"),
        pytest.param(node("Multinomial", ["latents"]), "Multinomial is random", id="4"),
        pytest.param(node("Dropout", ["latents"]), "Dropout is random", id="5"),
        pytest.param(random_in_a_branch, "RandomUniform is random", id="in a branch"),
    ],
)
def test_a_random_operator_is_refused(
    decoder: Graph, proto: onnx.ModelProto, damage: Damage, complaint: str
) -> None:
    damage(proto)
    assert_refused(decoder, proto, complaint)


@pytest.mark.parametrize(
    ("damage", "complaint"),
    [
        (weights_elsewhere, "lies outside the file"),
        (another_domain, "operator domain 'com.microsoft' is not the default one"),
        (node("Gelu", ["latents"], domain="com.microsoft"), "operator domain 'com.microsoft'"),
        (node("NoSuchOperator", ["latents"]), "it is no valid ONNX"),
        (node("Relu", ["nowhere"]), "it is no valid ONNX"),
        (lambda proto: rename(proto.graph.input[0], "z"), r"its inputs are \['z'\]"),
        (
            lambda proto: rename(proto.graph.output[0], "x"),
            r"its outputs are \['x', 'observations_uint8'\]",
        ),
        (lambda proto: proto.graph.input.pop(), r"its inputs are \[\], not \['latents'\]"),
        (
            lambda proto: proto.graph.output.append(proto.graph.input[0]),
            r"its outputs are \['observations', 'observations_uint8', 'latents'\]",
        ),
        (
            lambda proto: setattr(first_dim(proto), "dim_value", 7),
            r"input latents has shape \[7, 3\], not \['batch', 3\]",
        ),
        (
            lambda proto: setattr(first_dim(proto), "dim_param", "s0"),
            r"input latents has shape \['s0', 3\]",
        ),
        (
            lambda proto: setattr(proto.graph.output[0].type.tensor_type, "elem_type", 11),
            "output observations is not float32",
        ),
    ],
)
def test_a_graph_that_breaks_a_rule_is_refused(
    decoder: Graph, proto: onnx.ModelProto, damage: Damage, complaint: str
) -> None:
    damage(proto)
    assert_refused(decoder, proto, complaint)


@pytest.mark.parametrize("place", ["doc_string", "metadata", "node"])
@pytest.mark.parametrize("folder", ["work", "home", "environment"])
def test_a_path_of_this_machine_is_refused(
    decoder: Graph,
    proto: onnx.ModelProto,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    folder: str,
    place: str,
) -> None:
    if folder == "work":
        monkeypatch.chdir(tmp_path)
    elif folder == "home":
        monkeypatch.setenv("HOME", str(tmp_path))
    text = f"made in {sys.prefix if folder == 'environment' else tmp_path}/models.py"
    if place == "doc_string":
        proto.doc_string = text
    elif place == "metadata":
        proto.metadata_props.add(key="stack_trace", value=text)
    else:
        proto.graph.node[0].name = text
    assert_refused(decoder, proto, "it holds a path of this machine")


def test_weights_may_look_like_a_path(decoder: Graph, proto: onnx.ModelProto) -> None:
    text = sys.prefix.encode()
    numbers = np.frombuffer(text + b"\x00" * (-len(text) % 4), np.float32)
    proto.graph.initializer.append(numpy_helper.from_array(numbers, "unlucky"))
    content = proto.SerializeToString()
    assert text in content
    check_graph(replace(decoder, content=content))


def test_every_fault_is_in_one_message(decoder: Graph, proto: onnx.ModelProto) -> None:
    another_domain(proto)
    node("RandomNormal", [], shape=[2])(proto)
    assert_refused(decoder, proto, "RandomNormal is random; operator domain 'com.microsoft'")


def test_opset_is_that_of_the_default_domain() -> None:
    graph = helper.make_graph([], "empty", [], [])
    imports = [helper.make_opsetid("com.microsoft", 1), helper.make_opsetid("", 20)]
    assert opset(helper.make_model(graph, opset_imports=imports).SerializeToString()) == 20


def assert_refused(decoder: Graph, proto: onnx.ModelProto, complaint: str) -> None:
    """With one line that says which graph is at fault."""
    with pytest.raises(ExportError, match=complaint) as raised:
        check_graph(replace(decoder, content=proto.SerializeToString()))
    assert str(raised.value).startswith("the decoder graph cannot be served: ")
    assert "\n" not in str(raised.value)
