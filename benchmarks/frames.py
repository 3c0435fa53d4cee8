"""The bytes of HTTP/2 (RFC 9113) and its header blocks (RFC 7541), as far as `http2` needs them."""

import re
import struct
from collections.abc import Mapping

DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE = 0, 1, 3, 4, 6, 7, 8
END_STREAM, ACK, END_HEADERS = 1, 1, 4
HEADER_TABLE_SIZE, ENABLE_PUSH, MAX_CONCURRENT_STREAMS, INITIAL_WINDOW_SIZE, MAX_FRAME_SIZE = (
    *range(1, 6),
)
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
OK = "OK"
NO_STATUS = "NO_STATUS"

_CODES = [
    "OK",
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
]
_STATUS = re.compile(rb"grpc-status([\x01\x02])(\d{1,2})")


def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    """A whole frame."""
    return head(len(payload), kind, flags) + stream.to_bytes(4, "big") + payload


def head(length: int, kind: int, flags: int) -> bytes:
    """The first five bytes of a frame; its stream's number and the payload follow."""
    return length.to_bytes(3, "big") + bytes((kind, flags))


def settings(values: Mapping[int, int]) -> bytes:
    """A SETTINGS frame."""
    payload = b"".join(struct.pack(">HI", name, value) for name, value in values.items())
    return frame(SETTINGS, 0, 0, payload)


def read_settings(payload: bytes) -> dict[int, int]:
    """The values of a SETTINGS frame."""
    return dict(struct.iter_unpack(">HI", payload))


def header_blocks(path: str, authority: str) -> tuple[bytes, bytes]:
    """The headers of the first call of a connection, and of every later one.

    As with other gRPC clients, the first fills the server's header table with literals and the
    later ones name its entries, so that they cost a server what they cost it elsewhere.
    """
    # Literals with indexing: by static name 4 (:path), 1 (:authority), 31, 58, and a new name.
    fields = (
        (b"\x44", path),
        (b"\x41", authority),
        (b"\x40\x02te", "trailers"),
        (b"\x5f", "application/grpc"),
        (b"\x7a", "vae-serving-benchmarks"),
    )
    fixed = b"\x83\x86"  # static entries: POST, http
    literals = [name + bytes((len(value),)) + value.encode() for name, value in fields]
    newest = 62  # the static table ends at 61; the entry added last comes first
    indices = reversed(range(newest, newest + len(fields)))
    return fixed + b"".join(literals), fixed + bytes(0x80 | index for index in indices)


def reset(payload: bytes) -> str:
    """The reason in a RST_STREAM frame; a server refuses a stream that it has not looked at."""
    number = int.from_bytes(payload, "big")
    return {7: "REFUSED_STREAM", 8: "CANCEL"}.get(number, f"RESET_{number}")


def status(block: bytes) -> str:
    """The gRPC code in a block of trailers that was written without a header table.

    NO_STATUS if it cannot be found: never taken for OK.
    """
    match = _STATUS.search(block)
    if match is None or len(match[2]) != match[1][0] or int(match[2]) >= len(_CODES):
        return NO_STATUS
    return _CODES[int(match[2])]
