"""Whether a version that is in a repository already is what its manifest says."""

import hashlib
from collections.abc import Iterator

import numpy as np
import onnxruntime
from vae.manifest.v1 import manifest_pb2

from export.checks import graph_faults
from export.errors import ExportError
from export.graphs import Value
from export.stored import MANIFEST, StoredVersion, value_of

_BATCHES = (1, 3)
_NEEDED = {manifest_pb2.GRAPH_KIND_ENCODER, manifest_pb2.GRAPH_KIND_DECODER}


def verify(version: StoredVersion) -> None:
    """Raise ExportError with everything that is wrong with a version.

    Its directory is that of the manifest and holds the manifest's files, whole, and no others;
    each graph keeps the rules of `export.checks`, and in onnxruntime gives outputs of the
    manifest's types and shapes.
    """
    files = version.location.names()
    faults = [*_manifest_faults(version, files)]
    for graph in version.manifest.graphs:
        faults += [f"{graph.file} {fault}" for fault in _graph_faults(version, graph, files)]
    if faults:
        raise ExportError(f"{version} is not as published: {'; '.join(faults)}")


def _manifest_faults(version: StoredVersion, files: set[str]) -> Iterator[str]:
    manifest = version.manifest
    name, number = version.location.path.split("/")[-2:]
    if (manifest.name, str(manifest.version)) != (name, number):
        yield f"the manifest is that of {manifest.name}, version {manifest.version}"
    needed = _NEEDED | ({manifest_pb2.GRAPH_KIND_PRIOR} if manifest.prior == "graph" else set())
    for kind in sorted(needed - {graph.kind for graph in manifest.graphs}):
        yield f"the manifest lacks a {manifest_pb2.GraphKind.Name(kind)}"
    buckets = list(manifest.batch_buckets)
    if not buckets or buckets[0] < 1 or buckets != sorted(set(buckets)):
        yield f"the batch buckets are {buckets}, not ascending sizes from 1"
    for file in sorted(files - {MANIFEST, *(graph.file for graph in manifest.graphs)}):
        yield f"{file} is not in the manifest"


def _graph_faults(
    version: StoredVersion, graph: manifest_pb2.Graph, files: set[str]
) -> Iterator[str]:
    if graph.file not in files:
        yield "is missing"
        return
    content = version.read(graph)
    if len(content) != graph.size_bytes:
        yield f"has {len(content)} bytes, not {graph.size_bytes}"
    if hashlib.sha256(content).hexdigest() != graph.sha256:
        yield "does not have the manifest's SHA-256"
        return
    try:
        inputs = tuple(value_of(spec) for spec in graph.inputs)
        outputs = tuple(value_of(spec) for spec in graph.outputs)
    except ExportError as error:
        yield f"has a value that no graph has: {error}"
        return
    if faults := graph_faults(content, inputs, outputs):
        yield from faults
        return
    yield from _runtime_faults(content, inputs, outputs)


def _runtime_faults(
    content: bytes, inputs: tuple[Value, ...], outputs: tuple[Value, ...]
) -> Iterator[str]:
    try:
        session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
        for batch in _BATCHES:
            feeds = {
                value.name: np.zeros((batch, *value.shape), value.data_type) for value in inputs
            }
            for value, array in zip(outputs, session.run(None, feeds), strict=True):
                expected = f"{value.data_type} {(batch, *value.shape)}"
                if f"{array.dtype} {array.shape}" != expected:
                    yield f"gives {value.name} as {array.dtype} {array.shape}, not {expected}"
    except Exception as error:  # noqa: BLE001 - onnxruntime's errors have no class in common
        yield f"does not run in onnxruntime: {str(error).strip().partition(chr(10))[0]}"
