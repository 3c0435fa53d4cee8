"""A version that is not as it was published is refused, with everything that is wrong."""

import hashlib
import shutil
from collections.abc import Callable
from pathlib import Path

import onnx
import pytest
from google.protobuf.json_format import Parse
from vae.manifest.v1 import manifest_pb2

from export.errors import ExportError
from export.manifest import manifest_json
from export.stored import open_version
from export.verify import verify


@pytest.fixture
def version(digits_repository: Path, tmp_path: Path) -> Path:
    """A published version, to be damaged."""
    shutil.copytree(digits_repository / "digits" / "1", tmp_path / "models" / "digits" / "1")
    return tmp_path / "models" / "digits" / "1"


def edit(version: Path, change: Callable[[manifest_pb2.Manifest], object]) -> None:
    path = version / "manifest.json"
    manifest = Parse(path.read_bytes(), manifest_pb2.Manifest())
    change(manifest)
    path.write_bytes(manifest_json(manifest))


def replace_graph(version: Path, file: str, content: bytes) -> None:
    """Put another file where the manifest says that it belongs."""
    (version / file).write_bytes(content)

    def change(manifest: manifest_pb2.Manifest) -> None:
        graph = next(graph for graph in manifest.graphs if graph.file == file)
        graph.sha256 = hashlib.sha256(content).hexdigest()
        graph.size_bytes = len(content)

    edit(version, change)


def edit_graph(version: Path, file: str, change: Callable[[onnx.ModelProto], object]) -> None:
    model = onnx.load(version / file)
    change(model)
    replace_graph(version, file, model.SerializeToString())


def test_a_version_is_opened_as_it_was_published(version: Path) -> None:
    verify(open_version(str(version)))


def test_the_newest_whole_version_is_opened(version: Path) -> None:
    for number in ("3", "10", "latest"):
        shutil.copytree(version, version.with_name(number))
    (version.with_name("10") / "manifest.json").unlink()
    assert open_version(str(version.parent)).location.path.endswith("/3")
    assert open_version(str(version.parent), 1).location.path.endswith("/1")


@pytest.mark.parametrize(
    ("damage", "complaint"),
    [
        (lambda version: (version / "decoder.onnx").unlink(), "decoder.onnx is missing"),
        (
            lambda version: (version / "decoder.onnx").write_bytes(b"short"),
            r"decoder.onnx has 5 bytes, not \d+; decoder.onnx does not have the manifest's SHA-256",
        ),
        (
            lambda version: (version / "notes.txt").write_bytes(b""),
            "notes.txt is not in the manifest",
        ),
        (
            lambda version: version.rename(version.with_name("2")),
            "the manifest is that of digits, version 1",
        ),
        (
            lambda version: replace_graph(version, "encoder.onnx", b"not ONNX"),
            "encoder.onnx it is no ONNX file",
        ),
        (
            lambda version: edit_graph(
                version,
                "decoder.onnx",
                lambda model: model.graph.node.append(
                    onnx.helper.make_node("RandomNormal", [], ["drawn"], shape=[2])
                ),
            ),
            "decoder.onnx operator RandomNormal is random",
        ),
        (
            lambda version: edit(
                version, lambda manifest: manifest.graphs[1].inputs[0].shape.append(2)
            ),
            r"decoder.onnx input latents has shape \['batch', 8\], not \['batch', 8, 2\]",
        ),
        (
            lambda version: edit(
                version, lambda manifest: manifest.graphs[0].outputs[0].shape.insert(0, 4)
            ),
            r"encoder.onnx has a value that no graph has: 'latents' has data type 1",
        ),
        (
            lambda version: edit(
                version, lambda manifest: setattr(manifest.graphs[1], "file", "../1/decoder.onnx")
            ),
            "../1/decoder.onnx is missing",
        ),
        (
            lambda version: edit(version, lambda manifest: manifest.graphs.pop()),
            "encoder_uint8.onnx is not in the manifest",
        ),
        (
            lambda version: edit(version, lambda manifest: manifest.graphs.pop(1)),
            "the manifest lacks a GRAPH_KIND_DECODER",
        ),
        (
            lambda version: edit(version, lambda manifest: manifest.batch_buckets.append(3)),
            "the batch buckets are .*, not ascending",
        ),
    ],
)
def test_what_is_not_as_published_is_named(
    version: Path, damage: Callable[[Path], object], complaint: str
) -> None:
    damage(version)
    with pytest.raises(ExportError, match=complaint) as raised:
        verify(open_version(str(version.parent)))
    assert "\n" not in str(raised.value)


def test_a_graph_that_onnxruntime_cannot_run_is_named(version: Path) -> None:
    """The checker knows opset 27 of ONNX, which the pinned onnxruntime does not."""
    edit_graph(version, "decoder.onnx", lambda model: setattr(model, "ir_version", 99))
    with pytest.raises(ExportError, match=r"decoder.onnx "):
        verify(open_version(str(version)))


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"", "is no manifest"),
        (b'{"colour": "red"}', "is no manifest: .*colour"),
        (b"\xff", "is no manifest"),
        (b'{"formatVersion": 2}', "has format version 2; this version reads 1"),
    ],
)
def test_a_manifest_that_is_not_understood_is_refused(
    version: Path, content: bytes, complaint: str
) -> None:
    (version / "manifest.json").write_bytes(content)
    with pytest.raises(ExportError, match=complaint) as raised:
        open_version(str(version))
    assert "\n" not in str(raised.value)
