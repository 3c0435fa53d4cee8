import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import matplotlib.image
import pytest

import training.__main__
from training.__main__ import main
from training.checkpoint import load_run
from training.presets import presets

QUICK = ["--smoke", *(f"--set={text}" for text in ("epochs=1", "model.hidden_sizes=16,8"))]


def error_of(capsys: pytest.CaptureFixture[str]) -> str:
    """What went to stderr: one line."""
    error = capsys.readouterr().err
    assert re.fullmatch(r"error: .+\n", error)
    return error


def test_list_names_every_preset_with_its_description(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list"]) == 0
    output = capsys.readouterr().out
    assert [line for line in output.splitlines() if line in presets()] == list(presets())
    assert all(preset.description in output for preset in presets().values())


def test_fit_writes_a_run_with_the_settings_that_it_was_given(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "runs" / "small"

    code = main(["fit", "digits", "--out", str(run), *QUICK])

    assert code == 0
    config = load_run(run).config
    assert config.model.hidden_sizes == (16, 8)
    assert (config.epochs, config.preset) == (1, "digits")
    assert len((run / "metrics.jsonl").read_text().splitlines()) == 1
    output = capsys.readouterr().out
    assert f"wrote {run}\n" in output
    assert "ELBO" in output


def test_a_preset_is_shown_as_a_file_of_which_a_user_makes_a_preset(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own, run = tmp_path / "own.toml", tmp_path / "run"
    assert main(["show", "digits", "--set", "model.hidden_sizes=16,8"]) == 0
    own.write_text(capsys.readouterr().out + 'description = "mine"\n')
    assert main(["fit", str(own), "--out", str(run), "--smoke", "--set", "epochs=1"]) == 0
    config = load_run(run).config
    assert config.preset == "own"
    assert config.model == replace(presets()["digits"].config.model, hidden_sizes=(16, 8))
    assert "wrote" in capsys.readouterr().out


def test_without_a_destination_a_run_is_named_after_its_preset_and_the_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["fit", "digits", *QUICK]) == 0
    (run,) = (tmp_path / "runs").iterdir()
    assert re.fullmatch(r"digits-\d{8}-\d{6}", run.name)


def test_a_run_has_three_pictures_that_are_not_blank(digits_run: Path) -> None:
    pictures = {path.name: path for path in digits_run.glob("*.png")}
    assert sorted(pictures) == ["latent_space.png", "reconstructions.png", "samples.png"]
    for path in pictures.values():
        assert path.read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
        assert matplotlib.image.imread(path)[..., :3].std() > 0.05


def test_evaluate_prints_one_json_object_with_the_numbers_of_the_run(
    digits_run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["evaluate", str(digits_run), "--json"]) == 0
    output = capsys.readouterr().out
    document = json.loads(output)
    assert output.count("\n") == 1
    assert document["elbo"] == -(document["rate"] + document["distortion"])
    assert [bound["k"] for bound in document.pop("bounds")] == [1, 5, 50, 500]
    assert sum(document.pop("rate_by_unit")) == pytest.approx(document["rate"])
    assert document == pytest.approx(dict(load_run(digits_run).metrics))


def test_evaluate_prints_a_table_for_people(
    digits_run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["evaluate", str(digits_run)]) == 0
    output = capsys.readouterr().out
    elbo = load_run(digits_run).metrics["elbo"]
    assert re.search(rf"ELBO +{elbo:.3f}  nats per item", output)
    assert re.search(r"active units +\d\n", output)
    assert re.search(r"\n +500 +-\d+\.\d+ ", output)


def test_evaluate_takes_as_many_importance_samples_as_it_is_told(
    digits_run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--importance-samples", "7", "--importance-items", "30", "--json"]
    assert main(["evaluate", str(digits_run), *options]) == 0
    document = json.loads(capsys.readouterr().out)
    assert [bound["k"] for bound in document["bounds"]] == [1, 5, 7]
    assert document["importance_items"] == 30

    assert main(["evaluate", str(digits_run), "--importance-samples", "0"]) == 0
    assert "log-likelihood" not in capsys.readouterr().out


def test_a_negative_number_of_samples_is_refused(digits_run: Path) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["evaluate", str(digits_run), "--importance-samples", "-1"])


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["fit", "digist"], "unknown preset 'digist'; did you mean 'digits'"),
        (["fit", "xyz"], "unknown preset 'xyz'; known: digits, "),
        (["fit", "own.toml"], r"cannot read the preset own\.toml: .*No such file"),
        (["show", "digits", "--set", "epoch=3"], "unknown setting 'epoch'"),
        (["fit", "digits", "--set", "epochs"], "--set takes KEY=VALUE, not 'epochs'"),
        (["fit", "digits", "--set", "epoch=3"], "unknown setting 'epoch'"),
        (["fit", "digits", "--set", "epochs=x"], "epochs must be an integer"),
        (["fit", "digits-conv", "--set", "model.channels=4,4,4,4"], "halve 8x8 pixels"),
        (["fit", "mnist-mlp"], r"mnist needs data\.path"),
        (["fit", "mnist-mlp", "--set", "data.path=nowhere"], "nowhere holds no train-images"),
        (["fit", "digits", "--out", "."], r"\. exists"),
        (["resume", "nowhere"], r"cannot read nowhere/fit\.json.*nothing to resume"),
        (["evaluate", "nowhere"], r"cannot read nowhere/run\.json"),
    ],
)
def test_an_input_at_fault_is_exit_code_2_and_one_line(
    arguments: list[str],
    complaint: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    assert re.search(complaint, error_of(capsys))
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_run_is_exit_code_2(
    digits_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = shutil.copytree(digits_run, tmp_path / "run")
    (run / "weights.safetensors").write_bytes(b"")
    assert main(["evaluate", str(run), "--json"]) == 2
    assert str(run / "weights.safetensors") in error_of(capsys)


def test_a_destination_that_exists_is_refused_before_the_fit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def unexpected(*arguments: object, **options: object) -> None:
        pytest.fail("the fit began")

    monkeypatch.setattr(training.__main__, "fit", unexpected)
    assert main(["fit", "digits", "--out", str(tmp_path)]) == 2
    assert f"{tmp_path} exists" in error_of(capsys)


def test_a_fit_out_of_time_says_how_to_go_on_and_can(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    assert main(["fit", "digits", "--out", str(run), "--minutes", "0", *QUICK]) == 130
    assert f"python -m training resume {run}" in capsys.readouterr().err
    assert sorted(path.name for path in run.iterdir() if "events" not in path.name) == [
        "fit.json",
        "state.safetensors",
    ]
    assert main(["resume", str(run)]) == 0
    assert load_run(run).config.preset == "digits"
    assert {path.name for path in run.iterdir()} & {"fit.json", "state.safetensors"} == set()
    assert main(["resume", str(run)]) == 2
    assert "is a finished run" in error_of(capsys)


def test_a_job_that_starts_again_goes_on_with_its_run_and_leaves_a_finished_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    job = ["fit", "digits", "--resume", "--out", str(run), *QUICK]
    assert main([*job, "--minutes", "0"]) == 130
    capsys.readouterr()
    assert main([*job, "--set", "seed=5"]) == 2
    assert f"{run} was begun with other settings" in error_of(capsys)
    assert main(job) == 0
    assert "resuming digits" in capsys.readouterr().out
    written = (run / "run.json").read_bytes()
    assert main(job) == 0
    assert "nothing to do" in capsys.readouterr().out
    assert (run / "run.json").read_bytes() == written


def test_a_run_to_go_on_with_has_to_be_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fit", "digits", "--resume"]) == 2
    assert "--resume needs --out" in error_of(capsys)


def test_the_module_runs_as_a_program(tmp_path: Path) -> None:
    root = Path(training.__file__).parents[1]
    done = subprocess.run(
        [sys.executable, "-m", "training", "fit", "unknown"],
        cwd=root,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 2
    assert done.stdout == ""
    assert re.fullmatch(r"error: unknown preset 'unknown'.*\n", done.stderr)


def test_who_stops_reading_gets_no_traceback() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, "-m", "training", "list"]
    root = Path(training.__file__).parents[1]
    ended = subprocess.run(
        command,
        cwd=root,
        stdout=writing,
        stderr=subprocess.PIPE,
        text=True,
        timeout=60,
        check=False,
    )
    os.close(writing)
    assert (ended.returncode, ended.stderr) == (141, "")


def test_a_fit_leaves_a_report_that_can_be_written_again(
    digits_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    html = (digits_run / "report.html").read_text()
    assert "<dt>objective</dt><dd>elbo</dd>" in html
    assert f"<h1>{load_run(digits_run).config.preset}</h1>" in html
    assert "at most 23" not in html  # which is for all of the data

    assert main(["report", str(digits_run), "--out", str(tmp_path / "again.html")]) == 0
    assert (tmp_path / "again.html").read_text() == html
    assert f"wrote {tmp_path / 'again.html'}" in capsys.readouterr().out


def test_a_report_of_all_the_data_has_the_goals(tmp_path: Path) -> None:
    settings = ["--set=epochs=1", "--set=model.hidden_sizes=8"]
    assert main(["fit", "digits", "--out", str(tmp_path / "run"), *settings]) == 0
    html = (tmp_path / "run" / "report.html").read_text()
    assert "at most 23" in html
    assert ">missed<" in html


def test_a_report_replaces_the_one_of_its_run(digits_run: Path, tmp_path: Path) -> None:
    run = shutil.copytree(digits_run, tmp_path / "run")
    (run / "report.html").write_text("old")
    assert main(["report", str(run)]) == 0
    assert (run / "report.html").read_text().startswith("<!DOCTYPE html>")
    assert {path.name for path in run.iterdir()} == {path.name for path in digits_run.iterdir()}


@pytest.mark.parametrize("damage", [None, "no json\n", "[1]\n"])
def test_a_report_needs_the_metrics_of_the_fit(
    digits_run: Path, tmp_path: Path, damage: str | None, capsys: pytest.CaptureFixture[str]
) -> None:
    run = shutil.copytree(digits_run, tmp_path / "run")
    if damage is None:
        (run / "metrics.jsonl").unlink()
    else:
        (run / "metrics.jsonl").write_text(damage)
    assert main(["report", str(run)]) == 2
    assert "metrics.jsonl" in error_of(capsys)


def test_a_report_that_cannot_be_written_is_exit_code_2(
    digits_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["report", str(digits_run), "--out", str(tmp_path / "no" / "report.html")]) == 2
    assert "cannot write" in error_of(capsys)
