"""gRPC's messages in a stream's bytes: a prefix of five bytes, then the message.

The prefix says whether the message is compressed (one byte) and how long it is (four).
"""

import struct
import zlib
from collections.abc import Iterator
from typing import Final

import grpc
import numpy as np
from google.protobuf.message import Message

from service.transport.lent import contents_at

PREFIX: Final = 5
read_prefix = struct.Struct(">BL").unpack_from
_AHEAD: Final = 32
_ALIGNMENT: Final = 16  # bytes; allocators give it to every array
_NOTHING: Final = memoryview(bytearray())
_WINDOW_BITS: Final = {b"gzip": 31, b"deflate": 15}  # as zlib counts them


class Unreadable(Exception):
    """The stream holds no message that is taken; its RPC ends with this code."""

    def __init__(self, code: grpc.StatusCode, text: str) -> None:
        super().__init__(text)
        self.code = code
        self.text = text


class Packed(bytes):
    """A compressed message: what it takes as it came, until somebody wants it."""


class Unpacker:
    """Messages that come in pieces, or compressed.

    Each is put together where it stays. Of the memory that a message announces, only as much as
    `_AHEAD` times what has come of it is asked of the system, and none is touched before. Large
    contents, which will be numpy's, begin at an address that its types may have.
    """

    def __init__(self, max_size: int, encoding: bytes, kind: type[Message]) -> None:
        """max_size: bytes of a message, before and after decompression."""
        self._max_size = max_size
        self._encoding = encoding
        self._kind = kind
        self._prefix = b""
        self._room = _NOTHING  # for the message, or for the first part of it
        self._filled = 0  # bytes of it

    @property
    def empty(self) -> bool:
        """Whether no message has begun."""
        return not self._prefix

    def feed(self, data: bytes, start: int, end: int) -> Iterator[bytes | memoryview]:
        """The messages that are whole with data[start:end]. Raises Unreadable."""
        piece = memoryview(data)[start:end]
        while piece:
            missing = PREFIX - len(self._prefix)
            self._prefix += piece[:missing]
            piece = piece[missing:]
            if len(self._prefix) < PREFIX:
                return
            compressed, size = read_prefix(self._prefix)
            if size > self._max_size:
                raise self._too_large(size)
            piece = self._fill(piece, size)
            if self._filled < size:
                return
            message = self._room.toreadonly()
            self._prefix, self._room, self._filled = b"", _NOTHING, 0
            yield Packed(message) if compressed else message

    def _fill(self, piece: memoryview, size: int) -> memoryview:
        """Takes the bytes of a message of that size; returns those behind it."""
        filled = self._filled
        end = min(filled + len(piece), size)
        if end > len(self._room):
            head = self._room[:filled] or piece
            shift = -contents_at(self._kind.DESCRIPTOR, head, size) % _ALIGNMENT
            room = np.empty(shift + min(size, _AHEAD * end), np.uint8).data[shift:]
            room[:filled] = self._room[:filled]
            self._room = room
        self._room[filled:end] = piece[: end - filled]
        self._filled = end
        return piece[end - filled :]

    def unpack(self, message: Packed) -> bytes:
        """The message itself. Raises Unreadable."""
        bits = _WINDOW_BITS.get(self._encoding)
        if bits is None:
            raise Unreadable(
                grpc.StatusCode.UNIMPLEMENTED, "grpc-encoding: expected identity, deflate or gzip"
            )
        unpacker = zlib.decompressobj(bits)
        try:
            data = unpacker.decompress(message, self._max_size)
            if not unpacker.eof and unpacker.decompress(unpacker.unconsumed_tail, 1):
                raise self._too_large(self._max_size + 1)
        except zlib.error:
            raise Unreadable(
                grpc.StatusCode.INTERNAL, "the compressed message is damaged"
            ) from None
        if not unpacker.eof:
            raise Unreadable(grpc.StatusCode.INTERNAL, "the compressed message is cut short")
        return data

    def _too_large(self, size: int) -> Unreadable:
        return Unreadable(
            grpc.StatusCode.RESOURCE_EXHAUSTED,
            f"a message of {size} bytes or more: at most {self._max_size} are taken",
        )
