"""`python -m benchmarks` with a command; see --help."""

import argparse
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks import (
    arrivals,
    cuda,
    page,
    scale,
    streams,
    swaps,
    tail,
    training_cuda,
    training_speed,
)
from benchmarks.compare import compare
from benchmarks.errors import BenchmarkError
from benchmarks.runner import Results, describe, render, run_benchmarks, write_results
from benchmarks.scenarios import FULL, QUICK, Plan
from benchmarks.tuning import tune

_STREAM_SECONDS = 5.0
_TAIL_SECONDS = 10.0
_RESULTS = Path(__file__).parent / "results"
_PAGE = Path(__file__).parents[1] / "docs" / "performance.md"


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns the exit code: 0, 1 if a call failed, 2 if something cannot be measured."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run", help="everything, beside the peers")
    run.add_argument("--quick", action="store_true", help="short rounds, for a look")
    run.add_argument("--threads", type=int, default=1, help="onnxruntime's, everywhere (1)")
    run.add_argument(
        "--service-options", type=shlex.split, default=[], metavar="TEXT", help="further options"
    )
    tuning = commands.add_parser("tune", help="look for Triton's best settings")
    tuning.add_argument("--quick", action="store_true", help="short rounds, for a look")
    comparing = commands.add_parser("compare", help="a request's cost beside another checkout's")
    comparing.add_argument("checkout", type=Path, metavar="DIR", help="as a git worktree")
    comparing.add_argument("--quick", action="store_true", help="short rounds, for a look")
    streaming = commands.add_parser("streams", help="what streams save beside one-item calls")
    swapping = commands.add_parser("swaps", help="how long health waits while versions are loaded")
    tailing = commands.add_parser("tail", help="where slow requests of a fleet spend their time")
    arriving = commands.add_parser("arrivals", help="latencies under Poisson arrivals, and waits")
    scaling = commands.add_parser("scale", help="what a process more adds, and a simulation")
    scaling.add_argument("--quick", action="store_true", help="short rounds, for a look")
    commands.add_parser("training-speed", help="images/s of a fit, beside pythae")
    fitting = commands.add_parser(
        "training-cuda", help="fits on a GPU, with CUDA graphs and without"
    )
    device = commands.add_parser("cuda", help="batches, requests and memory on a GPU")
    device.add_argument("--provider", choices=("cuda", "cpu"), default="cuda", help="cpu rehearses")
    device.add_argument("--quick", action="store_true", help="short rounds, for a look")
    device.add_argument("--parts", nargs="+", choices=cuda.PARTS, default=cuda.PARTS)
    paging = commands.add_parser("page", help="write the results into docs/performance.md")
    paging.add_argument("file", type=Path, metavar="FILE", help="that a run wrote")
    for command in (run, tuning, streaming, swapping, tailing, arriving, scaling, device, fitting):
        command.add_argument("--results", type=Path, default=_RESULTS, metavar="DIR")
    options = parser.parse_args(arguments)
    try:
        if options.command == "page":
            page.write_results(_PAGE, options.file)
            return 0
        if options.command == "run":
            return _run(options)
        print(_measure(options))
    except BenchmarkError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def _run(options: argparse.Namespace) -> int:
    """Everything beside the peers; the exit code."""
    plan, quick = _plan(options)
    results, about = run_benchmarks(plan, options.threads, options.service_options)
    print(render(results))
    path = write_results(options.results, f"goals{quick}", results, about)
    print(f"wrote {path}")
    return 1 if results.errors else 0


def _measure(options: argparse.Namespace) -> str:
    """What any other command has to say at its end. Raises BenchmarkError."""
    plan, quick = _plan(options)
    match options.command:
        case "compare":
            return render(compare(options.checkout, plan))
        case "tune":
            text, path = tune(plan, options.results, f"tune{quick}")
            return f"{text}\nwrote {path}"
        case "scale":
            return _scale(options.quick, options.results, f"scale{quick}")
        case "streams":
            path = streams.measure(options.results, _STREAM_SECONDS, print)
        case "tail":
            path = tail.measure(options.results, _TAIL_SECONDS, print)
        case "arrivals":
            path = arrivals.measure(arrivals.Plan(), options.results, print)
        case "swaps":
            path = swaps.measure(options.results, print)
        case "training-speed":
            path = training_speed.measure(print)
        case "training-cuda":
            path = training_cuda.measure(options.results, print)
        case "cuda":
            path = _cuda(options)
        case _:
            raise AssertionError(options.command)
    return f"wrote {path}"


def _plan(options: argparse.Namespace) -> tuple[Plan, str]:
    """How long everything takes, and what the file's name says of it."""
    return (QUICK, "-quick") if getattr(options, "quick", False) else (FULL, "")


def _cuda(options: argparse.Namespace) -> Path:
    plan = cuda.QUICK if options.quick else cuda.FULL
    what = f"{'cuda' if options.provider == 'cuda' else 'cuda-rehearsal'}{options.quick * '-quick'}"
    return cuda.measure(plan, options.provider, options.parts, options.results, what, print)


def _scale(quick: bool, folder: Path, what: str) -> str:
    """Measures, simulates and writes; the table and what the simulation says."""
    plan = scale.QUICK if quick else scale.ScalePlan()
    about = describe(FULL, {})
    results = Results(scale.measure(plan))
    text, more = scale.report(plan, results.records)
    path = write_results(folder, what, results, about | more)
    return f"{render(results)}\n{text}\nwrote {path}"


if __name__ == "__main__":
    sys.exit(main())
