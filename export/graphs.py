"""The graphs of a model version: torch modules of exactly one task each, traced to ONNX.

Noise is an input, so that no graph holds a random operator and a draw depends on its seed alone.
"""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import onnx
import torch
from google.protobuf.message import Message
from torch import Tensor, nn

from export.errors import ExportError
from training.models import Vae
from training.objective import reparameterize

GraphKind = Literal["encoder", "decoder"]
BATCH_AXIS = "batch"
OPSET = 20


class Encoder(nn.Module):
    """observations, noise -> latents, mean, log_variance."""

    def __init__(self, model: Vae) -> None:
        super().__init__()
        self.model = model

    def forward(self, observations: Tensor, noise: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """[N, C, H, W] in [0, 1] and [N, L] -> a draw of the posterior and its parameters."""
        mean, log_variance = self.model.encode(observations)
        return reparameterize(mean, log_variance, noise), mean, log_variance


class Decoder(nn.Module):
    """latents -> observations."""

    def __init__(self, model: Vae) -> None:
        super().__init__()
        self.model = model

    def forward(self, latents: Tensor) -> Tensor:
        """[N, L] -> [N, C, H, W] in [0, 1], the mean of the likelihood."""
        return self.model.decode(latents)


@dataclass(frozen=True)
class Value:
    """An input or output of a graph: float32 [batch, *shape]."""

    name: str
    shape: tuple[int, ...]


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


def trace_graphs(model: Vae, name: str, preset: str) -> tuple[Graph, ...]:
    """The encoder and the decoder of a model in eval mode; the same weights give the same bytes.

    `name` and `preset` go into the files' metadata. Raises ExportError if torch cannot trace.
    """
    observations = Value("observations", tuple(model.observation_shape))
    noise, latents, mean, log_variance = (
        Value(value, (model.latent_size,)) for value in ("noise", "latents", "mean", "log_variance")
    )
    encoder = (observations, noise), (latents, mean, log_variance)
    decoder = (latents,), (observations,)
    metadata = {"name": name, "preset": preset}
    return (
        _trace("encoder", Encoder(model), *encoder, metadata),
        _trace("decoder", Decoder(model), *decoder, metadata),
    )


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
        with _quiet_exporter():
            program = torch.onnx.export(
                module,
                tuple(torch.full((batch, *value.shape), 0.5) for value in inputs),
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
