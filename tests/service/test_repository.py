"""Reading a model repository."""

import hashlib
import shutil
from pathlib import Path

import numpy as np
import pytest
from vae.manifest.v1 import manifest_pb2

from service.repository import Spec, read_version
from tests.service.repositories import graph, write


def test_a_version_is_read_with_its_graphs_and_digest(tmp_path: Path) -> None:
    folder = write(tmp_path)
    model = read_version(tmp_path, "model", 1)
    assert (model.name, model.version, model.files) == ("model", 1, 2)
    assert model.digest == hashlib.sha256((folder / "manifest.json").read_bytes()).hexdigest()
    assert {kind: graph.content for kind, graph in model.graphs.items()} == {
        "encoder": b"encoder",
        "decoder": b"decoder",
    }
    observations = Spec("observations", np.dtype(np.float32), (3,))
    assert model.graphs["decoder"].outputs == (observations,)


def test_an_input_of_a_graph_gives_zeros_to_warm_up_with(tmp_path: Path) -> None:
    write(tmp_path)
    [latents] = read_version(tmp_path, "model", 1).graphs["encoder"].inputs
    zeros = latents.zeros(4)
    assert (zeros.shape, zeros.dtype, zeros.any()) == ((4, 2), np.float32, False)


def test_a_version_with_a_prior_graph_has_it(tmp_path: Path) -> None:
    def change(manifest: manifest_pb2.Manifest) -> None:
        manifest.prior = "graph"
        manifest.graphs.append(graph("prior", b"prior"))

    write(tmp_path, change=change)
    assert read_version(tmp_path, "model", 1).graphs["prior"].content == b"prior"


@pytest.mark.parametrize("precision", ["float16", "int8"])
def test_a_graph_in_another_precision_is_left_aside_unless_it_is_asked_for(
    tmp_path: Path, precision: str
) -> None:
    def change(manifest: manifest_pb2.Manifest) -> None:
        manifest.graphs[1].precision = "float32"
        manifest.graphs.append(graph("decoder", b"smaller"))  # whose file is not even there
        manifest.graphs[-1].file = f"decoder.{precision}.onnx"
        manifest.graphs[-1].precision = precision

    folder = write(tmp_path, change=change)
    assert read_version(tmp_path, "model", 1).graphs["decoder"].content == b"decoder"
    (folder / f"decoder.{precision}.onnx").write_bytes(b"smaller")
    asked = read_version(tmp_path, "model", 1, precision).graphs
    assert (asked["decoder"].content, asked["decoder"].precision) == (b"smaller", precision)
    assert asked["encoder"].precision == "float32"


def test_what_export_writes_can_be_read(digits_repository: Path) -> None:
    model = read_version(digits_repository, "digits", 1)
    assert model.files == 5
    kinds = {"encoder", "decoder", "scorer"}
    assert set(model.graphs) == kinds | {f"{kind}_uint8" for kind in kinds}
    assert model.graphs["decoder"].output_names == ("observations",)
    assert model.graphs["decoder_uint8"].output_names == ("observations_uint8",)


def test_links_within_the_repository_are_followed(tmp_path: Path) -> None:
    path = write(tmp_path) / "encoder.onnx"  # Kubernetes mounts a volume in this way
    (tmp_path / "..data").mkdir()
    shutil.move(path, tmp_path / "..data" / "blob")
    path.symlink_to(tmp_path / "..data" / "blob")
    assert read_version(tmp_path, "model", 1).graphs["encoder"].content == b"encoder"


def test_a_repository_may_be_a_link_itself(tmp_path: Path) -> None:
    write(tmp_path / "models")
    (tmp_path / "link").symlink_to(tmp_path / "models")
    assert read_version(tmp_path / "link", "model", 1).version == 1
