"""Wire <-> ndarray, with no copy but protobuf's own, of what is not large, on the way in."""

import math
from collections.abc import Callable
from typing import Any, Final, TypeVar

import numpy as np
from numpy.typing import NDArray
from vae.v1 import tensor_pb2

from service.errors import InvalidRequest

T = TypeVar("T", bound=np.generic)
DTYPES: Final[dict[tensor_pb2.DataType.ValueType, np.dtype[Any]]] = {
    tensor_pb2.DATA_TYPE_FLOAT32: np.dtype("<f4"),
    tensor_pb2.DATA_TYPE_UINT8: np.dtype("u1"),
    tensor_pb2.DATA_TYPE_INT64: np.dtype("<i8"),
    tensor_pb2.DATA_TYPE_FLOAT16: np.dtype("<f2"),
}
DATA_TYPES: Final = {dtype: data_type for data_type, dtype in DTYPES.items()}
_FLOAT32: Final = np.dtype("<f4")
_UINT8: Final = np.dtype("u1")
_INT64: Final = np.dtype("<i8")


Check = Callable[[NDArray[np.float32], str], None]
"""Raises InvalidRequest of a field for values that are not good."""


def check_finite(array: NDArray[np.float32], field: str) -> None:
    """Raises InvalidRequest of field if a value is NaN or infinite."""
    # A finite sum of squares has finite terms, and BLAS is quick; an infinite one may have, too.
    # vdot does not warn of the latter, as dot does.
    if not math.isfinite(np.vdot(array, array)) and not np.isfinite(array).all():
        raise InvalidRequest(f"{field}.data", "expected finite values, found NaN or infinity")


def to_array(
    tensor: tensor_pb2.Tensor,
    field: str,
    item_shape: tuple[int, ...],
    max_items: int,
    check: Check = check_finite,
) -> NDArray[np.float32]:
    """A read-only view [items, *item_shape] float32 on the tensor's bytes.

    check: of its values. Raises InvalidRequest that names the part of field at fault: type, shape,
    byte count, or a value.
    """
    if tensor.data_type != tensor_pb2.DATA_TYPE_FLOAT32:
        raise InvalidRequest(f"{field}.data_type", "expected DATA_TYPE_FLOAT32")
    shape = shape_of(tensor)
    check_shape(shape, field, item_shape, max_items)
    values = view(tensor.data, field, shape, _FLOAT32)  # protobuf copies at every access
    check(values, field)
    return values


def to_levels(
    tensor: tensor_pb2.Tensor,
    field: str,
    item_shape: tuple[int, ...],
    max_items: int,
) -> NDArray[np.uint8]:
    """As to_array, for a tensor of uint8, whose every value is good."""
    shape = shape_of(tensor)
    check_shape(shape, field, item_shape, max_items)
    return view(tensor.data, field, shape, _UINT8)


def to_codes(
    tensor: tensor_pb2.Tensor,
    field: str,
    item_shape: tuple[int, ...],
    max_items: int,
) -> NDArray[np.int64]:
    """As to_array, for a tensor of int64, whose values are not looked at."""
    if tensor.data_type != tensor_pb2.DATA_TYPE_INT64:
        raise InvalidRequest(f"{field}.data_type", "expected DATA_TYPE_INT64")
    shape = shape_of(tensor)
    check_shape(shape, field, item_shape, max_items)
    return view(tensor.data, field, shape, _INT64)


def shape_of(tensor: Any) -> tuple[int, ...]:
    """The shape in a message of either protocol. Taking its elements singly is twice as slow."""
    return tuple(tensor.shape[:])


def check_shape(
    shape: tuple[int, ...], field: str, item_shape: tuple[int, ...], max_items: int
) -> None:
    """Raises InvalidRequest of field if shape is not [1 to max_items, *item_shape]."""
    if not shape or shape[1:] != item_shape:
        expected = f"[{', '.join(map(str, ('items', *item_shape)))}]"
        raise InvalidRequest(f"{field}.shape", f"expected {expected}, not {list(shape)[:8]}")
    if not 1 <= shape[0] <= max_items:
        raise InvalidRequest(f"{field}.shape", f"expected 1 to {max_items} items, not {shape[0]}")


def view(
    data: bytes | memoryview, field: str, shape: tuple[int, ...], dtype: np.dtype[T]
) -> NDArray[T]:
    """A read-only view [*shape] on little-endian data; a copy where that lies at an odd address.

    Raises InvalidRequest of field if shape takes another number of bytes.
    """
    size = math.prod(shape) * dtype.itemsize
    if len(data) != size:
        raise InvalidRequest(
            f"{field}.data",
            f"expected {size} bytes for shape {list(shape)}, not {len(data)}",
        )
    array = np.ndarray(shape, dtype, data)
    return array if array.flags.aligned else array.copy()


def from_array(array: NDArray[np.generic]) -> tensor_pb2.Tensor:
    """The tensor of a float32, uint8 or int64 array; its bytes are copied once."""
    return tensor_pb2.Tensor(
        data_type=DATA_TYPES[array.dtype], shape=array.shape, data=array.tobytes()
    )
