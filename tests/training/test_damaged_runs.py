"""Whatever happens to a run directory, `load_run` says in one sentence which file is at fault."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

from training.checkpoint import load_run
from training.errors import RunError
from training.fit import Fitted


def edit(run: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change run.json."""
    document = json.loads((run / "run.json").read_text())
    change(document)
    (run / "run.json").write_text(json.dumps(document))


def replace_weights(run: Path, content: bytes) -> None:
    """Put other weights where the description says that they belong."""
    (run / "weights.safetensors").write_bytes(content)
    edit(run, lambda document: document.update(weights_sha256=hashlib.sha256(content).hexdigest()))


def assert_refused(run: Path, file: str, complaint: str) -> None:
    """One sentence on one line, which names the file."""
    with pytest.raises(RunError, match=complaint) as raised:
        load_run(run)
    message = str(raised.value)
    assert str(run / file) in message
    assert "\n" not in message


def test_another_data_set_is_refused(run: Path) -> None:
    edit(run, lambda document: document["config"]["data"].update(train_limit=59))
    loaded = load_run(run)
    with pytest.raises(RunError, match="is not the one") as raised:
        loaded.dataset()
    assert str(run) in str(raised.value)


def test_a_pickle_in_place_of_the_weights_is_not_read(run: Path, fitted: Fitted) -> None:
    torch.save(fitted.model.state_dict(), run / "weights.safetensors")
    replace_weights(run, (run / "weights.safetensors").read_bytes())
    assert_refused(run, "weights.safetensors", "does not fit")


@pytest.mark.parametrize("file", ["run.json", "weights.safetensors"])
def test_a_missing_file_is_named(run: Path, file: str) -> None:
    (run / file).unlink()
    assert_refused(run, file, "cannot read")


def test_a_missing_directory_is_no_run(tmp_path: Path) -> None:
    assert_refused(tmp_path / "none", "run.json", "cannot read .*; expected a run directory")


def test_a_file_is_no_run(run: Path) -> None:
    assert_refused(run / "run.json", "run.json", "Not a directory; expected a run directory")


def test_truncated_weights_are_refused(run: Path) -> None:
    content = (run / "weights.safetensors").read_bytes()
    (run / "weights.safetensors").write_bytes(content[:-100])
    assert_refused(run, "weights.safetensors", "does not have the SHA-256")


def test_changed_weights_are_refused(run: Path) -> None:
    content = bytearray((run / "weights.safetensors").read_bytes())
    content[-1] ^= 1
    (run / "weights.safetensors").write_bytes(content)
    assert_refused(run, "weights.safetensors", "does not have the SHA-256")


@pytest.mark.parametrize("length", [0, 5, 1000])
def test_weights_that_were_written_in_part_are_refused(run: Path, length: int) -> None:
    replace_weights(run, (run / "weights.safetensors").read_bytes()[:length])
    assert_refused(run, "weights.safetensors", "does not fit the configured model")


def test_a_folder_that_is_no_run_is_refused(tmp_path: Path) -> None:
    assert_refused(tmp_path, "run.json", "^cannot read .*; expected a run directory$")


def test_weights_of_another_model_are_refused(run: Path) -> None:
    replace_weights(run, safetensors.torch.save({"encoder.1.weight": torch.zeros(2, 2)}))
    assert_refused(run, "weights.safetensors", "does not fit the configured model")


@pytest.mark.parametrize(
    "content", [b"", b"{", b"\xff\xfe", b"[1]", b"null", b'"run"'], ids=lambda value: repr(value)
)
def test_a_description_that_is_no_json_object_is_refused(run: Path, content: bytes) -> None:
    (run / "run.json").write_bytes(content)
    assert_refused(run, "run.json", "is no JSON document|format version None")


@pytest.mark.parametrize("version", [3, 1, 0, "1", None])
def test_another_format_version_is_refused(run: Path, version: object) -> None:
    edit(run, lambda document: document.update(format_version=version))
    assert_refused(run, "run.json", f"format version {version}; this version reads 2")


@pytest.mark.parametrize(
    "key",
    [
        "config",
        "observation_shape",
        "label_count",
        "maximum",
        "dataset_sha256",
        "weights_sha256",
        "metrics",
    ],
)
def test_a_description_without_a_key_is_refused(run: Path, key: str) -> None:
    edit(run, lambda document: document.pop(key))
    assert_refused(run, "run.json", f"lacks '{key}'")


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"config": []}, "configuration 'document' must be an object"),
        ({"dataset_sha256": 5}, "'dataset_sha256' must be"),
        ({"metrics": [1]}, "'metrics' must be"),
        ({"metrics": {"elbo": "good"}}, "'metrics' must be"),
        ({"metrics": {"elbo": True}}, "'metrics' must be"),
        ({"observation_shape": None}, "observation_shape must be three sizes, not None"),
        ({"observation_shape": [8, 8]}, "three sizes"),
        ({"observation_shape": [1, 8, 0]}, "three sizes"),
        ({"observation_shape": [1, 8, 8.0]}, "three sizes"),
        ({"observation_shape": [True, 8, 8]}, "three sizes"),
    ],
    ids=str,
)
def test_a_description_with_a_wrong_value_is_refused(
    run: Path, change: dict[str, object], complaint: str
) -> None:
    edit(run, lambda document: document.update(change))
    assert_refused(run, "run.json", complaint)


def test_a_weights_digest_of_a_wrong_type_is_refused(run: Path) -> None:
    edit(run, lambda document: document.update(weights_sha256=None))
    assert_refused(run, "weights.safetensors", "does not have the SHA-256 that run.json states")


def test_another_observation_shape_does_not_fit_the_weights(run: Path) -> None:
    edit(run, lambda document: document.update(observation_shape=[1, 4, 4]))
    assert_refused(run, "weights.safetensors", "does not fit the configured model")


@pytest.mark.parametrize(
    ("section", "change", "complaint"),
    [
        (None, {"surprise": 1}, "unknown configuration key 'surprise'"),
        ("model", {"surprise": 1}, r"unknown configuration key 'model\.surprise'"),
        (None, {"epochs": "many"}, "epochs must be an integer, not 'many'"),
        ("model", {"hidden_sizes": 16}, r"model\.hidden_sizes must be a list"),
        ("model", {"latent_size": 0}, r"model\.latent_size must be at least 1"),
        ("data", {"name": "cifar"}, r"data\.name must be one of"),
    ],
)
def test_a_damaged_configuration_is_refused(
    run: Path, section: str | None, change: dict[str, object], complaint: str
) -> None:
    def damage(document: dict[str, Any]) -> None:
        config = document["config"]
        (config[section] if section else config).update(change)

    edit(run, damage)
    assert_refused(run, "run.json", complaint)
