"""Two versions, side by side."""

import shutil
from pathlib import Path

import pytest
from google.protobuf.json_format import Parse
from vae.manifest.v1 import manifest_pb2

from export.__main__ import main
from export.compare import compare
from export.manifest import manifest_json
from export.stored import StoredVersion, open_version
from tests.families import Families


def stored(families: Families, name: str) -> StoredVersion:
    families.version(name)
    return open_version(str(families.repository / name))


def test_a_version_is_the_same_as_itself(families: Families) -> None:
    version = stored(families, "conditional")
    comparison = compare(version, version)
    assert (comparison.latent_space, comparison.weights) == (True, True)
    assert (comparison.alone, comparison.not_comparable) == ((), ())
    assert {each.largest for each in comparison.differences} == {0.0}
    compared = {(each.file, each.output) for each in comparison.differences}
    assert {("encoder.onnx", "mean"), ("decoder.onnx", "observations_uint8")} <= compared


def test_versions_of_other_weights_are_apart(families: Families) -> None:
    """Both take digits and have three latents."""
    comparison = compare(stored(families, "mlp"), stored(families, "autoencoder"))
    assert (comparison.latent_space, comparison.weights) == (False, False)
    assert comparison.alone == ("scorer.onnx", "scorer_uint8.onnx")
    decoded = next(each for each in comparison.differences if each.output == "observations")
    assert 0 < decoded.mean < decoded.largest <= 1
    assert decoded.relative > 0


def test_graphs_of_other_shapes_are_not_compared(families: Families) -> None:
    comparison = compare(stored(families, "mlp"), stored(families, "conv"))
    assert not comparison.differences
    assert [reason.split()[0] for reason in comparison.not_comparable] == [
        "decoder.onnx",
        "encoder.onnx",
        "encoder_uint8.onnx",
        "scorer.onnx",
        "scorer_uint8.onnx",
    ]


def test_the_command_prints_a_table(
    digits_repository: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = digits_repository / "digits" / "1"
    second = tmp_path / "digits" / "1"
    shutil.copytree(first, second)
    manifest = Parse((second / "manifest.json").read_bytes(), manifest_pb2.Manifest())
    manifest.latent_space = "another"
    (second / "manifest.json").write_bytes(manifest_json(manifest))

    assert main(["compare", str(digits_repository / "digits"), str(second)]) == 0

    output = capsys.readouterr().out
    assert output.startswith(f"A {first}\nB {second}, 64 items\n")
    assert "latent space  different\n  weights       the same\n" in output
    assert "decoder.onnx" in output


@pytest.mark.parametrize("file", ["manifest.json", "decoder.onnx"])
def test_a_version_that_cannot_be_read_is_exit_code_2(
    digits_repository: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], file: str
) -> None:
    first = digits_repository / "digits" / "1"
    second = shutil.copytree(first, tmp_path / "digits" / "1")
    (second / file).write_bytes(b"damaged")
    assert main(["compare", str(first), str(second)]) == 2
    assert capsys.readouterr().err.count("\n") == 1
