import hashlib
import shutil
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import get_args

import numpy as np
import onnxruntime
import pytest
import torch
from google.protobuf.json_format import Parse
from vae.manifest.v1 import manifest_pb2

from export.convert import export_run
from export.errors import ExportError
from tests.families import MODELS, Families
from training.checkpoint import Run, load_run
from training.errors import RunError, TrainingError
from training.models import ModelConfig


def read_manifest(version: Path) -> manifest_pb2.Manifest:
    return Parse((version / "manifest.json").read_bytes(), manifest_pb2.Manifest())


def test_every_family_becomes_a_version(families: Families, name: str) -> None:
    version = families.version(name)

    path = families.repository / name / "1"
    assert version.address == str(path)
    manifest = read_manifest(path)
    assert manifest == version.manifest
    digests = {
        file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in path.glob("*.onnx")
    }
    assert digests == {graph.file: graph.sha256 for graph in manifest.graphs}
    assert digests.keys() == {graph.file for graph in version.graphs}
    for graph in manifest.graphs:
        assert 0 <= graph.parity.max_absolute_error <= graph.parity.tolerance
        assert graph.parity.different_codes <= graph.parity.different_codes_tolerance


def test_a_family_of_models_is_tested_here() -> None:
    tested = {type(config) for config in MODELS.values()}
    assert tested == set(get_args(ModelConfig))


def test_published_files_compute_what_the_run_computes(
    digits_run: Path, digits_repository: Path
) -> None:
    """End to end, with files alone: a run on one side and a version on the other."""
    version = digits_repository / "digits" / "1"
    encoder, decoder = (
        onnxruntime.InferenceSession(version / f"{kind}.onnx", providers=["CPUExecutionProvider"])
        for kind in ("encoder", "decoder")
    )
    run = load_run(digits_run)
    observations = run.dataset().observations("test")[:20]
    zero = np.zeros((20, 8), np.float32)

    latents, mean = encoder.run(["latents", "mean"], {"observations": observations, "noise": zero})
    (decoded,) = decoder.run(["observations"], {"latents": latents})

    np.testing.assert_array_equal(latents, mean)
    with torch.inference_mode():
        _, posterior_mean, _ = run.model.encode(torch.from_numpy(observations), torch.zeros(20, 8))
        expected = run.model.decode(posterior_mean).numpy()
    np.testing.assert_allclose(decoded, expected, atol=1e-5)


def test_a_second_export_is_version_2_with_the_same_latent_space_and_the_same_bytes(
    digits_run: Path, digits_repository: Path, tmp_path: Path
) -> None:
    repository = shutil.copytree(digits_repository, tmp_path / "models")

    address = export_run(load_run(digits_run), repository, "digits").address

    first, second = digits_repository / "digits" / "1", repository / "digits" / "2"
    assert address == str(second)
    assert read_manifest(second).version == 2
    assert read_manifest(second).latent_space == read_manifest(first).latent_space
    for file in ("encoder.onnx", "decoder.onnx"):
        assert (second / file).read_bytes() == (first / file).read_bytes()


def test_a_model_whose_answers_are_not_finite_is_not_published(
    runs: Mapping[str, Run], tmp_path: Path
) -> None:
    run = load_run(runs["mlp"].path)
    with torch.no_grad():
        run.model.encoder[-1].weight.mul_(float("nan"))
    with pytest.raises(ExportError, match="onnxruntime disagrees with torch: encoder output"):
        export_run(run, tmp_path / "models", "model")
    assert list(tmp_path.iterdir()) == []


class Blur(torch.nn.Module):
    """Draws noise of its own, which no graph may do."""

    def forward(self, latents: torch.Tensor) -> torch.Tensor:
        return latents + torch.randn_like(latents)


def test_a_model_that_draws_its_own_noise_is_not_published(
    runs: Mapping[str, Run], tmp_path: Path
) -> None:
    run = load_run(runs["mlp"].path)
    run.model.decoder = torch.nn.Sequential(Blur(), *run.model.decoder)
    with pytest.raises(ExportError, match=r"the decoder graph cannot be served: .* is random"):
        export_run(run, tmp_path / "models", "model")
    assert list(tmp_path.iterdir()) == []


def test_a_bad_name_is_refused_before_anything_else(
    runs: Mapping[str, Run], tmp_path: Path
) -> None:
    with pytest.raises(ExportError, match="cannot name a model"):
        export_run(replace(runs["mlp"], model=torch.nn.Identity()), tmp_path, "no/name")
    assert list(tmp_path.iterdir()) == []


def another_data_set(run: Run) -> Run:
    return replace(run, dataset_sha256="0" * 64)


def a_missing_data_set(run: Run) -> Run:
    data = replace(run.config.data, name="mnist", path="nowhere")
    return replace(run, config=replace(run.config, data=data))


@pytest.mark.parametrize(
    ("change", "error", "complaint"),
    [
        (another_data_set, RunError, "is not the one"),
        (a_missing_data_set, TrainingError, "nowhere holds no"),
    ],
)
def test_without_the_data_set_of_the_run_nothing_is_published(
    runs: Mapping[str, Run],
    tmp_path: Path,
    change: Callable[[Run], Run],
    error: type[Exception],
    complaint: str,
) -> None:
    with pytest.raises(error, match=complaint):
        export_run(change(runs["mlp"]), tmp_path, "model")
    assert list(tmp_path.iterdir()) == []
