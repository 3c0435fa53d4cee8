import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch

from training.checkpoint import check_destination, load_run
from training.config import DataConfig, FitConfig
from training.data import Dataset
from training.errors import RunError
from training.evaluation import Evaluation
from training.fit import Fitted


def test_a_run_comes_back_exactly(
    run: Path, fitted: Fitted, tiny_config: FitConfig, evaluation: Evaluation
) -> None:
    loaded = load_run(run)

    state, expected = loaded.model.state_dict(), fitted.model.state_dict()
    assert state.keys() == expected.keys()
    assert all(torch.equal(state[name], tensor) for name, tensor in expected.items())
    assert loaded.config == tiny_config
    assert loaded.path == run
    assert loaded.metrics == evaluation.to_json()
    assert not loaded.model.training
    weights = (run / "weights.safetensors").read_bytes()
    assert loaded.weights_sha256 == hashlib.sha256(weights).hexdigest()


def test_the_history_is_one_json_object_a_line(run: Path, fitted: Fitted) -> None:
    lines = (run / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == fitted.history


def test_a_run_holds_documented_files_and_no_pickle(run: Path) -> None:
    """A pickle starts with 0x80, and torch.save makes a zip file."""
    starts = {path.name: path.read_bytes()[:2] for path in run.iterdir()}
    assert starts.keys() == {"run.json", "weights.safetensors", "metrics.jsonl", "samples.png"}
    assert starts.pop("samples.png") == b"\x89P"
    assert starts.pop("run.json")[:1] == starts.pop("metrics.jsonl")[:1] == b"{"
    assert safetensors.torch.load((run / "weights.safetensors").read_bytes())


def test_a_run_gives_back_its_data_set(run: Path, tiny_dataset: Dataset) -> None:
    dataset = load_run(run).dataset()
    np.testing.assert_array_equal(dataset.test, tiny_dataset.test)


def test_a_run_is_never_replaced(save: Callable[[Path], None], run: Path) -> None:
    before = {path.name: path.read_bytes() for path in run.iterdir()}
    with pytest.raises(RunError, match="holds a run, which never changes"):
        save(run)
    with pytest.raises(RunError, match="exists"):
        check_destination(run)
    assert {path.name: path.read_bytes() for path in run.iterdir()} == before


def test_a_name_that_no_file_system_takes_is_refused_before_the_fit(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="cannot write"):
        check_destination(tmp_path / ("x" * 300))


def test_missing_parents_are_made(save: Callable[[Path], None], tmp_path: Path) -> None:
    save(tmp_path / "a" / "b" / "run")
    assert load_run(tmp_path / "a" / "b" / "run")


def test_a_parent_that_is_a_file_is_an_error_of_the_run(
    save: Callable[[Path], None], tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(RunError, match=r"cannot write .*file/run"):
        save(tmp_path / "file" / "run")


@pytest.mark.parametrize(
    ("error", "expected"),
    [(OSError(28, "No space left on device"), RunError), (KeyboardInterrupt(), KeyboardInterrupt)],
    ids=["OSError", "KeyboardInterrupt"],
)
@pytest.mark.parametrize(
    ("operation", "call"),
    [
        ("mkdir", 1),
        *(("rename", call) for call in range(1, 5)),
        *(("fsync", call) for call in (1, 7)),
    ],
)
def test_a_save_that_does_not_end_leaves_no_run(
    save: Callable[[Path], None],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    operation: str,
    call: int,
    error: BaseException,
    expected: type[BaseException],
) -> None:
    """Four files are written, the description last; each is synced, renamed and synced."""
    real, calls = getattr(os, operation), 0

    def failing(*arguments: object, **options: object) -> object:
        nonlocal calls
        calls += 1
        if calls == call:
            raise error
        return real(*arguments, **options)

    monkeypatch.setattr(os, operation, failing)
    with pytest.raises(expected):
        save(tmp_path / "run")
    assert [path for path in tmp_path.rglob("*") if path.name.startswith((".", "run.json"))] == []


def test_a_run_can_be_moved(run: Path, tmp_path: Path) -> None:
    moved = shutil.move(run, tmp_path / "elsewhere")
    assert load_run(Path(moved)).config.data == DataConfig("digits", None, 60, 20)
