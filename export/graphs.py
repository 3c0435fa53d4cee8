"""The graphs of a model version: torch modules of exactly one task each, traced to ONNX.

Noise is an input, so that no graph holds a random operator and a draw depends on its seed alone.

Observations also come as uint8, where level k stands for k / 255 of the value range: a quarter of
the bytes. The encoder has a second file for them, as a graph cannot leave an input out. The decoder
has a second output, which costs a caller of the first 1 to 2 % (MLP and 64x64 convolutions, CPU).
"""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import onnx
import torch
from google.protobuf.message import Message
from torch import Tensor, nn

from export.errors import ExportError
from training.model import Model

GraphKind = Literal["encoder", "encoder_uint8", "decoder"]
DataType = Literal["float32", "uint8"]
LEVELS = 255  # the largest uint8
BATCH_AXIS = "batch"
OPSET = 20


class Encoder(nn.Module):
    """observations, noise -> latents, mean, log_variance."""

    def __init__(self, model: Model) -> None:
        super().__init__()
        self.model = model

    def forward(self, observations: Tensor, noise: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """[N, C, H, W] in [0, 1] and [N, L] -> a draw of the posterior and its parameters."""
        return self.model.encode(observations, noise)


class EncoderUint8(nn.Module):
    """observations_uint8, noise -> latents, mean, log_variance."""

    def __init__(self, model: Model) -> None:
        super().__init__()
        self.encoder = Encoder(model)

    def forward(self, observations_uint8: Tensor, noise: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """[N, C, H, W] uint8 and [N, L] -> as `Encoder` for observations_uint8 / 255."""
        observations = observations_uint8.to(torch.float32) * (1 / LEVELS)
        outputs: tuple[Tensor, Tensor, Tensor] = self.encoder(observations, noise)
        return outputs


class Decoder(nn.Module):
    """latents -> observations; the file adds observations_uint8, see `_append_levels`."""

    def __init__(self, model: Model) -> None:
        super().__init__()
        self.model = model

    def forward(self, latents: Tensor) -> Tensor:
        """[N, L] -> [N, C, H, W] in [0, 1], the mean of the likelihood."""
        return self.model.decode(latents)


@dataclass(frozen=True)
class Value:
    """An input or output of a graph: [batch, *shape]."""

    name: str
    shape: tuple[int, ...]
    data_type: DataType = "float32"

    def example(self, batch: int) -> Tensor:
        """Something to trace with: [batch, *shape]."""
        if self.data_type == "uint8":
            return torch.full((batch, *self.shape), LEVELS // 2, dtype=torch.uint8)
        return torch.full((batch, *self.shape), 0.5)


@dataclass(frozen=True)
class Graph:
    """A traced graph with the module it was traced from; `content` is the ONNX file."""

    kind: GraphKind
    module: nn.Module
    inputs: tuple[Value, ...]
    outputs: tuple[Value, ...]
    content: bytes

    @property
    def file(self) -> str:
        """Name of the file in the directory of the version."""
        return f"{self.kind}.onnx"


def trace_graphs(model: Model, name: str, preset: str) -> tuple[Graph, ...]:
    """The encoders and the decoder of a model in eval mode; the same weights give the same bytes.

    `name` and `preset` go into the files' metadata. Raises ExportError if torch cannot trace.
    """
    shape = tuple(model.observation_shape)
    observations = Value("observations", shape)
    levels = Value("observations_uint8", shape, "uint8")
    noise = Value("noise", model.noise_shape)
    latents, mean, log_variance = (
        Value(value, model.latent_shape) for value in ("latents", "mean", "log_variance")
    )
    posterior = (latents, mean, log_variance)
    metadata = {"name": name, "preset": preset}
    encoder = _trace("encoder", Encoder(model), (observations, noise), posterior, metadata)
    encoder_uint8 = _trace(
        "encoder_uint8", EncoderUint8(model), (levels, noise), posterior, metadata
    )
    decoder = _trace("decoder", Decoder(model), (latents,), (observations,), metadata)
    return encoder, _append_levels(decoder, levels), encoder_uint8


def submessages(message: Message) -> Iterator[Message]:
    """The message itself and every message inside it, at any depth."""
    yield message
    for field, value in message.ListFields():
        if field.message_type is not None:
            for child in value if field.is_repeated else (value,):
                yield from submessages(child)


def _trace(
    kind: GraphKind,
    module: nn.Module,
    inputs: tuple[Value, ...],
    outputs: tuple[Value, ...],
    metadata: dict[str, str],
) -> Graph:
    module.eval()
    batch = _example_batch(inputs)
    try:
        with torch.no_grad(), _quiet_exporter():
            program = torch.onnx.export(
                module,
                tuple(value.example(batch) for value in inputs),
                dynamo=True,
                dynamic_shapes={value.name: {0: BATCH_AXIS} for value in inputs},
                external_data=False,
                input_names=[value.name for value in inputs],
                opset_version=OPSET,
                output_names=[value.name for value in outputs],
                verbose=False,
            )
    except torch.onnx.OnnxExporterError as error:
        reason = str(error).strip().partition("\n")[0]
        raise ExportError(f"torch cannot trace the {kind}: {reason}") from error
    assert program is not None
    content = _clean(program.model_proto, metadata | {"graph": kind})
    return Graph(kind, module, inputs, outputs, content)


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


def _example_batch(inputs: tuple[Value, ...]) -> int:
    """A batch that no other dim equals, or the tracer could take one for the other; never 0 or 1,
    which it would build in."""
    dims = {size for value in inputs for size in value.shape}
    return next(size for size in range(5, 6 + len(dims)) if size not in dims)


def _clean(model: onnx.ModelProto, metadata: dict[str, str]) -> bytes:
    """The file without what the tracer notes on nodes and values: local paths and source lines."""
    for message in submessages(model):
        for field in ("metadata_props", "doc_string"):
            if field in message.DESCRIPTOR.fields_by_name:
                message.ClearField(field)
    del model.graph.value_info[:]  # inferred again by every reader, and stale after optimization
    model.graph.name = metadata["graph"]
    onnx.helper.set_model_props(model, metadata)
    return model.SerializeToString(deterministic=True)


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
