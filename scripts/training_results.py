"""`python -m scripts.training_results measure PRESET ... | table`: what presets reach.

`measure` fits presets one after the other as a user would, evaluates each run, and writes
training/results/PRESET.json: for each goal of the preset its metric, value, goal, the paper's
value, and what it took. `table` writes docs/results.md from these files.
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

from training.files import replace_durably
from training.presets import Preset, outcomes, presets

RESULTS = Path("training/results")
PAGE = Path("docs/results.md")
_BOUNDS = {True: "≤", False: "≥"}


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns 0, or 1 if a fit missed a goal or failed."""
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    measuring = commands.add_parser("measure", help="fit, evaluate, write training/results")
    measuring.add_argument("presets", nargs="+", metavar="PRESET")
    measuring.add_argument("--data-path", metavar="DIR", help="MNIST's four files")
    measuring.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    measuring.add_argument("--name", help="of the file; default: the preset's")
    measuring.add_argument("--importance-samples", type=int, default=5000)
    measuring.add_argument("--importance-items", type=int, default=1000)
    commands.add_parser("table", help="write docs/results.md")
    options = parser.parse_args(arguments)
    if options.command == "table":
        write_page()
        return 0
    met = [measure(name, options) for name in options.presets]
    write_page()
    return 0 if all(met) else 1


def measure(name: str, options: argparse.Namespace) -> bool:
    """Fits and evaluates a preset and writes its results; whether all its goals are met."""
    preset = presets()[name]
    settings = list(options.set)
    if preset.config.data.name == "mnist":
        settings.append(f"data.path={options.data_path}")
    effort: list[str] = []
    goals = preset.goals
    if goals.negative_log_likelihood is not None or goals.log_likelihood_gap is not None:
        effort += ["--importance-samples", str(options.importance_samples)]
        effort += ["--importance-items", str(options.importance_items)]
    if preset.goals.label_agreement is not None:
        effort.append("--classify")
    done = fit_and_evaluate(name, options.name or name, settings, effort)
    if done is None:
        return False
    evaluation, about = done
    about["command"] = about["command"].replace(str(options.data_path), "DIR")
    rows = result_rows(options.name or name, preset, evaluation, about)
    path = write_results(options.name or name, {"results": rows, "evaluation": evaluation})
    print(f"wrote {path}", flush=True)
    return all(row["met"] for row in rows)


def fit_and_evaluate(
    preset: str, label: str, settings: Sequence[str], effort: Sequence[str] = ()
) -> tuple[dict[str, Any], dict[str, Any]] | None:
    """A preset's evaluation, and what it took: device, seconds, command; None if it failed.

    effort: options of the evaluation. The run stays in runs/results-LABEL-TIME.
    """
    run = Path("runs") / f"results-{label}-{time.strftime('%Y%m%d-%H%M%S')}"
    sets = [part for setting in settings for part in ("--set", setting)]
    started = time.monotonic()
    if _training("fit", preset, "--out", str(run), *sets).returncode:
        return None
    seconds = time.monotonic() - started
    evaluated = _training("evaluate", str(run), "--json", *effort, capture=True)
    if evaluated.returncode:
        return None
    command = " ".join(["python -m training fit", preset, *sets])
    about = {"device": device(), "seconds": round(seconds, 1), "command": command}
    return json.loads(evaluated.stdout), about


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
        " `python -m scripts.training_results measure PRESET` puts what it saw, and"
        " `python -m scripts.disentanglement` what several seeds gave. Nats per item on"
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


def _training(*arguments: str, capture: bool = False) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "training", *arguments]
    return subprocess.run(
        command, check=False, text=True, stdout=subprocess.PIPE if capture else None
    )


if __name__ == "__main__":
    sys.exit(main())
