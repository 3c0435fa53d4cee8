"""Frozen dataclasses from JSON, TOML and `--set` text, strictly, by their annotations.

A field may be a dataclass, or a union of dataclasses with a tag: the field `family`, a Literal.
A new field needs no parser.
"""

import difflib
import types
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import MISSING, Field, asdict, is_dataclass
from dataclasses import fields as fields_of
from typing import Any, Literal, Union, cast, get_args, get_origin, get_type_hints

from training.errors import TrainingError

TAG = "family"


def to_document(value: Any) -> dict[str, Any]:
    """A dataclass as JSON values; tuples become lists."""
    return cast("dict[str, Any]", _plain(asdict(value)))


def from_document(owner: type, document: object, prefix: str = "") -> Any:
    """Inverse of `to_document`; absent keys take their defaults, so that old documents are read.

    Raises TrainingError for unknown keys, naming the nearest, for values of a wrong type, and for
    an absent key that has no default.
    """
    if not isinstance(document, Mapping):
        raise TrainingError(f"configuration {prefix or 'document'!r} must be an object")
    hints = get_type_hints(owner)
    for key in sorted(map(str, set(document) - set(hints))):
        raise TrainingError(f"unknown configuration key {prefix + key!r}{nearest(key, hints)}")
    needed = [item.name for item in fields_of(owner) if _is_required(item)]
    missing = [name for name in needed if name not in document]
    if missing:
        raise TrainingError(f"missing configuration key {prefix + missing[0]!r}")
    values: dict[str, Any] = {}
    for name, value in document.items():
        if members := _sections(hints[name]):
            section = _member(members, value, f"{prefix}{name}")
            values[name] = from_document(section, value, f"{prefix}{name}.")
        else:
            values[name] = _checked(hints[name], value, prefix + name)
    return owner(**values)


def with_texts(value: Any, texts: Mapping[str, str], fixed: Iterable[str] = ()) -> Any:
    """The dataclass with dotted keys replaced by parsed text, but for those that are `fixed`.

    A tuple is written "200,200" and an absent value "none". Another tag (`model.family=conv`)
    keeps what both dataclasses know. Raises TrainingError for a key that does not exist, with the
    nearest that does, and for text that does not fit the key's type.
    """
    document = to_document(value)
    owners = {"": type(value)}
    for name, hint in get_type_hints(type(value)).items():
        if members := _sections(hint):
            tag = texts.get(f"{name}.{TAG}")
            owner = type(getattr(value, name))
            if tag is not None and TAG in get_type_hints(owner):
                owner = _member(members, {TAG: tag}, name)
                known = get_type_hints(owner)
                kept = {key: item for key, item in document[name].items() if key in known}
                document[name] = kept | {TAG: tag}
            owners[name + "."] = owner
    hints = {
        section + name: hint
        for section, owner in owners.items()
        for name, hint in get_type_hints(owner).items()
        if not _sections(hint) and section + name not in fixed
    }
    for key, text in texts.items():
        if key not in hints:
            raise TrainingError(f"unknown setting {key!r}{nearest(key, hints)}")
        section, _, name = key.rpartition(".")
        target = document[section] if section else document
        target[name] = _plain(_parse(hints[key], text, key))
    return from_document(type(value), document)


def nearest(key: str, known: Iterable[str]) -> str:
    """Words for the end of a message: which known key looks like this one, or all of them."""
    names = sorted(known)
    close = difflib.get_close_matches(key, names, n=1, cutoff=0.5)
    return f"; did you mean {close[0]!r}?" if close else f"; known: {', '.join(names)}"


def _is_required(item: Field[Any]) -> bool:
    return item.default is MISSING and item.default_factory is MISSING


def _sections(hint: Any) -> tuple[type, ...]:
    """The dataclasses that an annotation allows; none if it is a plain value."""
    members = get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)
    return tuple(m for m in members if isinstance(m, type) and is_dataclass(m))


def _member(members: tuple[type, ...], document: object, key: str) -> type:
    if len(members) == 1:
        return members[0]
    if not isinstance(document, Mapping):
        raise TrainingError(f"configuration {key!r} must be an object")
    by_tag = {get_args(get_type_hints(member)[TAG])[0]: member for member in members}
    tag = document.get(TAG)
    if not isinstance(tag, str) or tag not in by_tag:
        raise TrainingError(f"{key}.{TAG} must be one of {', '.join(by_tag)}, not {tag!r}")
    return by_tag[tag]


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return list(value) if isinstance(value, tuple) else value


def _checked(hint: Any, value: Any, key: str) -> Any:
    """A JSON value as the annotated type; bool is no int, and an int is a fine float."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        if value is None and type(None) in arguments:
            return None
        for argument in arguments:
            with suppress(TrainingError):
                return _checked(argument, value, key)
    if origin is Literal and value in arguments and type(value) is str:
        return value
    if origin is tuple and isinstance(value, list | tuple):
        return tuple(_checked(arguments[0], item, key) for item in value)
    if hint is float and type(value) is int:
        with suppress(OverflowError):  # larger than any float: refused below
            return float(value)
    if type(value) is hint:
        return value
    raise TrainingError(f"{key} must be {_describe(hint)}, not {value!r}")


def _parse(hint: Any, text: str, key: str) -> Any:
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        if text.lower() == "none" and type(None) in arguments:
            return None
        for argument in arguments:
            if argument is not type(None):
                with suppress(TrainingError):
                    return _parse(argument, text, key)
    elif origin is Literal:
        return _checked(hint, text, key)
    elif origin is tuple:
        return tuple(_parse(arguments[0], item, key) for item in text.split(",") if item.strip())
    elif hint is bool:
        if text.lower() in ("true", "false"):
            return text.lower() == "true"
    else:
        with suppress(ValueError):
            return hint(text)
    raise TrainingError(f"{key} must be {_describe(hint)}, not {text!r}")


def _describe(hint: Any) -> str:
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        return " or ".join(
            _describe(argument) for argument in arguments if argument is not type(None)
        )
    if origin is Literal:
        return f"one of {', '.join(arguments)}"
    names = {int: "an integer", float: "a number", str: "text", bool: "true or false"}
    return names.get(hint, "a list of integers")
