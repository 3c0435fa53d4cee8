"""Tensors of the Open Inference Protocol -> ndarray; its names for our types."""

import math
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from inference import model_config_pb2 as config_pb
from numpy.typing import NDArray

from service import tensors
from service.errors import InvalidRequest
from service.repository import Spec


@dataclass(frozen=True)
class Type:
    """A type's name, its number in Triton's description, and its field of InferTensorContents."""

    name: str
    config: config_pb.DataType.ValueType
    contents: str


_TYPES: Final[dict[np.dtype[Any], Type]] = {
    np.dtype(np.float32): Type("FP32", config_pb.TYPE_FP32, "fp32_contents"),
    np.dtype(np.uint8): Type("UINT8", config_pb.TYPE_UINT8, "uint_contents"),
    np.dtype(np.int64): Type("INT64", config_pb.TYPE_INT64, "int64_contents"),
}


class Input:
    """An input of a graph, and how to read it. Every method raises InvalidRequest."""

    def __init__(
        self, spec: Spec, max_items: int, check: tensors.Check = tensors.check_finite
    ) -> None:
        """check: of values that are real numbers."""
        self.spec = spec
        self.type = type_of(spec)
        self._max_items = max_items
        self._check = check if spec.dtype.kind == "f" else None

    def read(self, tensor: Any, raw: bytes | memoryview | None) -> NDArray[Any]:
        """The array [items, ...] of an InferInputTensor.

        raw: its bytes; None where it must bring its elements in contents.
        """
        name = self.spec.name
        if tensor.datatype != self.type.name:
            raise InvalidRequest(f"{name}.datatype", f"expected {self.type.name}")
        shape = tensors.shape_of(tensor)
        tensors.check_shape(shape, name, self.spec.shape, self._max_items)
        if raw is None:
            array = self._typed(tensor, shape)
        elif tensor.HasField("contents"):
            raise InvalidRequest(f"{name}.contents", "expected none with raw_input_contents")
        else:
            array = tensors.view(raw, name, shape, self.spec.dtype)
        if self._check is not None:
            self._check(array, name)
        return array

    def _typed(self, tensor: Any, shape: tuple[int, ...]) -> NDArray[Any]:
        field = f"{self.spec.name}.contents"
        if not tensor.HasField("contents"):
            if "shared_memory_region" in tensor.parameters:
                raise InvalidRequest(self.spec.name, "shared memory is not served; send the data")
            raise InvalidRequest(field, "expected contents, or raw_input_contents for all inputs")
        expected = self.type.contents
        if any(found.name != expected for found, _ in tensor.contents.ListFields()):
            raise InvalidRequest(
                field, f"expected {expected} only, as datatype is {tensor.datatype}"
            )
        elements = getattr(tensor.contents, expected)
        size = math.prod(shape)
        if len(elements) != size:
            raise InvalidRequest(
                field, f"expected {size} elements for shape {list(shape)}, not {len(elements)}"
            )
        try:
            return np.array(elements, self.spec.dtype).reshape(shape)
        except OverflowError as error:  # a uint32 of the wire that is no uint8
            raise InvalidRequest(field, "expected values from 0 to 255") from error


def type_of(spec: Spec) -> Type:
    """The protocol's type of a tensor's elements."""
    return _TYPES[spec.dtype]
