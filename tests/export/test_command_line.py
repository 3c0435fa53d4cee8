import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
import safetensors.torch
from google.protobuf.json_format import Parse
from vae.manifest.v1 import manifest_pb2

import export.__main__
from export.__main__ import main
from training.checkpoint import Run


def error_of(capsys: pytest.CaptureFixture[str]) -> str:
    """What went to stderr: one line."""
    error = capsys.readouterr().err
    assert re.fullmatch(r"error: .+\n", error)
    return error


def contents(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def spoil(run: Run, path: Path) -> Path:
    """A copy of the run, whose weights are so large that no two runtimes agree on the answers."""
    shutil.copytree(run.path, path)
    weights = safetensors.torch.load((path / "weights.safetensors").read_bytes())
    content = safetensors.torch.save({name: 1e4 * tensor for name, tensor in weights.items()})
    (path / "weights.safetensors").write_bytes(content)
    document = json.loads((path / "run.json").read_text())
    document["weights_sha256"] = hashlib.sha256(content).hexdigest()
    (path / "run.json").write_text(json.dumps(document))
    return path


def test_a_published_version_is_summed_up(
    runs: Mapping[str, Run], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [str(runs["conv"].path), "--repository", str(tmp_path), "--name", "shapes"]

    assert main(arguments) == 0

    output = capsys.readouterr().out
    assert output.startswith(f"published {tmp_path / 'shapes' / '1'}\n")
    assert "observations, noise -> latents, mean, log_variance" in output
    assert re.search(r"decoder\.onnx +\d+ KiB, opset 20", output)
    assert output.count("(tolerance 1e-04)") == 3


def test_the_manifest_matches_its_directory_and_files(digits_repository: Path) -> None:
    version = digits_repository / "digits" / "1"
    manifest = Parse((version / "manifest.json").read_bytes(), manifest_pb2.Manifest())
    assert (manifest.name, str(manifest.version)) == ("digits", version.name)
    files = {graph.file: graph.sha256 for graph in manifest.graphs}
    for file, digest in files.items():
        assert hashlib.sha256((version / file).read_bytes()).hexdigest() == digest
    assert {path.name for path in version.iterdir()} == {"manifest.json", *files}


@pytest.mark.parametrize("name", ["", "..", "a/b", ".hidden", "two words"])
def test_a_bad_name_is_exit_code_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    assert main(["nowhere", "--repository", str(tmp_path / "models"), "--name", name]) == 2
    assert "cannot name a model" in error_of(capsys)
    assert list(tmp_path.iterdir()) == []


def test_a_missing_run_is_exit_code_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = tmp_path / "nowhere"
    assert main([str(run), "--repository", str(tmp_path / "models"), "--name", "digits"]) == 2
    assert f"cannot read {run / 'run.json'}" in error_of(capsys)
    assert list(tmp_path.iterdir()) == []


def test_a_model_beyond_its_tolerance_is_exit_code_2_and_changes_nothing(
    runs: Mapping[str, Run],
    digits_repository: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    repository = shutil.copytree(digits_repository, tmp_path / "models")
    before = contents(repository)
    run = spoil(runs["mlp"], tmp_path / "run")

    assert main([str(run), "--repository", str(repository), "--name", "digits"]) == 2

    assert "onnxruntime disagrees with torch" in error_of(capsys)
    assert contents(repository) == before
    assert [path.name for path in (repository / "digits").iterdir()] == ["1"]


def test_a_repository_that_is_a_file_is_exit_code_2(
    runs: Mapping[str, Run], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    repository = tmp_path / "file"
    repository.touch()
    assert main([str(runs["mlp"].path), "--repository", str(repository), "--name", "a"]) == 2
    assert f"cannot publish in {repository}" in error_of(capsys)


def test_an_interrupted_export_is_exit_code_130(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*arguments: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(export.__main__, "load_run", interrupted)
    assert main(["run", "--repository", str(tmp_path), "--name", "digits"]) == 130
    assert "interrupted; nothing was published" in error_of(capsys)


def test_another_process_elsewhere_writes_the_same_bytes(
    digits_run: Path, digits_repository: Path, tmp_path: Path
) -> None:
    """Neither the hash seed, nor the folder, nor what ran before in the process plays a part."""
    root = Path(export.__file__).parents[1]
    done = subprocess.run(
        [sys.executable, "-m", "export", digits_run, "--repository", "models", "--name", "digits"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONHASHSEED": "1", "PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("published models/digits/1\n")
    for file in ("encoder.onnx", "decoder.onnx"):
        ours, theirs = (
            (repository / "digits" / "1" / file).read_bytes()
            for repository in (digits_repository, tmp_path / "models")
        )
        assert ours == theirs
