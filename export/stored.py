"""A version that is in a repository already."""

import re
from dataclasses import dataclass
from typing import get_args

from google.protobuf import json_format
from vae.manifest.v1 import manifest_pb2
from vae.v1 import tensor_pb2

from export.errors import ExportError
from export.graphs import DataType, Value
from export.manifest import FORMAT_VERSION
from export.storage import Location, locate

MANIFEST = "manifest.json"
_DATA_TYPES: dict[tensor_pb2.DataType.ValueType, DataType] = {
    tensor_pb2.DataType.Value(f"DATA_TYPE_{name.upper()}"): name for name in get_args(DataType)
}
_VERSION = re.compile(r"[1-9][0-9]{0,9}")


@dataclass(frozen=True)
class StoredVersion:
    """Where a version lies, and its manifest."""

    location: Location
    manifest: manifest_pb2.Manifest

    def __str__(self) -> str:
        return self.location.address

    def read(self, graph: manifest_pb2.Graph) -> bytes:
        """The file of a graph. Raises ExportError if it cannot be read."""
        return self.location.read(graph.file)


def open_version(address: str, version: int | None = None) -> StoredVersion:
    """The version at REPOSITORY/NAME/VERSION, or of REPOSITORY/NAME the newest or a given one.

    Raises ExportError if there is none, or its manifest is not understood.
    """
    location = locate(address)
    if version is not None:
        location = location.child(str(version))
    elif MANIFEST not in (names := location.names()):
        versions = sorted((name for name in names if _VERSION.fullmatch(name)), key=int)
        whole = (name for name in reversed(versions) if MANIFEST in location.child(name).names())
        newest = next(whole, None)
        if newest is None:
            raise ExportError(f"{address} holds no version; expected REPOSITORY/NAME[/VERSION]")
        location = location.child(newest)
    return StoredVersion(location, _manifest(location))


def value_of(spec: tensor_pb2.TensorSpec) -> Value:
    """An input or output as the manifest describes it. Raises ExportError if it is none."""
    name = _DATA_TYPES.get(spec.data_type)
    if name is None or list(spec.shape[:1]) != [-1]:
        raise ExportError(
            f"{spec.name!r} has data type {spec.data_type} and shape {list(spec.shape)}; "
            f"expected one of {', '.join(_DATA_TYPES.values())}, and -1 for the items first"
        )
    return Value(spec.name, tuple(spec.shape[1:]), name)


def _manifest(location: Location) -> manifest_pb2.Manifest:
    manifest = manifest_pb2.Manifest()
    try:
        json_format.Parse(location.read(MANIFEST), manifest)
    except (json_format.ParseError, UnicodeDecodeError) as error:
        reason = str(error).partition("\n")[0]
        raise ExportError(f"{location.address}/{MANIFEST} is no manifest: {reason}") from error
    if manifest.format_version != FORMAT_VERSION:
        raise ExportError(
            f"{location.address}/{MANIFEST} has format version {manifest.format_version}; "
            f"this version reads {FORMAT_VERSION}"
        )
    return manifest
