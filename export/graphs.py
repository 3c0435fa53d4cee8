"""The graphs of a model version: torch modules traced to ONNX.

Noise is an input, so that no graph holds a random operator and a draw depends on its seed alone.

Observations that are pixels also come as uint8, where level k stands for k / 255 of the value
range: a quarter of the bytes. What takes observations has a second file for them, as a graph cannot
leave an input out. The decoder has a second output, which costs a caller of the first 1 to 2 %
(MLP and 64x64 convolutions, CPU).
"""

import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Final, Literal, get_args

import numpy as np
import onnx
import torch
from google.protobuf.message import Message
from torch import Tensor, nn

from export.errors import ExportError
from export.modules import LEVELS, Decoder, Encoder, Prior, Scorer, Uint8
from training.model import Model, Quantized

GraphKind = Literal["encoder", "decoder", "encoder_uint8", "prior", "scorer", "scorer_uint8"]
DataType = Literal["float32", "uint8", "int64"]
Precision = Literal["float32", "float16", "int8"]
PRECISIONS: Final[Mapping[str, Precision]] = {name: name for name in get_args(Precision)}
BATCH_AXIS: Final = "batch"
_POSTERIOR: Final = ("latents", "mean", "log_variance")
_SCORES: Final = ("rate", "distortion", "log_weight")
_DATA_TYPES: Final[Mapping[torch.dtype, DataType]] = {
    torch.float32: "float32",
    torch.uint8: "uint8",
    torch.int64: "int64",
}


@dataclass(frozen=True)
class Format:
    """Version of the default operator set, from 18 on, and of the ONNX file format.

    The pinned onnxruntime reads these and newer ones; older readers may need older ones.
    """

    opset: int = 20
    ir_version: int = 10


