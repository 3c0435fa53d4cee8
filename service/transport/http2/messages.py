"""gRPC's messages in a stream's bytes: a prefix of five bytes, then the message.

The prefix says whether the message is compressed (one byte) and how long it is (four).
"""

import struct
import zlib
from collections.abc import Iterator
from typing import Final

import grpc

PREFIX: Final = 5
read_prefix = struct.Struct(">BL").unpack_from
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
    """Messages that come in pieces, or compressed."""

    def __init__(self, max_size: int, encoding: bytes) -> None:
        """max_size: bytes of a message, before and after decompression."""
        self._max_size = max_size
        self._encoding = encoding
        self._buffer = bytearray()

    @property
    def empty(self) -> bool:
        """Whether no message has begun."""
        return not self._buffer

    def feed(self, data: bytes) -> Iterator[bytes]:
        """The messages that are whole with data. Raises Unreadable."""
        buffer = self._buffer
        buffer += data
        while len(buffer) >= PREFIX:
            compressed, size = read_prefix(buffer)
            if size > self._max_size:
                raise self._too_large(size)
            if len(buffer) < PREFIX + size:
                return
            message = bytes(memoryview(buffer)[PREFIX : PREFIX + size])
            del buffer[: PREFIX + size]
            yield Packed(message) if compressed else message

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
