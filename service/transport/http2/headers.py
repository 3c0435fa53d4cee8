"""Header blocks: what gRPC reads in a request's and writes into an answer's.

What we write names static entries or is literal, so that it depends on no table: the same bytes on
every connection. What clients write depends on the table of their connection, but as soon as they
have filled it, the blocks of their calls repeat, and a block that changes no table means the same
as long as nothing else changes it: `HeaderReader` remembers those.
"""

import base64
from collections import deque
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import quote

import grpc
from hpack import Decoder
from hpack.exceptions import HPACKError, OversizedHeaderListError

from service.transport.http2.frames import ErrorCode, ProtocolError
from service.transport.metadata import MAX_METADATA, REQUEST_ID, request_id, values_of

_MAX_READ: Final = 2**18  # bytes that are read at all, so that only the call is refused
_ENTRY: Final = 32  # bytes that HPACK adds to a field
_MAX_TEXT: Final = 1024  # of a status; the details of one are left out beyond _MAX_DETAILS
_MAX_DETAILS: Final = 4096
_REMEMBERED: Final = 64  # blocks of a connection
_UNITS: Final = {b"H": 3600.0, b"M": 60.0, b"S": 1.0, b"m": 1e-3, b"u": 1e-6, b"n": 1e-9}
_MAX_TIMEOUT_DIGITS: Final = 8


@dataclass(frozen=True, slots=True)
class RequestHeaders:
    """Of a request: its path "/SERVICE/METHOD", its timeout in seconds, the encoding of compressed
    messages, all its fields, and their bytes as HPACK counts them. `http_status`: 200 if it is
    gRPC, else HTTP's answer; `fault`: what is wrong with it as gRPC, and the code that says so;
    `request_id`: its client's name for it, or ""."""

    path: bytes
    timeout: float | None
    encoding: bytes
    fields: tuple[tuple[bytes, bytes], ...]
    size: int
    http_status: int
    fault: tuple[grpc.StatusCode, str] | None = None
    request_id: str = ""


class HeaderReader:
    """Reads the header blocks of one connection, in the order in which they arrive."""

    def __init__(self) -> None:
        self._decoder = Decoder(max_header_list_size=_MAX_READ)
        self._known: dict[bytes, RequestHeaders] = {}

    def read(self, block: bytes) -> RequestHeaders:
        """Raises ProtocolError for what is no header block."""
        known = self._known.get(block)
        if known is not None:
            return known
        before = self._state()
        try:
            fields = tuple((bytes(n), bytes(v)) for n, v in self._decoder.decode(block, raw=True))
        except OversizedHeaderListError as error:
            raise ProtocolError(ErrorCode.ENHANCE_YOUR_CALM, "too many headers") from error
        except HPACKError as error:
            raise ProtocolError(ErrorCode.COMPRESSION_ERROR, "a header block is broken") from error
        read = _request(fields)
        if self._state() != before or len(self._known) == _REMEMBERED:
            self._known.clear()
        else:
            self._known[block] = read
        return read

    def _state(self) -> tuple[int, int, Any]:
        """Equal before and after whatever leaves the table as it was: an insertion makes another
        entry the newest one, even if it pushes an equal one out."""
        table: Any = self._decoder.header_table
        entries: deque[Any] = table.dynamic_entries
        newest = entries[0] if entries else None
        return table.maxsize, len(entries), _Same(newest)


class _Same:
    """Equal only if it holds the very same object."""

    __slots__ = ("_thing",)
    __hash__ = None  # type: ignore[assignment]

    def __init__(self, thing: object) -> None:
        self._thing = thing

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same) and self._thing is other._thing


def _request(fields: tuple[tuple[bytes, bytes], ...]) -> RequestHeaders:
    by_name = dict(fields)
    http_status = 200
    fault: tuple[grpc.StatusCode, str] | None = None
    if by_name.get(b":method") != b"POST":
        http_status = 405
    elif not by_name.get(b"content-type", b"").startswith(b"application/grpc"):
        http_status = 415
    timeout = None
    text = by_name.get(b"grpc-timeout")
    if text is not None:
        digits, unit = text[:-1], _UNITS.get(text[-1:])
        if unit is None or not digits.isdigit() or len(digits) > _MAX_TIMEOUT_DIGITS:
            expected = "grpc-timeout: expected at most 8 digits and one of H M S m u n"
            fault = grpc.StatusCode.INVALID_ARGUMENT, expected
        else:
            timeout = int(digits) * unit
    size = sum(len(name) + len(value) + _ENTRY for name, value in fields)
    if size > MAX_METADATA:
        expected = f"metadata: expected at most {MAX_METADATA} bytes, not {size}"
        fault = grpc.StatusCode.RESOURCE_EXHAUSTED, expected
    wrong = _malformed(fields)
    if wrong is not None:
        fault = grpc.StatusCode.INVALID_ARGUMENT, f"metadata: {wrong}"
    path = by_name.get(b":path", b"")
    encoding = by_name.get(b"grpc-encoding", b"identity")
    identity = request_id(values_of(fields, REQUEST_ID))
    return RequestHeaders(path, timeout, encoding, fields, size, http_status, fault, identity)


def _malformed(fields: tuple[tuple[bytes, bytes], ...]) -> str | None:
    """What makes a request malformed by RFC 9113, sections 8.2.1 and 8.3; None for nothing.

    A proxy in front may take the other one of two paths, and with it other rights.
    """
    names, values = [name for name, _ in fields], b"".join([value for _, value in fields])
    together = b"".join(names)
    pseudo = [name for name in names if name.startswith(b":")]
    if b"\0" in values or b"\n" in values or b"\r" in values:
        return "a value holds a null or an end of line"
    if together != together.lower() or b"" in names:
        return "a name is empty or has upper case letters"
    if len(set(pseudo)) < len(pseudo) or names[: len(pseudo)] != pseudo:
        return "a pseudo-header is there twice, or after others"
    return None


def block(fields: tuple[tuple[str, str], ...]) -> bytes:
    """A header block of literals that enter no table (RFC 7541, section 6.2.2)."""
    return b"".join(b"\x00" + _text(name) + _text(value) for name, value in fields)


def _text(text: str) -> bytes:
    data = text.encode()
    return _integer(len(data)) + data


def _integer(value: int) -> bytes:
    """With a prefix of seven bits whose eighth is 0 (RFC 7541, section 5.1)."""
    if value < 0x7F:
        return bytes((value,))
    encoded, value = bytearray(b"\x7f"), value - 0x7F
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


_STATUS_200: Final = b"\x88"  # entry 8 of the static table
OPENING: Final = _STATUS_200 + block(
    (("content-type", "application/grpc"), ("grpc-accept-encoding", "identity,deflate,gzip"))
)
OK_TRAILERS: Final = block((("grpc-status", "0"),))


def trailers(code: int, text: str, details: bytes | None = None, request_id: str = "") -> bytes:
    """The block that ends an RPC: status, message, serialized google.rpc.Status, request's id."""
    fields = [("grpc-status", str(code))]
    if text:
        fields.append(
            ("grpc-message", quote(text[:_MAX_TEXT], safe=" !\"#$&'()*+,-./:;<=>?@[\\]^_`{|}~"))
        )
    if details and len(details) <= _MAX_DETAILS:
        encoded = base64.b64encode(details).decode().rstrip("=")
        fields.append(("grpc-status-details-bin", encoded))
    if request_id:
        fields.append((REQUEST_ID, request_id))
    return block(tuple(fields))


def http_answer(status: int) -> bytes:
    """The block that answers what is no gRPC request."""
    return block(((":status", str(status)),))
