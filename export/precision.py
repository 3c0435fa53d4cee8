"""The same graphs in another precision: float16 for CUDA, int8 where it is faster on the CPU.

float16 keeps float32 at inputs and outputs, in the nodes that make an output, log_variance for one,
and where it would lose digits or overflow: exponentials and logarithms, reductions, the choice of
the nearest code. int8 quantizes dense layers' weights once
and their inputs batch by batch (dynamic quantization); convolutions stay as they are.
"""

import logging
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import onnx
from onnxruntime.quantization import quantize_dynamic
from onnxruntime.transformers import float16
from onnxruntime.transformers.onnx_model import OnnxModel

from export.checks import check_graph
from export.errors import ExportError
from export.graphs import Graph, Precision, clean
from export.latency import shortest_run
from export.parity import Array, ElboParity, Labels, Parity, measure, measure_elbo

_IN_FLOAT32 = [
    *float16.DEFAULT_OP_BLOCK_LIST,
    *("Exp", "Log", "Softplus", "Softmax", "LogSoftmax", "Pow", "Sqrt", "Erf"),
    *("ReduceSum", "ReduceMean", "ReduceMax", "ReduceMin", "ReduceLogSumExp", "GlobalAveragePool"),
    *("ArgMin", "ArgMax", "CumSum", "QuantizeLinear", "Loop", "Scan", "If"),
]
_COMPARED = 64  # items of a batch
_FASTER = 0.95  # of float32's time, or int8 is not worth another file
_DENSE = {"MatMul", "Gemm"}
# Nats per item, of the mean ELBO of 1000 test items.
ELBO_TOLERANCES: Mapping[Precision, float] = {"float16": 0.02, "int8": 0.1}


def tolerances(precision: Precision) -> dict[str, float]:
    """Largest difference per output name.

    float16 has 11 bits, so numbers of a few units are off by some 1e-3; int8 weights have 8, of a
    layer's largest. A score is a sum over all dims of one item. Half a level of an observation in
    uint8 is rounding.
    """
    bounds = {"float16": (0.02, 0.01, 1.0), "int8": (0.1, 0.05, 2.0)}
    latents, observations, score = bounds[precision]
    values = dict.fromkeys(("latents", "mean", "log_variance"), latents)
    values |= dict.fromkeys(("rate", "distortion", "log_weight"), score)
    return values | {
        "observations": observations,
        "observations_uint8": observations + 0.5 / 255,
        "codes": 0.05,
    }


@dataclass(frozen=True)
class Variants:
    """Graphs in one precision that may be published, and why the others may not, by file."""

    graphs: tuple[Graph, ...]
    parity: Mapping[str, Parity]
    elbo: ElboParity | None
    refusals: Mapping[str, str]


def convert(
    graphs: tuple[Graph, ...], precision: Precision, observations: Array, labels: Labels | None
) -> Variants:
    """Each graph in another precision, as far as it keeps its bounds: see `tolerances`.

    If the scorer's ELBO is beyond `ELBO_TOLERANCES` no graph is published, and in int8 only what is
    faster than float32 on the CPU.
    """
    accepted: list[Graph] = []
    parity: dict[str, Parity] = {}
    refusals: dict[str, str] = {}
    elbo: ElboParity | None = None
    for graph in sorted(graphs, key=lambda graph: graph.kind != "scorer"):
        variant = replace(graph, precision=precision)
        try:
            variant = replace(variant, content=_converted(graph, precision))
            check_graph(variant)
            if graph.kind == "scorer":
                elbo = measure_elbo(variant, observations, labels, ELBO_TOLERANCES[precision])
            parity |= measure([variant], observations, tolerances(precision), labels)
            if precision == "int8":
                _check_faster(graph, variant)
        except ExportError as error:
            refusals[variant.file] = str(error)
            if graph.kind == "scorer" and elbo is None:
                break
        else:
            accepted.append(variant)
    return Variants(tuple(accepted), parity, elbo, refusals)


def _converted(graph: Graph, precision: Precision) -> bytes:
    model = onnx.load_model_from_string(graph.content)
    metadata = {item.key: item.value for item in model.metadata_props}
    operators = {node.op_type for node in model.graph.node}
    if precision == "int8" and not operators & _DENSE:
        raise ExportError(f"the {graph.kind} has no dense layer")
    convert_model = _to_float16 if precision == "float16" else _to_int8
    try:
        converted = convert_model(model)
    except Exception as error:  # the tools fail in many ways on what they do not know
        reason = str(error).strip().partition("\n")[0]
        raise ExportError(f"the {graph.kind} has no {precision}: {reason}") from error
    return clean(converted, metadata)


def _to_float16(model: onnx.ModelProto) -> onnx.ModelProto:
    outputs = {value.name for value in model.graph.output}
    makers = [node.name for node in model.graph.node if outputs & set(node.output)]
    converted: onnx.ModelProto = float16.convert_float_to_float16(
        model, keep_io_types=True, op_block_list=_IN_FLOAT32, node_block_list=makers
    )
    OnnxModel.graph_topological_sort(converted.graph)  # its casts come last
    return converted


def _to_int8(model: onnx.ModelProto) -> onnx.ModelProto:
    # Says that it is ready, or the tool logs that it may not be.
    model.metadata_props.add(key="onnx.quant.pre_process", value="onnxruntime.quant")
    with tempfile.TemporaryDirectory() as folder, _quiet_quantizer():
        path = Path(folder) / "int8.onnx"
        quantize_dynamic(model, path, op_types_to_quantize=["MatMul"], per_channel=True)
        return onnx.load(path)


@contextmanager
def _quiet_quantizer() -> Iterator[None]:
    """It says on the root logger that a model with QuantizeLinear may be quantized already."""
    handler = logging.NullHandler()  # without any, the logger would be given one for ever
    logging.root.addHandler(handler)
    try:
        yield
    finally:
        logging.root.removeHandler(handler)


def _check_faster(graph: Graph, variant: Graph) -> None:
    """By a large batch: most items are in such."""
    before, after = (
        shortest_run(item.content, item.inputs, _COMPARED) for item in (graph, variant)
    )
    if after > _FASTER * before:
        raise ExportError(
            f"it is not faster: {1000 * after:.3g} ms for {_COMPARED} items, "
            f"{1000 * before:.3g} ms in float32"
        )
