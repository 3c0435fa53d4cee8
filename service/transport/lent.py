"""Requests whose large contents stay where they arrived.

protobuf copies the contents of a bytes field twice: into the message, and again when somebody looks
at them. So what is large is left out of what protobuf parses, and lent as a view of the serialized
message (https://protobuf.dev/programming-guides/encoding has the format).
"""

from collections.abc import Iterator
from functools import lru_cache
from typing import Any, Final, NamedTuple

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

LARGE: Final = 2**16  # bytes of contents that are lent
_MOST_FIELDS: Final = 1024  # of a message; more are left to protobuf, which is quicker
# Types on the wire.
_VARINT: Final = 0
_LENGTH_DELIMITED: Final = 2
_FIXED: Final = {1: 8, 5: 4}  # bytes
_Descriptor = Any  # of a message, as each of protobuf's implementations has its own class


class Lent:
    """Stands for a message: some of its fields are views, all others are the message's own."""

    def __init__(self, message: Any, cut: "_Cut") -> None:
        """message: cut's rest, parsed."""
        self._message = message
        self._whole = cut.whole
        for name, contents in cut.fields.items():
            if isinstance(contents, _Cut):
                inner = getattr(message, name)
                inner.MergeFromString(contents.rest)
                self.__dict__[name] = Lent(inner, contents)
            else:
                self.__dict__[name] = contents

    def __getattr__(self, name: str) -> Any:
        return getattr(self._message, name)

    def SerializeToString(self) -> bytes:  # noqa: N802 - protobuf's name
        """The message with all that it has."""
        return bytes(self._whole)


class _Cut(NamedTuple):
    """A serialized message, whole, and without the contents of the fields that are lent."""

    whole: memoryview
    rest: bytes
    fields: "dict[str, memoryview | list[memoryview] | _Cut]"


class _Field(NamedTuple):
    """A field that may be lent. inner: the message in it; None for bytes."""

    name: str
    inner: _Descriptor | None
    repeated: bool


class _Unusual(Exception):
    """What only protobuf knows the meaning of."""


def read(kind: type[Message], data: bytes | memoryview) -> Any:
    """The message of data, or what stands for it. Raises protobuf's DecodeError."""
    if len(data) > LARGE:
        try:
            cut = _cut(kind.DESCRIPTOR, memoryview(data))
        except (_Unusual, IndexError):
            cut = None
        if cut is not None and cut.fields:
            return Lent(kind.FromString(cut.rest), cut)
    return kind.FromString(data)  # type: ignore[arg-type]  # it takes any buffer


def contents_at(kind: _Descriptor, head: memoryview, size: int) -> int:
    """Where the first large contents of a message of that size begin, as far as its head tells;
    else 0."""
    if size <= LARGE:
        return 0
    try:
        for number, _, begin, end in _spans(head, size):
            field = _lendable(kind).get(number)
            if field is not None and end - begin > LARGE:
                if field.inner is None:
                    return begin
                return begin + contents_at(field.inner, head[begin:], end - begin)
    except (_Unusual, IndexError):
        pass
    return 0


def _cut(kind: _Descriptor, whole: memoryview) -> _Cut:
    """Raises _Unusual or IndexError where the message has to be left to protobuf."""
    kept: list[bytes | memoryview] = []
    fields: dict[str, memoryview | list[memoryview] | _Cut] = {}
    lists: dict[str, list[memoryview]] = {}
    seen: set[str] = set()
    since = 0
    for number, length, begin, end in _spans(whole, len(whole)):
        field = _lendable(kind).get(number)
        if field is None:
            continue
        name, contents = field.name, whole[begin:end]
        if field.repeated:
            fields[name] = lists.setdefault(name, [])
            lists[name].append(contents)
        elif name in seen:
            raise _Unusual  # protobuf merges messages, and takes the last of bytes
        else:
            seen.add(name)
            if len(contents) <= LARGE:
                continue
            cut = None if field.inner is None else _cut(field.inner, contents)
            if cut is not None and not cut.fields:
                continue
            fields[name] = contents if cut is None else cut
        kept += (whole[since:length], b"\0")  # present, and empty
        since = end
    return _Cut(whole, b"".join((*kept, whole[since:])), fields)


def _spans(data: memoryview, size: int) -> Iterator[tuple[int, int, int, int]]:
    """The length-delimited fields of a message: number, and where their length, their contents and
    the next field begin. Raises _Unusual, and IndexError where data ends before the message."""
    position = 0
    for _ in range(_MOST_FIELDS):
        if position >= size:
            return
        tag, position = _varint(data, position)
        wire_type = tag & 7
        if wire_type == _LENGTH_DELIMITED:
            length = position
            count, begin = _varint(data, length)
            position = begin + count
            if position > size:
                raise _Unusual
            yield tag >> 3, length, begin, position
        elif wire_type == _VARINT:
            _, position = _varint(data, position)
        elif wire_type in _FIXED:
            position += _FIXED[wire_type]
        else:
            raise _Unusual
    raise _Unusual


def _varint(data: memoryview, position: int) -> tuple[int, int]:
    value = data[position]
    if value < 0x80:
        return value, position + 1
    value &= 0x7F
    for shift in range(7, 70, 7):
        position += 1
        value |= (data[position] & 0x7F) << shift
        if data[position] < 0x80:
            return value, position + 1
    raise _Unusual


@lru_cache(maxsize=256)
def _lendable(kind: _Descriptor) -> dict[int, _Field]:
    """By their numbers. One of a oneof is not: a later one takes its place."""
    return {
        field.number: _Field(field.name, field.message_type, field.is_repeated)
        for field in kind.fields
        if field.containing_oneof is None
        and (
            field.type == FieldDescriptor.TYPE_BYTES
            or (field.type == FieldDescriptor.TYPE_MESSAGE and not field.is_repeated)
        )
    }
