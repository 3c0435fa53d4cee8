"""`python -m training list | show | fit | resume | evaluate | report`; `torchrun -m` for many."""

import argparse
import json
import math
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import cast

import torch
from torch import nn

from training.checkpoint import DESCRIPTION, check_destination, load_run, save_run
from training.classifier import fit_classifier
from training.config import FitConfig, with_overrides
from training.data import Dataset, load_dataset
from training.distributed import first_process_says, process_index, processes
from training.errors import InterruptedFit, RunError, TrainingError
from training.evaluate import effort_for, evaluate
from training.files import replace_durably
from training.fit import choose_device, fit
from training.heap import keep_freed_memory, use_huge_pages
from training.journal import DESCRIPTION as FIT_DESCRIPTION
from training.journal import read_description
from training.pictures import draw_pictures
from training.presets import find_preset, presets, smoke, written
from training.progress import progress_bar
from training.report import FILE_NAME
from training.report.run import read_history, report


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns the exit code: 0, 2 if the input is at fault, 130 if interrupted.

    141, what a shell says of SIGPIPE, if nobody reads what is printed (`| head`).
    """
    options = _parser().parse_args(arguments)
    if options.command not in ("list", "show"):  # which compute nothing, and are quicker without
        use_huge_pages()
    try:
        if options.command == "list":
            _list()
        elif options.command == "show":
            print(written(_config(options.preset, options.set, is_smoke=False)), end="")
        elif options.command == "fit":
            _fit(options)
        elif options.command == "resume":
            _resume(options)
        elif options.command == "report":
            _report(options)
        else:
            _evaluate(options)
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # python flushes at its end
        return 141
    except TrainingError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except InterruptedFit as stopped:
        print(stopped, file=sys.stderr)
        return 130
    except KeyboardInterrupt:
        print("error: interrupted", file=sys.stderr)
        return 130
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m training", description="Fits and evaluates variational autoencoders."
    )
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("list", help="the presets, and what each reaches")
    fitting = commands.add_parser("fit", help="fit a preset and write a run directory")
    showing = commands.add_parser("show", help="every setting of a preset, as a preset file")
    for command in (showing, fitting):
        command.add_argument("preset", metavar="PRESET", help="its name, or a file ending in .toml")
        command.add_argument(
            "--set",
            action="append",
            default=[],
            metavar="KEY=VALUE",
            help="change a setting, for example model.latent_size=2 or data.path=DIR; repeatable",
        )
    fitting.add_argument(
        "--out", type=Path, metavar="DIR", help="the run directory; default runs/PRESET-TIME"
    )
    fitting.add_argument(
        "--smoke", action="store_true", help="few items and epochs: everything in seconds"
    )
    fitting.add_argument(
        "--resume",
        action="store_true",
        help="go on with the fit that was begun in --out, if one was; for jobs that start again",
    )
    resuming = commands.add_parser("resume", help="go on with a fit that was interrupted")
    resuming.add_argument("directory", type=Path, metavar="DIR")
    resuming.add_argument(
        "--data-path", metavar="DIR", help="where the data set lies now; default: where it lay"
    )
    for command in (fitting, resuming):
        command.add_argument(
            "--minutes",
            type=float,
            default=math.inf,
            metavar="N",
            help="stop and save after so long; resume goes on",
        )
    evaluating = commands.add_parser("evaluate", help="evaluate a run on its test split")
    evaluating.add_argument("run", type=Path, metavar="RUN")
    evaluating.add_argument("--json", action="store_true", help="print one JSON object")
    evaluating.add_argument(
        "--importance-samples",
        type=_count,
        default=None,
        metavar="K",
        help="for the log-likelihood; default 500, fewer for costly models; 0: none",
    )
    evaluating.add_argument(
        "--importance-items",
        type=_count,
        default=None,
        metavar="N",
        help="items for it; default the first 1000, fewer for costly models; 0: all",
    )
    evaluating.add_argument(
        "--classify",
        action="store_true",
        help="read conditional samples by a classifier, fitted now",
    )
    evaluating.add_argument(
        "--device",
        choices=("auto", "cpu", "cuda"),
        default="auto",
        help="where the model runs; default: CUDA if it is there",
    )
    reporting = commands.add_parser("report", help="write the report of a run again")
    reporting.add_argument("run", type=Path, metavar="RUN")
    reporting.add_argument(
        "--out", type=Path, metavar="FILE", help=f"default: RUN/{FILE_NAME}, which is replaced"
    )
    for reading in (evaluating, reporting):
        reading.add_argument(
            "--data-path", metavar="DIR", help="where the data set lies now; default: where it lay"
        )
    return parser


def _list() -> None:
    for name, preset in presets().items():
        reaches = str(preset.goals) or "nothing is asked"
        print(f"{name}\n    {preset.description}\n    reaches on the test split: {reaches}")


def _fit(options: argparse.Namespace) -> None:
    config = _config(options.preset, options.set, options.smoke)
    if options.resume and options.out is None:
        raise TrainingError("--resume needs --out, the directory of the run")
    path = options.out or Path("runs") / f"{config.preset}-{time.strftime('%Y%m%d-%H%M%S')}"
    device = choose_device(config.device)
    with processes(cuda=device == "cuda"):
        # One process looks for all: it also makes the directory, which another may see too early.
        if options.resume and first_process_says((path / DESCRIPTION).exists(), device):
            _say(f"{path} is a finished run; there is nothing to do")
            return
        begun = options.resume and first_process_says((path / FIT_DESCRIPTION).exists(), device)
        if begun:
            begun_as, digest = read_description(path)
            if begun_as != config:
                raise RunError(f"{path} was begun with other settings; choose another directory")
            _go_on(path, config, digest, options.minutes)
            return
        if process_index() == 0:
            check_destination(path)
        dataset = load_dataset(config.data)
        _say(f"fitting {config.preset} on {len(dataset.train)} items of {dataset.name}")
        _run(path, config, dataset, resume=False, minutes=options.minutes)


def _resume(options: argparse.Namespace) -> None:
    path = options.directory
    if (path / DESCRIPTION).exists():
        raise RunError(f"{path} is a finished run; there is nothing to resume")
    config, digest = read_description(path)
    if options.data_path is not None:
        config = replace(config, data=config.data.at(options.data_path))
    with processes(cuda=choose_device(config.device) == "cuda"):
        _go_on(path, config, digest, options.minutes)


def _go_on(path: Path, config: FitConfig, digest: str, minutes: float) -> None:
    """Goes on with a fit that was begun on the data set with this digest."""
    dataset = load_dataset(config.data)
    if dataset.sha256() != digest:
        raise RunError(f"the data set {config.data.name} is not the one that {path} began on")
    _say(f"resuming {config.preset} on {len(dataset.train)} items of {dataset.name}")
    _run(path, config, dataset, resume=True, minutes=minutes)


def _run(path: Path, config: FitConfig, dataset: Dataset, resume: bool, minutes: float) -> None:
    with progress_bar() as watch:
        fitted = fit(config, dataset, _say, path, resume=resume, minutes=minutes, watch=watch)
    if process_index() > 0:
        return
    device = choose_device(config.device)
    module = cast("nn.Module", fitted.model).to(device)
    evaluation = evaluate(fitted.model, dataset, device=device)
    module.cpu()
    pictures = draw_pictures(fitted.model, dataset)
    pictures[FILE_NAME] = report(config, fitted.model, dataset, evaluation, fitted.history)
    save_run(path, config, fitted.model, dataset, evaluation, fitted.history, pictures)
    _say(f"fitted in {fitted.seconds:.1f} s; on {len(dataset.test)} test items:")
    _say(evaluation.table())
    _say(f"wrote {path}")


def _evaluate(options: argparse.Namespace) -> None:
    run = load_run(options.run)
    effort = effort_for(run.model)
    if options.importance_samples is not None:
        effort = replace(effort, importance_samples=options.importance_samples)
    if options.importance_items is not None:
        effort = replace(effort, importance_items=options.importance_items or None)
    dataset, classify = run.dataset(options.data_path), None
    if options.classify:
        classify, accuracy = fit_classifier(dataset)
        print(f"the classifier reads {accuracy:.2%} of the test split right", file=sys.stderr)
    device = choose_device(options.device)
    cast("nn.Module", run.model).to(device)
    evaluation = evaluate(run.model, dataset, effort, classify=classify, device=device)
    print(json.dumps(evaluation.document()) if options.json else evaluation.table())


def _report(options: argparse.Namespace) -> None:
    run = load_run(options.run)
    dataset = run.dataset(options.data_path)
    history = read_history(options.run)
    content = report(run.config, run.model, dataset, evaluate(run.model, dataset), history)
    path = options.out or options.run / FILE_NAME
    try:
        replace_durably(path, content)
    except OSError as error:
        raise TrainingError(f"cannot write {path}: {error.strerror}") from error
    print(f"wrote {path}")


def _count(text: str) -> int:
    count = int(text)
    if count < 0:
        raise ValueError(text)
    return count


def _say(line: str) -> None:
    if process_index() == 0:
        print(line, flush=True)


def _config(name: str, settings: Sequence[str], is_smoke: bool) -> FitConfig:
    preset = find_preset(name).config
    overrides: dict[str, str] = {}
    for setting in settings:
        key, equals, value = setting.partition("=")
        if not equals:
            raise TrainingError(f"--set takes KEY=VALUE, not {setting!r}")
        overrides[key] = value
    return with_overrides(smoke(preset) if is_smoke else preset, overrides)


if __name__ == "__main__":
    keep_freed_memory()
    # Adam's moments of weights that get no gradient any more fade into numbers that a CPU is slow
    # with. Before torch has threads of its own, which take this over.
    torch.set_flush_denormal(True)
    sys.exit(main())
