"""What a graph must be before anybody may serve it."""

import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import onnx
import torch
from google.protobuf.message import DecodeError

from export.errors import ExportError
from export.graphs import BATCH_AXIS, Graph, Value, submessages

_RANDOM_OPERATORS = frozenset({"Bernoulli", "Dropout", "Multinomial"})
_ELEMENT_TYPES = {
    "float32": onnx.TensorProto.FLOAT,
    "uint8": onnx.TensorProto.UINT8,
    "int64": onnx.TensorProto.INT64,
}
_DEFAULT_DOMAINS = frozenset({"", "ai.onnx"})


def check_graph(graph: Graph) -> None:
    """Raise ExportError with every rule that the file breaks; they are those of `graph_faults`."""
    if faults := graph_faults(graph.content, graph.inputs, graph.outputs):
        raise ExportError(f"the {graph.kind} graph cannot be served: {'; '.join(faults)}")


def graph_faults(
    content: bytes, inputs: tuple[Value, ...], outputs: tuple[Value, ...]
) -> list[str]:
    """A phrase for every rule that an ONNX file breaks.

    The rules: valid ONNX by the full checker; operators of the default domain alone, none of
    them random; the expected inputs and outputs, of their types with a dynamic axis "batch"
    first; the weights inside the file; no path of this machine.
    """
    try:
        model = onnx.load_model_from_string(content)
    except DecodeError:
        return ["it is no ONNX file"]
    return [
        *_invalidities(model),
        *_operator_faults(model),
        *_value_faults("input", model.graph.input, inputs),
        *_value_faults("output", model.graph.output, outputs),
        *_content_faults(model),
    ]


def opset(content: bytes) -> int:
    """Version of the default operator set of an ONNX file."""
    imports = onnx.load_model_from_string(content).opset_import
    return next(item.version for item in imports if item.domain in _DEFAULT_DOMAINS)


def _invalidities(model: onnx.ModelProto) -> Iterator[str]:
    try:
        onnx.checker.check_model(model, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        yield f"it is no valid ONNX ({str(error).strip().partition(chr(10))[0]})"


def _operator_faults(model: onnx.ModelProto) -> Iterator[str]:
    nodes = [item for item in submessages(model) if isinstance(item, onnx.NodeProto)]
    for operator in sorted({node.op_type for node in nodes}):
        if operator.startswith("Random") or operator in _RANDOM_OPERATORS:
            yield f"operator {operator} is random"
    domains = {node.domain for node in nodes} | {item.domain for item in model.opset_import}
    for domain in sorted(domains - _DEFAULT_DOMAINS):
        yield f"operator domain {domain!r} is not the default one"


def _value_faults(
    role: str, found: Iterable[onnx.ValueInfoProto], expected: tuple[Value, ...]
) -> Iterator[str]:
    values = list(found)
    names = [value.name for value in values]
    if names != [value.name for value in expected]:
        yield f"its {role}s are {names}, not {[value.name for value in expected]}"
        return
    for value, wanted in zip(values, expected, strict=True):
        tensor = value.type.tensor_type
        shape = [dim.dim_param or dim.dim_value for dim in tensor.shape.dim]
        if shape != [BATCH_AXIS, *wanted.shape]:
            yield f"{role} {value.name} has shape {shape}, not {[BATCH_AXIS, *wanted.shape]}"
        if tensor.elem_type != _ELEMENT_TYPES[wanted.data_type]:
            yield f"{role} {value.name} is not {wanted.data_type}"


def _content_faults(model: onnx.ModelProto) -> Iterator[str]:
    stripped = onnx.ModelProto()
    stripped.CopyFrom(model)
    for message in submessages(stripped):
        if isinstance(message, onnx.TensorProto):
            if message.data_location == onnx.TensorProto.EXTERNAL:
                yield f"tensor {message.name} lies outside the file"
            message.ClearField("raw_data")  # weights can look like any text
    text = stripped.SerializeToString()
    if any(str(folder).encode() in text for folder in _local_folders()):
        yield "it holds a path of this machine"


def _local_folders() -> Iterator[Path]:
    """Folders whose names would betray where the export ran; "/" is in every text."""
    folders = (Path.cwd(), Path.home(), Path(sys.prefix), Path(torch.__file__).parent)
    return (folder for folder in folders if folder != Path(folder.anchor))
