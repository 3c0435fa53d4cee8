"""Observations on the wire: a tensor or image files, in requests and in answers."""

import itertools
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Final, Protocol

import numpy as np
from google.protobuf.message import Message
from vae.v1 import tensor_pb2
from vae.v1 import vae_service_pb2 as vae_pb

from service import tensors
from service.completion import run_on
from service.errors import InvalidRequest
from service.images import can_be_images, from_files, to_png
from service.model import Model, Observations
from service.transport.spliced import Buffer
from service.wire import length_delimited, number_of, tensor_field

_ENCODINGS: Final = frozenset(vae_pb.ObservationEncoding.values())
_LEVELS: Final = {vae_pb.OBSERVATION_ENCODING_UINT8, vae_pb.OBSERVATION_ENCODING_PNG}
_FLOAT16 = np.dtype("<f2")


class Observed(Protocol):
    """A message with observations as a tensor or as image files."""

    @property
    def observations(self) -> tensor_pb2.Tensor: ...
    @property
    def images(self) -> Any: ...


@dataclass(frozen=True)
class Fields:
    """The numbers of a response's fields `observations` and `images`."""

    observations: int
    images: int

    @classmethod
    def of(cls, message: type[Message]) -> "Fields":
        """Those of a message."""
        return cls(number_of(message, "observations"), number_of(message, "images"))


class Observing:
    """Reads and writes observations. Files are read and written on a thread of their own."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, "images")  # starts when it has to

    async def read(
        self, message: Observed, model: Model, max_items: int, path: str = ""
    ) -> Observations:
        """The checked observations [items, ...] of a message, which is at `path` of the request."""
        files, shape = message.images, model.observation_shape
        if files:
            field = f"{path}images"
            if message.observations.data_type or message.observations.data:
                raise InvalidRequest(field, "expected observations or images, not both")
            if not can_be_images(shape):
                raise InvalidRequest(field, f"{model.resource} has no images as observations")
            if "encoder_uint8" not in model.batchers:
                raise InvalidRequest(field, f"expected observations: {_no_levels(model)}")
            if len(files) > max_items:
                raise InvalidRequest(field, f"expected 1 to {max_items} files, not {len(files)}")
            return await run_on(self._thread, lambda: from_files(files, field, shape))
        tensor, field = message.observations, f"{path}observations"
        if tensor.data_type == tensor_pb2.DATA_TYPE_UINT8:
            if "encoder_uint8" not in model.batchers:
                raise InvalidRequest(f"{field}.data_type", f"expected float32: {_no_levels(model)}")
            return tensors.to_levels(tensor, field, shape, max_items)
        return tensors.to_array(tensor, field, shape, max_items, model.check_observations)

    async def write(
        self, fields: Fields, observations: Observations, encoding: int
    ) -> tuple[Buffer, ...]:
        """The pieces of a response that hold observations [items, ...], as `check` let through."""
        if encoding == vae_pb.OBSERVATION_ENCODING_PNG:
            levels = observations.astype(np.uint8, copy=False)
            files = await run_on(self._thread, lambda: to_png(levels))
            heads = (length_delimited(fields.images, len(file)) for file in files)
            return tuple(itertools.chain.from_iterable(zip(heads, files, strict=True)))
        if encoding == vae_pb.OBSERVATION_ENCODING_FLOAT16:
            return tensor_field(fields.observations, observations.astype(_FLOAT16))
        return tensor_field(fields.observations, observations)


def check_encoding(encoding: int, model: Model) -> bool:
    """Whether it takes the decoder's uint8 levels. Raises InvalidRequest if it cannot be had."""
    field = "observation_encoding"
    if encoding not in _ENCODINGS:
        names = ", ".join(vae_pb.ObservationEncoding.keys()[1:])
        raise InvalidRequest(field, f"expected one of {names}")
    if encoding == vae_pb.OBSERVATION_ENCODING_PNG and not can_be_images(model.observation_shape):
        raise InvalidRequest(field, f"{model.resource} has no images as observations")
    if encoding in _LEVELS and "decoder_uint8" not in model.batchers:
        raise InvalidRequest(field, f"expected float32 or float16: {_no_levels(model)}")
    return encoding in _LEVELS


def _no_levels(model: Model) -> str:
    return f"{model.resource} has no graph for uint8, nor for image files"
