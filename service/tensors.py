"""Wire <-> ndarray, with no copy but protobuf's own on the way in."""

import math

import numpy as np
from numpy.typing import NDArray
from vae.v1 import tensor_pb2

from service.errors import InvalidRequest


def to_array(
    tensor: tensor_pb2.Tensor, field: str, item_shape: tuple[int, ...], max_items: int
) -> NDArray[np.float32]:
    """A read-only view [items, *item_shape] float32 on the tensor's bytes.

    Raises InvalidRequest that names the part of field at fault: type, shape, byte count, or a value
    that is not finite.
    """
    if tensor.data_type != tensor_pb2.DATA_TYPE_FLOAT32:
        raise InvalidRequest(f"{field}.data_type", "expected DATA_TYPE_FLOAT32")
    shape = tuple(tensor.shape)
    if not shape or shape[1:] != item_shape:
        expected = f"[items, {', '.join(map(str, item_shape))}]"
        raise InvalidRequest(f"{field}.shape", f"expected {expected}, not {list(shape)[:8]}")
    if not 1 <= shape[0] <= max_items:
        raise InvalidRequest(f"{field}.shape", f"expected 1 to {max_items} items, not {shape[0]}")
    size = math.prod(shape) * 4
    data = tensor.data  # protobuf copies at every access
    if len(data) != size:
        raise InvalidRequest(
            f"{field}.data",
            f"expected {size} bytes for shape {list(shape)}, not {len(data)}",
        )
    values = np.frombuffer(data, "<f4")
    if not np.isfinite(values).all():
        raise InvalidRequest(f"{field}.data", "expected finite values, found NaN or infinity")
    return values.reshape(shape)


def from_array(array: NDArray[np.float32]) -> tensor_pb2.Tensor:
    """The tensor of a float32 array; its bytes are copied once."""
    return tensor_pb2.Tensor(
        data_type=tensor_pb2.DATA_TYPE_FLOAT32, shape=array.shape, data=array.tobytes()
    )
