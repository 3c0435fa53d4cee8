"""`python -m scripts.training_results measure PRESET ... | record RUN | table`: what presets reach.

`measure` fits presets one after the other as a user would, evaluates each run, and writes
training/results/PRESET.json: for each goal of the preset its metric, value, goal, the paper's
value, and what it took. `record` does so for a run that is there, as of a long fit that went on
over several machines. `table` writes docs/results.md from these files.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from training.checkpoint import load_run
from training.files import replace_durably
from training.presets import Preset, outcomes, presets, settings_of
from training.report.run import read_history

RESULTS = Path("training/results")
PAGE = Path("docs/results.md")
_BOUNDS = {True: "≤", False: "≥"}


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns 0, or 1 if a fit missed a goal or failed."""
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    measuring = commands.add_parser("measure", help="fit, evaluate, write training/results")
    measuring.add_argument("presets", nargs="+", metavar="PRESET")
    measuring.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    recording = commands.add_parser("record", help="evaluate a run, write training/results")
    recording.add_argument("run", type=Path, metavar="RUN")
    recording.add_argument("--device", required=True, metavar="TEXT", help="what it was fitted on")
    for writing in (measuring, recording):
        writing.add_argument("--data-path", metavar="DIR", help="MNIST's four files")
        writing.add_argument("--name", help="of the file; default: the preset's")
        writing.add_argument("--importance-samples", type=int, default=5000)
        writing.add_argument("--importance-items", type=int, default=1000)
    commands.add_parser("table", help="write docs/results.md")
    options = parser.parse_args(arguments)
    if options.command == "table":
        write_page()
        return 0
    if options.command == "record":
        met = [record(options)]
    else:
        met = [measure(name, options) for name in options.presets]
    write_page()
    return 0 if all(met) else 1


def measure(name: str, options: argparse.Namespace) -> bool:
    """Fits and evaluates a preset and writes its results; whether all its goals are met."""
    preset = presets()[name]
    settings = list(options.set)
    if preset.config.data.name == "mnist":
        settings.append(f"data.path={options.data_path}")
    label = options.name or name
    done = fit_and_evaluate(name, label, settings, _effort(preset, options))
    return done is not None and _write(label, preset, *done, options.data_path)


def record(options: argparse.Namespace) -> bool:
    """Evaluates a run and writes its results; whether all goals of its preset are met.

    The seconds are those that the fit counted, over all its sessions. Raises RunError if there is
    no run.
    """
    config = load_run(options.run).config
    preset = presets()[config.preset]
    effort = _effort(preset, options)
    if options.data_path is not None:
        effort += ["--data-path", options.data_path]
    evaluation = _evaluate(options.run, effort)
    if evaluation is None:
        return False
    theirs = settings_of(preset.config)
    ours = settings_of(config).items()
    about = {
        "device": options.device,
        "seconds": round(read_history(options.run)[-1]["seconds"], 1),
        "command": _command(config.preset, [f"{k}={v}" for k, v in ours if v != theirs.get(k)]),
    }
    return _write(
        options.name or config.preset, preset, evaluation, about, config.data.path or None
    )


def fit_and_evaluate(
    preset: str, label: str, settings: Sequence[str], effort: Sequence[str] = ()
) -> tuple[dict[str, Any], dict[str, Any]] | None:
    """A preset's evaluation, and what it took: device, seconds, command; None if it failed.

    effort: options of the evaluation. The run stays in runs/results-LABEL-TIME.
    """
    run = Path("runs") / f"results-{label}-{time.strftime('%Y%m%d-%H%M%S')}"
    started = time.monotonic()
    if _training("fit", preset, "--out", str(run), *_sets(settings)).returncode:
        return None
    seconds = time.monotonic() - started
    evaluation = _evaluate(run, effort)
    if evaluation is None:
        return None
    command = _command(preset, settings)
    return evaluation, {"device": device(), "seconds": round(seconds, 1), "command": command}


