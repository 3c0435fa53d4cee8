"""A model version on disk: verify, read. What it returns is immutable.

REPOSITORY/NAME/VERSION/manifest.json, encoder.onnx, decoder.onnx [, prior.onnx, scorer.onnx]
"""

import hashlib
import math
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from google.protobuf import json_format
from numpy.typing import NDArray
from vae.manifest.v1 import manifest_pb2
from vae.v1 import tensor_pb2

from service.tensors import DTYPES

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
VERSION = re.compile(r"[1-9][0-9]{0,9}")
MANIFEST_FILE = "manifest.json"
_FORMAT_VERSION = 1
_FLOAT32 = "float32"
_KINDS = {
    manifest_pb2.GRAPH_KIND_ENCODER: "encoder",
    manifest_pb2.GRAPH_KIND_DECODER: "decoder",
    manifest_pb2.GRAPH_KIND_PRIOR: "prior",
    manifest_pb2.GRAPH_KIND_ENCODER_UINT8: "encoder_uint8",
    manifest_pb2.GRAPH_KIND_SCORER: "scorer",
    manifest_pb2.GRAPH_KIND_SCORER_UINT8: "scorer_uint8",
}


LEVELS = "observations_uint8"


def shown(name: str) -> str:
    """A client's name of a model as an error may repeat it: only if it could be one."""
    return name if NAME.fullmatch(name) else "of that name"


class RepositoryError(RuntimeError):
    """A repository or a version in it cannot be served; the text says what was expected."""


@dataclass(frozen=True)
class Spec:
    """An input or output of a graph: [items, *shape] of dtype."""

    name: str
    dtype: np.dtype[np.generic]
    shape: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        """Bytes of one item."""
        return math.prod(self.shape) * self.dtype.itemsize

    def zeros(self, items: int) -> NDArray[np.generic]:
        """Something to warm up with."""
        return np.zeros((items, *self.shape), self.dtype)


@dataclass(frozen=True)
class Graph:
    """One ONNX file, its inputs and outputs. content: its verified bytes, until it is loaded.
    precision: of its weights.
    """

    file: str
    content: bytes
    inputs: tuple[Spec, ...]
    outputs: tuple[Spec, ...]
    precision: str = _FLOAT32

    def input(self, name: str) -> Spec:
        """The input of that name. Raises RepositoryError if the graph has none."""
        for spec in self.inputs:
            if spec.name == name:
                return spec
        raise RepositoryError(f"a graph of the manifest has no input {name!r}, which its kind has")

    @property
    def output_names(self) -> tuple[str, ...]:
        """The names of the outputs."""
        return tuple(spec.name for spec in self.outputs)


@dataclass(frozen=True)
class ModelVersion:
    """One verified version. digest: SHA-256 of its manifest. graphs: by "encoder", "decoder"."""

    name: str
    version: int
    manifest: manifest_pb2.Manifest
    digest: str
    graphs: Mapping[str, Graph]

    @property
    def files(self) -> int:
        """How many files the graphs are in, and so how many sessions run them."""
        return len({graph.file for graph in self.graphs.values()})

    def loaded(self) -> "ModelVersion":
        """The same without bytes, of which sessions have their own copy."""
        graphs = {kind: replace(graph, content=b"") for kind, graph in self.graphs.items()}
        return replace(self, graphs=graphs)


