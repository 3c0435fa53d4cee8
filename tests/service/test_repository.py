"""Reading a model repository."""

import hashlib
import shutil
from pathlib import Path

import numpy as np
import pytest
from vae.manifest.v1 import manifest_pb2

from service.repository import ModelVersion, Spec, read_repository, read_version
from tests.service.repositories import graph, write


def versions(models: list[ModelVersion]) -> list[tuple[str, int]]:
    return [(model.name, model.version) for model in models]


def test_a_version_is_read_with_its_graphs_and_digest(tmp_path: Path) -> None:
    folder = write(tmp_path)
    [model] = read_repository(tmp_path)
    assert versions([model]) == [("model", 1)]
    assert model.digest == hashlib.sha256((folder / "manifest.json").read_bytes()).hexdigest()
    assert {kind: graph.content for kind, graph in model.graphs.items()} == {
        "encoder": b"encoder",
        "decoder": b"decoder",
    }
    observations = Spec("observations", np.dtype(np.float32), (3,))
    assert model.graphs["decoder"].outputs == (observations,)


def test_an_input_of_a_graph_gives_zeros_to_warm_up_with(tmp_path: Path) -> None:
    write(tmp_path)
    [latents] = read_repository(tmp_path)[0].graphs["encoder"].inputs
    zeros = latents.zeros(4)
    assert (zeros.shape, zeros.dtype, zeros.any()) == ((4, 2), np.float32, False)


def test_a_version_with_a_prior_graph_has_it(tmp_path: Path) -> None:
    def change(manifest: manifest_pb2.Manifest) -> None:
        manifest.prior = "graph"
        manifest.graphs.append(graph("prior", b"prior"))

    write(tmp_path, change=change)
    assert read_repository(tmp_path)[0].graphs["prior"].content == b"prior"


def test_what_export_writes_can_be_read(digits_repository: Path) -> None:
    [model] = read_repository(digits_repository)
    assert versions([model]) == [("digits", 1)]
    kinds = {"encoder", "decoder", "scorer"}
    assert set(model.graphs) == kinds | {f"{kind}_uint8" for kind in kinds}
    assert model.graphs["decoder"].output_names == ("observations",)
    assert model.graphs["decoder_uint8"].output_names == ("observations_uint8",)


def test_the_newest_version_of_every_model_is_read_by_name(tmp_path: Path) -> None:
    for name, version in (("b", 2), ("b", 10), ("b", 9), ("a", 1)):
        write(tmp_path, name, version)
    assert versions(read_repository(tmp_path)) == [("a", 1), ("b", 10)]


def test_an_older_version_can_be_read_by_its_number(tmp_path: Path) -> None:
    write(tmp_path, version=1)
    write(tmp_path, version=2)
    assert versions([read_version(tmp_path, "model", 1)]) == [("model", 1)]


@pytest.mark.parametrize(
    "folder",
    [
        "model/.publishing-0123456789abcdef",
        "model/002",
        "model/0",
        "model/-2",
        "model/2.bak",
        "model/latest",
        ".publishing-0123456789abcdef/1",
        ".git/1",
        "lost+found/1",
        "empty",
    ],
)
def test_folders_that_are_no_version_are_ignored(tmp_path: Path, folder: str) -> None:
    write(tmp_path)
    (tmp_path / folder).mkdir(parents=True)
    assert versions(read_repository(tmp_path)) == [("model", 1)]


@pytest.mark.parametrize("file", ["README", "model/2"])
def test_files_among_the_folders_are_ignored(tmp_path: Path, file: str) -> None:
    write(tmp_path)
    (tmp_path / file).write_text("")
    assert versions(read_repository(tmp_path)) == [("model", 1)]


def test_links_within_the_repository_are_followed(tmp_path: Path) -> None:
    path = write(tmp_path) / "encoder.onnx"  # Kubernetes mounts a volume in this way
    (tmp_path / "..data").mkdir()
    shutil.move(path, tmp_path / "..data" / "blob")
    path.symlink_to(tmp_path / "..data" / "blob")
    assert read_repository(tmp_path)[0].graphs["encoder"].content == b"encoder"


def test_a_repository_may_be_a_link_itself(tmp_path: Path) -> None:
    write(tmp_path / "models")
    (tmp_path / "link").symlink_to(tmp_path / "models")
    assert versions(read_repository(tmp_path / "link")) == [("model", 1)]
