"""What the results script writes of a run: every goal, beside what was reached and the paper."""

import json
from pathlib import Path

import pytest

import scripts.training_results
from scripts.training_results import main, result_rows
from training.presets import outcomes, presets, read_preset

PRESET = """
description = "a test"
[goals]
negative_elbo = 90.0
active_units = 10
[paper]
negative_elbo = 86.0
source = "a paper"
"""


def test_every_goal_has_a_row_beside_the_papers_number() -> None:
    preset = read_preset("test", PRESET)
    about = {"device": "cpu", "seconds": 1.0, "command": "fit"}
    rows = result_rows("test", preset, {"elbo": -91.0, "active_units": 12}, about)
    found = {row["metric"]: row for row in rows}
    assert (found["negative_elbo"]["value"], found["negative_elbo"]["met"]) == (91.0, False)
    assert (found["negative_elbo"]["paper"], found["negative_elbo"]["source"]) == (86.0, "a paper")
    assert (found["active_units"]["met"], found["active_units"]["paper"]) == (True, None)
    assert found["active_units"]["command"] == "fit"


def test_what_was_not_measured_is_neither_met_nor_missed() -> None:
    goals = presets()["mnist-conditional"].goals
    assert {outcome.met for outcome in outcomes(goals, {})} == {None}


def test_a_run_that_is_there_is_recorded_with_how_it_was_fitted(
    digits_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scripts.training_results, "RESULTS", tmp_path / "results")
    monkeypatch.setattr(scripts.training_results, "PAGE", tmp_path / "results.md")

    main(["record", str(digits_run), "--device", "two machines", "--name", "mine"])

    document = json.loads((tmp_path / "results" / "mine.json").read_text())
    history = [json.loads(line) for line in (digits_run / "metrics.jsonl").read_text().splitlines()]
    row = next(each for each in document["results"] if each["metric"] == "negative_elbo")
    assert (row["preset"], row["device"]) == ("mine", "two machines")
    assert row["seconds"] == pytest.approx(history[-1]["seconds"], abs=0.06)
    assert row["value"] == -document["evaluation"]["elbo"]
    assert row["command"].startswith("python -m training fit digits --set ")
    assert "--set epochs=" in row["command"]  # of --smoke
    assert "two machines" in (tmp_path / "results.md").read_text()