@dataclass(frozen=True)
class Value:
    """An input or output of a graph: [batch, *shape]; an input of int64 is below `limit`."""

    name: str
    shape: tuple[int, ...]
    data_type: DataType = "float32"
    limit: int = 1

    def example(self, batch: int) -> Tensor:
        """Something to trace with: [batch, *shape]."""
        if self.data_type == "float32":
            return torch.full((batch, *self.shape), 0.5)
        if self.data_type == "uint8":
            return torch.full((batch, *self.shape), LEVELS // 2, dtype=torch.uint8)
        return torch.zeros((batch, *self.shape), dtype=torch.int64)


@dataclass(frozen=True)
class Graph:
    """A traced graph with the module it was traced from; `content` is the ONNX file."""

    kind: GraphKind
    module: nn.Module
    inputs: tuple[Value, ...]
    outputs: tuple[Value, ...]
    content: bytes
    precision: Precision = "float32"

    @property
    def file(self) -> str:
        """Name of the file in the directory of the version."""
        precision = "" if self.precision == "float32" else f".{self.precision}"
        return f"{self.kind}{precision}.onnx"


def trace_graphs(
    model: Model, name: str, preset: str, *, pixels: bool = True, onnx_format: Format = Format()
) -> tuple[Graph, ...]:
    """The graphs of a model in eval mode; the same weights give the same bytes.

    `name` and `preset` go into the files' metadata; without `pixels` there is no uint8. A prior
    graph is made unless latents are noise, and scorers where the model bounds a likelihood. Raises
    ExportError if torch cannot trace.
    """
    metadata = {"name": name, "preset": preset}
    return tuple(_graphs(model, metadata, pixels, onnx_format))


def submessages(message: Message) -> Iterator[Message]:
    """The message itself and every message inside it, at any depth."""
    yield message
    for field, value in message.ListFields():
        if field.message_type is not None:
            for child in value if field.is_repeated else (value,):
                yield from submessages(child)


def _graphs(
    model: Model, metadata: dict[str, str], pixels: bool, onnx_format: Format
) -> Iterator[Graph]:
    shape = tuple(model.observation_shape)
    observations = Value("observations", shape)
    levels = Value("observations_uint8", shape, "uint8")
    noise = Value("noise", model.noise_shape)
    latents = Value("latents", model.latent_shape)
    if isinstance(model, Quantized):
        latents = Value("latents", model.latent_shape, "int64", model.code_count)
    label = () if model.label_count is None else (Value("label", (), "int64", model.label_count),)
    of_observations = (observations, noise, *label)

    encoder = _trace("encoder", Encoder(model), of_observations, _POSTERIOR, metadata, onnx_format)
    yield encoder
    decoder = _trace(
        "decoder", Decoder(model), (latents, *label), ("observations",), metadata, onnx_format
    )
    yield _append_levels(decoder, levels) if pixels else decoder
    if pixels:
        yield _on_levels(encoder, "encoder_uint8", levels)
    if not model.standard_prior:
        yield _trace("prior", Prior(model), (noise, *label), ("latents",), metadata, onnx_format)
    if model.bounds_likelihood:
        scorer = _trace("scorer", Scorer(model), of_observations, _SCORES, metadata, onnx_format)
        yield scorer
        if pixels:
            yield _on_levels(scorer, "scorer_uint8", levels)


def _trace(
    kind: GraphKind,
    module: nn.Module,
    inputs: tuple[Value, ...],
    outputs: tuple[str, ...],
    metadata: dict[str, str],
    onnx_format: Format,
) -> Graph:
    """The graph of a module in eval mode. Raises ExportError if torch cannot trace it."""
    module.eval()
    batch = _example_batch(inputs)
    examples = tuple(value.example(batch) for value in inputs)
    try:
        with torch.no_grad(), _quiet_exporter():
            results = module(*examples)
            program = torch.onnx.export(
                module,
                examples,
                dynamo=True,
                dynamic_shapes={value.name: {0: BATCH_AXIS} for value in inputs},
                external_data=False,
                input_names=[value.name for value in inputs],
                opset_version=onnx_format.opset,
                output_names=list(outputs),
                verbose=False,
            )
    except torch.onnx.OnnxExporterError as error:
        reason = str(error).strip().partition("\n")[0]
        raise ExportError(f"torch cannot trace the {kind}: {reason}") from error
    assert program is not None
    model = program.model_proto
    model.ir_version = onnx_format.ir_version
    content = clean(model, metadata | {"graph": kind})
    tensors = results if isinstance(results, tuple) else (results,)
    values = (
        Value(name, tuple(tensor.shape[1:]), _DATA_TYPES[tensor.dtype])
        for name, tensor in zip(outputs, tensors, strict=True)
    )
    return Graph(kind, module, inputs, tuple(values), content)


def _append_levels(decoder: Graph, levels: Value) -> Graph:
    """The decoder with its observations as a second output in uint8.

    QuantizeLinear rounds half to even and saturates, in one pass; torch's exporter would write
    three operators that take three times as long.
    """
    model = onnx.load_model_from_string(decoder.content)
    observations = decoder.outputs[0].name
    for name, value in (("scale", np.float32(1 / LEVELS)), ("zero_point", np.uint8(0))):
        tensor = onnx.numpy_helper.from_array(np.array(value), f"{levels.name}_{name}")
        model.graph.initializer.append(tensor)
    inputs = [observations, f"{levels.name}_scale", f"{levels.name}_zero_point"]
    model.graph.node.append(onnx.helper.make_node("QuantizeLinear", inputs, [levels.name]))
    shape: list[int | str | None] = [BATCH_AXIS, *levels.shape]
    model.graph.output.append(
        onnx.helper.make_tensor_value_info(levels.name, onnx.TensorProto.UINT8, shape)
    )
    content = model.SerializeToString(deterministic=True)
    return replace(decoder, outputs=(*decoder.outputs, levels), content=content)


def _on_levels(graph: Graph, kind: GraphKind, levels: Value) -> Graph:
    """A graph of observations, as one of observations_uint8: two operators before it."""
    model = onnx.load_model_from_string(graph.content)
    observations, *others = model.graph.input
    shape: list[int | str | None] = [BATCH_AXIS, *levels.shape]
    given = onnx.helper.make_tensor_value_info(levels.name, onnx.TensorProto.UINT8, shape)
    scale = onnx.numpy_helper.from_array(np.array(1 / LEVELS, np.float32), f"{levels.name}_scale")
    number = f"{levels.name}_float"
    nodes = [
        onnx.helper.make_node("Cast", [levels.name], [number], to=onnx.TensorProto.FLOAT),
        onnx.helper.make_node("Mul", [number, scale.name], [observations.name]),
        *model.graph.node,
    ]
    inputs = [given, *others]
    for field, values in (("node", nodes), ("input", inputs)):
        model.graph.ClearField(field)
        getattr(model.graph, field).extend(values)
    model.graph.initializer.append(scale)
    metadata = {item.key: item.value for item in model.metadata_props}
    content = clean(model, metadata | {"graph": kind})
    return replace(
        graph,
        kind=kind,
        module=Uint8(graph.module).eval(),
        inputs=(levels, *graph.inputs[1:]),
        content=content,
    )


def _example_batch(inputs: tuple[Value, ...]) -> int:
    """A batch that no other dim equals, or the tracer could take one for the other; never 0 or 1,
    which it would build in."""
    dims = {size for value in inputs for size in value.shape}
    return next(size for size in range(5, 6 + len(dims)) if size not in dims)


def clean(model: onnx.ModelProto, metadata: dict[str, str]) -> bytes:
    """The file without what the tracer notes on nodes and values: local paths and source lines."""
    for message in submessages(model):
        for field in ("metadata_props", "doc_string"):
            if field in message.DESCRIPTOR.fields_by_name:
                message.ClearField(field)
    del model.graph.value_info[:]  # inferred again by every reader, and stale after optimization
    _drop_unused_weights(model)
    model.graph.name = metadata["graph"]
    onnx.helper.set_model_props(model, metadata)
    return model.SerializeToString(deterministic=True)


def _drop_unused_weights(model: onnx.ModelProto) -> None:
    """What constant folding leaves behind, of which every reader would warn."""
    graphs = [item for item in submessages(model) if isinstance(item, onnx.GraphProto)]
    used = {name for graph in graphs for node in graph.node for name in node.input}
    used |= {value.name for graph in graphs for value in graph.output}
    for graph in graphs:
        kept = [tensor for tensor in graph.initializer if tensor.name in used]
        del graph.initializer[:]
        graph.initializer.extend(kept)


@contextmanager
def _quiet_exporter() -> Iterator[None]:
    """Silence what torch 2.13 says on every export and no caller can act upon."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)  # "torchvision is not installed"
    try:
        with warnings.catch_warnings():
            # torch pickles a deprecated class of its own.
            warnings.filterwarnings("ignore", r"`isinstance\(treespec, LeafSpec\)`", FutureWarning)
            # Two inputs share the batch axis, which is what their common name says.
            warnings.filterwarnings("ignore", "# The axis name: batch will not be used")
            yield
    finally:
        logger.setLevel(level)
