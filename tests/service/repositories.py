"""Writes model repositories whose graphs are any bytes: the repository does not look into them."""

import hashlib
from collections.abc import Callable
from pathlib import Path

from google.protobuf import json_format
from vae.manifest.v1 import manifest_pb2
from vae.v1 import tensor_pb2

FLOAT32 = tensor_pb2.DATA_TYPE_FLOAT32
Change = Callable[[manifest_pb2.Manifest], object]


def spec(name: str, *shape: int) -> tensor_pb2.TensorSpec:
    return tensor_pb2.TensorSpec(name=name, data_type=FLOAT32, shape=[-1, *shape])


def graph(kind: str, content: bytes) -> manifest_pb2.Graph:
    return manifest_pb2.Graph(
        kind=manifest_pb2.GraphKind.Value(f"GRAPH_KIND_{kind.upper()}"),
        file=f"{kind}.onnx",
        sha256=hashlib.sha256(content).hexdigest(),
        inputs=[spec("latents", 2)],
        outputs=[spec("observations", 3)],
    )


def write(
    root: Path, name: str = "model", version: int = 1, change: Change = lambda manifest: None
) -> Path:
    """Writes a version with an encoder and a decoder; change() edits its manifest before."""
    folder = root / name / str(version)
    folder.mkdir(parents=True)
    kinds = ("encoder", "decoder", "prior")
    for kind in kinds:
        (folder / f"{kind}.onnx").write_bytes(kind.encode())
    manifest = manifest_pb2.Manifest(
        format_version=1,
        name=name,
        version=version,
        observations=spec("observations", 3),
        latents=spec("latents", 2),
        prior="standard_normal",
        batch_buckets=[1, 2, 4],
        graphs=[graph(kind, kind.encode()) for kind in kinds[:2]],
    )
    change(manifest)
    (folder / "manifest.json").write_text(json_format.MessageToJson(manifest))
    return folder