def write_results(name: str, document: dict[str, Any]) -> Path:
    """Writes training/results/NAME.json; its `results` are rows of the table."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    replace_durably(path, (json.dumps(document, indent=1) + "\n").encode())
    return path


def result_rows(
    name: str, preset: Preset, evaluation: dict[str, Any], about: dict[str, Any]
) -> list[dict[str, Any]]:
    """A row for each goal of a preset, and for each number of the paper that was measured."""
    paper = {each.metric: each.goal for each in outcomes(preset.paper, {})}
    return [
        {
            "preset": name,
            "metric": each.metric,
            "value": each.value,
            "goal": each.goal,
            "at_most": each.at_most,
            "met": each.met,
            "paper": paper.get(each.metric),
            "source": preset.source,
            **about,
        }
        for each in outcomes(preset.goals, evaluation)
    ]


def write_page() -> None:
    """Writes docs/results.md."""
    lines = [
        "# What the presets reach",
        "",
        "Written by `python -m scripts.training_results table` from `training/results/`, where"
        " `python -m scripts.training_results measure PRESET`, or `record RUN`, puts what it saw,"
        " and `python -m scripts.disentanglement` what several seeds gave. Nats per item on"
        " the test split; MNIST is binarized dynamically for the fit and by one fixed draw here."
        " Negative log-likelihoods are bounds of so many importance samples on so many of the"
        " first test items. The paper's numbers are of fits in full (for most, 3280 epochs).",
        "",
        "| preset | metric | reached | goal | | paper | seconds | device |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    sources: list[str] = []
    for path in sorted(RESULTS.glob("*.json")):
        document = json.loads(path.read_text())
        for row in document["results"]:
            lines.append(_line(row, document.get("evaluation", {})))
            note = f"- {row['preset']}: {row['source']}"
            if row["source"] and note not in sources:
                sources.append(note)
    lines += ["", "Sources of the paper's numbers:", "", *sources, ""]
    replace_durably(PAGE, "\n".join(lines).encode())
    print(f"wrote {PAGE}")


def _line(row: dict[str, Any], evaluation: dict[str, Any]) -> str:
    metric = row["metric"].replace("_", " ")
    if row["metric"] == "negative_log_likelihood" and "importance_samples" in evaluation:
        samples, items = evaluation["importance_samples"], evaluation["importance_items"]
        metric += f" ({samples} samples, {items} items)"
    value = "not measured" if row["value"] is None else f"{row['value']:.4g}"
    paper = "" if row["paper"] is None else f"{row['paper']:g}"
    verdict = {True: "met", False: "missed", None: ""}[row["met"]]
    cells = [
        row["preset"],
        metric,
        value,
        f"{_BOUNDS[row['at_most']]} {row['goal']:g}",
        verdict,
        paper,
        f"{row['seconds']:.0f}",
        row["device"],
    ]
    return f"| {' | '.join(cells)} |"


def device() -> str:
    """What the fit ran on."""
    if torch.cuda.is_available():
        return str(torch.cuda.get_device_name())
    cores = len(os.sched_getaffinity(0))
    return f"{cores} CPU cores, {platform.machine()}"


def _effort(preset: Preset, options: argparse.Namespace) -> list[str]:
    """The options of an evaluation that finds all numbers of the goals."""
    effort: list[str] = []
    goals = preset.goals
    if goals.negative_log_likelihood is not None or goals.log_likelihood_gap is not None:
        effort += ["--importance-samples", str(options.importance_samples)]
        effort += ["--importance-items", str(options.importance_items)]
    if goals.label_agreement is not None:
        effort.append("--classify")
    return effort


def _write(
    label: str,
    preset: Preset,
    evaluation: dict[str, Any],
    about: dict[str, Any],
    data_path: str | None,
) -> bool:
    """Writes a run's results, without where its data lay; whether all goals are met."""
    if data_path is not None:
        about["command"] = about["command"].replace(data_path, "DIR")
    rows = result_rows(label, preset, evaluation, about)
    path = write_results(label, {"results": rows, "evaluation": evaluation})
    print(f"wrote {path}", flush=True)
    return all(row["met"] for row in rows)


def _command(preset: str, settings: Sequence[str]) -> str:
    return " ".join(["python -m training fit", preset, *_sets(settings)])


def _sets(settings: Sequence[str]) -> list[str]:
    return [part for setting in settings for part in ("--set", setting)]


def _evaluate(run: Path, effort: Sequence[str]) -> dict[str, Any] | None:
    """What an evaluation says; None if it failed."""
    done = _training("evaluate", str(run), "--json", *effort, capture=True)
    if done.returncode:
        return None
    document: dict[str, Any] = json.loads(done.stdout)
    return document


def _training(*arguments: str, capture: bool = False) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "training", *arguments]
    return subprocess.run(
        command, check=False, text=True, stdout=subprocess.PIPE if capture else None
    )


if __name__ == "__main__":
    sys.exit(main())
