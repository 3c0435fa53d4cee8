"""What a model repository must not be, and the words that say so."""

import hashlib
import shutil
from pathlib import Path

import pytest
from vae.v1 import tensor_pb2

from service.repository import RepositoryError, read_version
from tests.service.repositories import Change, write


def refusal(root: Path) -> str:
    with pytest.raises(RepositoryError) as caught:
        read_version(root, "model", 1)
    return str(caught.value)


@pytest.mark.parametrize("file", ["manifest.json", "encoder.onnx", "decoder.onnx"])
def test_a_missing_file_is_refused(tmp_path: Path, file: str) -> None:
    path = write(tmp_path) / file
    path.unlink()
    assert refusal(tmp_path) == f"{path} cannot be read: No such file or directory"


@pytest.mark.parametrize("content", [b"", b"decodes", b"decoder "], ids=["cut", "other", "more"])
def test_a_damaged_graph_is_refused(tmp_path: Path, content: bytes) -> None:
    path = write(tmp_path) / "decoder.onnx"
    path.write_bytes(content)
    assert refusal(tmp_path) == f"{path} does not have the manifest's SHA-256"


@pytest.mark.parametrize("digest", ["", "0" * 64, hashlib.sha256(b"encoder").hexdigest()])
def test_a_wrong_digest_is_refused(tmp_path: Path, digest: str) -> None:
    folder = write(tmp_path, change=lambda manifest: setattr(manifest.graphs[1], "sha256", digest))
    assert refusal(tmp_path) == f"{folder}/decoder.onnx does not have the manifest's SHA-256"


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "Failed to load JSON"),
        (b'{"formatVersion": 1', "Failed to load JSON"),
        (b'{"formatVersion": "one"}', "formatVersion"),
        (b'{"formatVersion": 1, "colour": "red"}', 'no field named "colour"'),
        (b'{"graphs": [{"kind": "GRAPH_KIND_PAINTER"}]}', "GRAPH_KIND_PAINTER"),
        (b"\xff\xfe", "utf-8"),
    ],
    ids=["empty", "cut", "wrong type", "unknown field", "unknown kind", "no text"],
)
def test_what_is_not_a_manifest_is_refused(tmp_path: Path, content: bytes, reason: str) -> None:
    path = write(tmp_path) / "manifest.json"
    path.write_bytes(content)
    text = refusal(tmp_path)
    assert text.startswith(f"{path} is not a manifest: ")
    assert reason in text


REFUSED: dict[str, tuple[Change, str]] = {
    "newer format": (
        lambda m: setattr(m, "format_version", 2),
        "has format version 2; this service reads 1",
    ),
    "no format": (
        lambda m: m.ClearField("format_version"),
        "has format version 0; this service reads 1",
    ),
    "other name": (lambda m: setattr(m, "name", "digits"), "is that of digits, version 1"),
    "other version": (lambda m: setattr(m, "version", 7), "is that of model, version 7"),
    "no encoder": (lambda m: m.graphs.pop(0), "has no graph encoder"),
    "no graph": (lambda m: m.ClearField("graphs"), "has no graph decoder, encoder"),
    "no prior": (lambda m: setattr(m, "prior", "graph"), "has no graph prior"),
    "no kind": (lambda m: m.graphs[0].ClearField("kind"), "names a graph of unknown kind 0"),
    "no buckets": (lambda m: m.ClearField("batch_buckets"), "batch buckets"),
    "bucket 0": (lambda m: m.batch_buckets.insert(0, 0), "batch buckets"),
    "buckets fall": (lambda m: m.batch_buckets.append(3), "batch buckets"),
    "buckets repeat": (lambda m: m.batch_buckets.append(4), "batch buckets"),
    "no observations": (lambda m: m.ClearField("observations"), "-1 for the items"),
    "items not -1": (lambda m: m.latents.shape.__setitem__(0, 4), "-1 for the items"),
    "codes of floats": (lambda m: setattr(m, "code_count", 7), "has 7 codes"),
    "no codes": (
        lambda m: setattr(m.latents, "data_type", tensor_pb2.DATA_TYPE_INT64),
        "has 0 codes; expected 1 or more for latents of int64",
    ),
    "size 0": (lambda m: m.latents.shape.append(0), "-1 for the items"),
    "two -1": (lambda m: m.graphs[0].inputs[0].shape.append(-1), "-1 for the items"),
    "no type": (lambda m: m.graphs[0].inputs[0].ClearField("data_type"), "expected a known type"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_manifest_that_cannot_be_served_is_refused(tmp_path: Path, case: str) -> None:
    change, reason = REFUSED[case]
    folder = write(tmp_path, change=change)
    text = refusal(tmp_path)
    assert text.startswith(f"{folder}/manifest.json")
    assert reason in text


@pytest.mark.parametrize("file", ["/etc/hostname", "../../../outside", "../../../../etc/hostname"])
def test_a_file_name_that_leads_out_of_the_repository_is_refused(tmp_path: Path, file: str) -> None:
    (tmp_path / "outside").write_bytes(b"encoder")
    root = tmp_path / "models"
    write(root, change=lambda manifest: setattr(manifest.graphs[0], "file", file))
    assert refusal(root).endswith(f"{file} leads out of the repository")


@pytest.mark.parametrize("file", ["encoder.onnx", "manifest.json"])
def test_a_link_that_leads_out_of_the_repository_is_refused(tmp_path: Path, file: str) -> None:
    root = tmp_path / "models"
    path = write(root) / file
    shutil.move(path, tmp_path / file)
    path.symlink_to(tmp_path / file)
    assert refusal(root) == f"{path} leads out of the repository"


def test_a_linked_version_outside_of_the_repository_is_refused(tmp_path: Path) -> None:
    outside, root = tmp_path / "elsewhere", tmp_path / "models"
    write(outside)
    (root / "model").mkdir(parents=True)
    (root / "model" / "1").symlink_to(outside / "model" / "1")
    assert refusal(root) == f"{root}/model/1/manifest.json leads out of the repository"


def test_a_link_that_leads_in_a_circle_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path) / "encoder.onnx"
    path.unlink()
    path.symlink_to(path)
    assert refusal(tmp_path).startswith(f"{path} cannot be read: ")


@pytest.mark.parametrize("file", ["", ".", "\0"], ids=["empty", "dot", "null"])
def test_a_file_name_that_names_no_file_is_refused(tmp_path: Path, file: str) -> None:
    folder = write(tmp_path, change=lambda manifest: setattr(manifest.graphs[0], "file", file))
    text = refusal(tmp_path)
    assert text.startswith(str(folder))
    assert " cannot be read: " in text
