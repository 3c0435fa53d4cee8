import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
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
    number = r"[\d.e-]+"
    for file in ("encoder", "decoder", "encoder_uint8"):
        row = (
            rf"{file}\.onnx +\d+ +20 +\d+ +\d+ +float32 +{number} +1e-04 +{number} ms +{number} ms"
        )
        assert re.search(row, output)
    assert "conv, preset conv-preset; observations [1, 8, 8], latents [5]" in output


def test_a_dry_run_sums_up_and_leaves_no_trace(
    runs: Mapping[str, Run], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    repository = tmp_path / "models"
    arguments = [str(runs["mlp"].path), "--repository", str(repository), "--name", "a"]
    assert main([*arguments, "--dry-run"]) == 0
    output = capsys.readouterr().out
    assert output.startswith("published nothing, a dry run\n")
    assert "decoder.onnx" in output
    assert not repository.exists()


@pytest.mark.parametrize(
    "arguments", [["{}/digits/1"], ["{}", "digits"], ["{}/", "digits", "1"], ["file://{}/digits"]]
)
def test_a_version_as_it_was_published_passes_its_check(
    digits_repository: Path, capsys: pytest.CaptureFixture[str], arguments: list[str]
) -> None:
    assert main(["--check", *(text.format(digits_repository) for text in arguments)]) == 0
    output = capsys.readouterr().out
    assert output.startswith(f"{digits_repository}/digits/1 is as it was published\n")
    assert "decoder.onnx" in output


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["{}", "digits", "2"], "cannot read {}/digits/2/manifest.json: No such file"),
        (["{}", "nothing"], "{}/nothing holds no version"),
        (["{}", "../digits"], "'../digits' cannot name a model"),
        (["{}"], "{} holds no version"),
        (["http2://{}"], "cannot use http2://{}: Protocol not known: http2"),
        (["{}/digits/1/manifest.json"], "holds no version"),
    ],
)
def test_a_check_of_no_version_is_exit_code_2(
    digits_repository: Path,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    complaint: str,
) -> None:
    texts = [text.format(digits_repository) for text in (*arguments, complaint)]
    assert main(["--check", *texts[:-1]]) == 2
    assert texts[-1] in error_of(capsys)


def test_a_check_of_a_damaged_version_is_exit_code_2(
    digits_repository: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    repository = shutil.copytree(digits_repository, tmp_path / "models")
    (repository / "digits" / "1" / "decoder.onnx").write_bytes(b"damaged")
    assert main(["--check", str(repository), "digits"]) == 2
    assert "decoder.onnx does not have the manifest's SHA-256" in error_of(capsys)


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


def edited(run: Path, **changes: object) -> None:
    """Change run.json, whose value None takes a key out."""
    document = json.loads((run / "run.json").read_text()) | changes
    kept = {key: value for key, value in document.items() if value is not None}
    (run / "run.json").write_text(json.dumps(kept))


def of_an_unknown_family(run: Path) -> None:
    config = json.loads((run / "run.json").read_text())["config"]
    config["model"]["family"] = "transformer"
    edited(run, config=config)


DAMAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "missing": (shutil.rmtree, "cannot read {}/run.json"),
    "without weights": (
        lambda run: (run / "weights.safetensors").unlink(),
        "cannot read {}/weights.safetensors",
    ),
    "without a description": (lambda run: (run / "run.json").unlink(), "cannot read {}/run.json"),
    "without its configuration": (
        lambda run: edited(run, config=None),
        "{}/run.json lacks 'config'",
    ),
    "tampered": (
        lambda run: (run / "weights.safetensors").write_bytes(b"other weights"),
        "{}/weights.safetensors does not have the SHA-256",
    ),
    "newer": (
        lambda run: edited(run, format_version=99),
        "{}/run.json has format version 99; this version reads",
    ),
    "of an unknown family": (
        of_an_unknown_family,
        "{}/run.json: model.family must be one of",
    ),
}


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("present", [False, True])
def test_a_damaged_run_is_exit_code_2_and_leaves_the_repository_as_it_was(
    digits_run: Path,
    digits_repository: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    damage: str,
    present: bool,
) -> None:
    run = shutil.copytree(digits_run, tmp_path / "run")
    change, complaint = DAMAGES[damage]
    change(run)
    repository = tmp_path / "models"
    if present:
        shutil.copytree(digits_repository, repository)
    before = contents(repository)

    assert main([str(run), "--repository", str(repository), "--name", "digits"]) == 2

    assert complaint.format(run) in error_of(capsys)
    assert contents(repository) == before
    assert repository.exists() == present


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
        env=os.environ | {"PYTHONHASHSEED": "1", "PYTHONPATH": f"{root}:{root / 'protos'}"},
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