def read_version(root: Path, name: str, version: int, precision: str = _FLOAT32) -> ModelVersion:
    """Reads and verifies root/name/version, graphs of that precision where it has them.

    Raises RepositoryError when a file is missing, damaged or outside root, or the manifest is not
    understood.
    """
    folder = root / name / str(version)
    text = _read(root, folder / MANIFEST_FILE)
    manifest = manifest_pb2.Manifest()
    try:
        json_format.Parse(text, manifest)
    except (json_format.ParseError, UnicodeDecodeError) as error:
        raise RepositoryError(f"{folder}/manifest.json is not a manifest: {error}") from error
    if manifest.format_version != _FORMAT_VERSION:
        raise RepositoryError(
            f"{folder}/manifest.json has format version {manifest.format_version}; "
            f"this service reads {_FORMAT_VERSION}"
        )
    if (manifest.name, manifest.version) != (name, version):
        raise RepositoryError(
            f"{folder}/manifest.json is that of {manifest.name}, version {manifest.version}"
        )
    graphs: dict[str, Graph] = {}
    for graph in _preferred(manifest, precision):
        kind = _KINDS.get(graph.kind)
        if kind is None:
            raise RepositoryError(
                f"{folder}/manifest.json names a graph of unknown kind {graph.kind}"
            )
        content = _read(root, folder / graph.file)
        if hashlib.sha256(content).hexdigest() != graph.sha256:
            raise RepositoryError(f"{folder / graph.file} does not have the manifest's SHA-256")
        inputs = tuple(_spec(folder, spec) for spec in graph.inputs)
        outputs = tuple(_spec(folder, spec) for spec in graph.outputs)
        graphs[kind] = Graph(graph.file, content, inputs, outputs, graph.precision or _FLOAT32)
    graphs |= _levels_apart(graphs)
    needed = {"encoder", "decoder"} | ({"prior"} if manifest.prior == "graph" else set())
    if missing := needed - graphs.keys():
        raise RepositoryError(f"{folder}/manifest.json has no graph {', '.join(sorted(missing))}")
    buckets = list(manifest.batch_buckets)
    if not buckets or buckets[0] < 1 or buckets != sorted(set(buckets)):
        raise RepositoryError(
            f"{folder}/manifest.json has batch buckets {buckets}; expected ascending sizes from 1"
        )
    for layout in (manifest.observations, manifest.latents):
        _spec(folder, layout)
    codes = manifest.latents.data_type == tensor_pb2.DATA_TYPE_INT64
    if codes != (manifest.code_count >= 1):
        raise RepositoryError(
            f"{folder}/manifest.json has {manifest.code_count} codes; expected 1 or more for "
            "latents of int64, and 0 for others"
        )
    digest = hashlib.sha256(text).hexdigest()
    return ModelVersion(name, version, manifest, digest, graphs)


def _preferred(manifest: manifest_pb2.Manifest, precision: str) -> Iterable[manifest_pb2.Graph]:
    """One graph of each kind: of the precision that is asked for, or else in float32."""
    chosen: dict[int, manifest_pb2.Graph] = {}
    for graph in manifest.graphs:
        own = graph.precision or _FLOAT32
        if own == precision or (own == _FLOAT32 and graph.kind not in chosen):
            chosen[graph.kind] = graph
    return chosen.values()


def _levels_apart(graphs: Mapping[str, Graph]) -> dict[str, Graph]:
    """The decoder as two: who wants one of its outputs does not wait for the other."""
    decoder = graphs.get("decoder")
    if decoder is None or LEVELS not in decoder.output_names:
        return {}
    return {
        "decoder": replace(
            decoder, outputs=tuple(spec for spec in decoder.outputs if spec.name != LEVELS)
        ),
        "decoder_uint8": replace(
            decoder, outputs=tuple(spec for spec in decoder.outputs if spec.name == LEVELS)
        ),
    }


def _spec(folder: Path, spec: tensor_pb2.TensorSpec) -> Spec:
    shape = tuple(spec.shape)
    if spec.data_type not in DTYPES or shape[:1] != (-1,) or min(shape[1:], default=1) < 1:
        raise RepositoryError(
            f"{folder}/manifest.json: {spec.name!r} has data type {spec.data_type} and shape "
            f"{list(shape)}; expected a known type, and -1 for the items and then one item's sizes"
        )
    return Spec(spec.name, DTYPES[spec.data_type], shape[1:])


def _read(root: Path, path: Path) -> bytes:
    try:
        # Path.resolve raises RuntimeError for links that lead in a circle; here read_bytes does.
        if not Path(os.path.realpath(path)).is_relative_to(root.resolve()):
            raise RepositoryError(f"{path} leads out of the repository")
        return path.read_bytes()
    except (OSError, ValueError) as error:  # ValueError: the manifest's file name has a null
        reason = error.strerror if isinstance(error, OSError) else error
        raise RepositoryError(f"{path} cannot be read: {reason}") from error
