"""Protobuf messages around large arrays, which are copied once: into the bytes that are sent.

A message object would copy an array into its field and again when it is serialized. On the wire a
field is its tag, its length and its bytes, and bytes of one message that follow each other make one
message (https://protobuf.dev/programming-guides/encoding), so the small fields are serialized as
ever and an array is put behind them.
"""

import struct
from functools import lru_cache
from typing import Final

import numpy as np
from google.protobuf.message import Message
from numpy.typing import NDArray
from vae.v1 import tensor_pb2

from service.execution import Execution
from service.tensors import DATA_TYPES
from service.transport.spliced import Buffer, Spliced

_LENGTH_DELIMITED: Final = 2
_SMALL: Final = [bytes((value,)) for value in range(0x80)]  # one byte is its own varint
# Tags and values of vae.v1.Execution's queue_seconds (2) and compute_seconds (3), doubles, and the
# tag of batch_size (4).
_EXECUTION: Final = struct.Struct("<BdBdB")
_DATA: Final = tensor_pb2.Tensor.DESCRIPTOR.fields_by_name["data"].number


def number_of(message: type[Message], field: str) -> int:
    """The number of a field of a message."""
    return message.DESCRIPTOR.fields_by_name[field].number


def within(field: int, head: bytes, message: Spliced) -> Spliced:
    """A message with another one in a field, behind the serialized fields of head."""
    return Spliced((head, length_delimited(field, message.size), *message.pieces))


def tensor_field(field: int, array: NDArray[np.generic]) -> tuple[Buffer, ...]:
    """The pieces of a field that holds a vae.v1.Tensor of a float32 or uint8 array."""
    return (_tensor_head(field, array.dtype, array.shape), np.ascontiguousarray(array))


def bytes_field(field: int, array: NDArray[np.generic]) -> tuple[Buffer, ...]:
    """The pieces of a bytes field that holds the elements of an array."""
    return (length_delimited(field, array.nbytes), np.ascontiguousarray(array))


def execution_field(field: int, constant: bytes, execution: Execution) -> bytes:
    """A field that holds a vae.v1.Execution; constant: its serialized provider and
    reproducibility."""
    measured = _EXECUTION.pack(
        0x11, execution.queue_seconds, 0x19, execution.compute_seconds, 0x20
    ) + _varint(execution.batch_items)
    return length_delimited(field, len(constant) + len(measured)) + constant + measured


def length_delimited(field: int, size: int) -> bytes:
    """Tag and length of a field whose contents are so many bytes."""
    return _varint(field << 3 | _LENGTH_DELIMITED) + _varint(size)


@lru_cache(maxsize=1024)
def _tensor_head(field: int, dtype: np.dtype[np.generic], shape: tuple[int, ...]) -> bytes:
    """All of a tensor's field but its elements."""
    size = int(np.prod(shape)) * dtype.itemsize
    head = tensor_pb2.Tensor(data_type=DATA_TYPES[dtype], shape=shape).SerializeToString()
    head += length_delimited(_DATA, size)
    return length_delimited(field, len(head) + size) + head


def _varint(value: int) -> bytes:
    if value < len(_SMALL):
        return _SMALL[value]
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)
