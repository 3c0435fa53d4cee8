"""Runs the scenarios in one go and writes what they saw."""

import json
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks import lifetimes, scenarios
from benchmarks.errors import BenchmarkError
from benchmarks.machine import describe_commit, describe_machine, describe_versions
from benchmarks.messages import (
    check_answer,
    decode,
    expected_observations,
    infer,
    latents_of,
    speaks_inference,
)
from benchmarks.models import MLP, MODELS, build_repository, decoder_file
from benchmarks.overload import overload
from benchmarks.peers import install_peers
from benchmarks.records import Record, comparisons, medians, table
from benchmarks.scenarios import BATCH, Bench, Case, Plan
from benchmarks.servers import running
from benchmarks.triton import TritonSettings, running_triton, variants


@dataclass
class Results:
    """What a run saw: a record for each case and round, and what could not be measured."""

    records: list[Record] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def run(self, cases: Sequence[Case], rounds: int) -> None:
        """Visit all cases in turn, again and again: what the machine does meanwhile hits all."""
        for number in range(rounds):
            for case in cases:
                try:
                    self.records.append(case.measure(number))
                except BenchmarkError as error:
                    self.note(f"round {number}: {' '.join(vars(case.subject).values())}: {error}")

    def note(self, text: str) -> None:
        """Keep what went wrong, once."""
        if text not in self.notes:
            self.notes.append(text)

    @property
    def errors(self) -> int:
        """Calls that failed, over all records."""
        return sum(sum(record.errors.values()) for record in self.records)


def run_benchmarks(
    plan: Plan, threads: int, service_options: Sequence[str]
) -> tuple[Results, dict[str, Any]]:
    """Everything that the goals ask for; the second value goes into the file of results.

    Raises BenchmarkError if a peer cannot be installed or a server answers something wrong.
    """
    settings = variants(threads)
    about = describe(plan, settings)
    about |= {"threads": threads, "service_options": list(service_options)}
    results = Results()
    peers = install_peers()
    options = ["--threads", str(threads), *service_options]
    with tempfile.TemporaryDirectory(prefix="models-") as name:
        repository, small = Path(name) / "both", Path(name) / "small"
        build_repository(repository)
        build_repository(small, [MLP])

        def starts(models: Path) -> tuple[lifetimes.Start, list[lifetimes.Start]]:
            tritons: list[lifetimes.Start] = [
                partial(running_triton, peers, models, value, key)
                for key, value in settings.items()
            ]
            return partial(running, models, options), tritons

        start_service, start_tritons = starts(repository)
        with ExitStack() as stack:
            tritons = tuple(stack.enter_context(start()) for start in start_tritons)
            service = stack.enter_context(start_service())
            has_inference = speaks_inference(service.target)
            if not has_inference:
                results.note("the service does not speak the Open Inference Protocol")
            bench = Bench(plan, peers, repository, threads, tritons, service, has_inference)
            check_answers(bench)
            cases = scenarios.one_item(bench)
            cases += scenarios.batched(bench) + scenarios.saturation(bench)
            results.run(cases, plan.rounds)
            results.run(scenarios.open_arrivals(bench, capacity(results)), plan.rounds)
            results.run(scenarios.perf_analyzer(bench), plan.perf_rounds)
        results.records += overload(plan, repository, threads)
        start_service, start_tritons = starts(small)
        for number in range(plan.rounds):
            for start in (*start_tritons, start_service):
                results.records.append(lifetimes.start_up(start, MLP.name, number))
        for start, make in ((start_tritons[0], infer), (start_service, decode)):
            record = lifetimes.memory(start, make(MLP, 1), MLP.name, plan.memory_requests)
            results.records.append(record)
    return results, about


def check_answers(bench: Bench) -> None:
    """Every server, through every API, answers what onnxruntime computes by itself."""
    for model in MODELS:
        graph = decoder_file(bench.repository, model).read_bytes()
        for items in (1, BATCH):
            expected = expected_observations(graph, latents_of(model, items))
            for server, _, make in bench.apis():
                check_answer(server.target, make(model, items), expected)


def capacity(results: Results) -> float:
    """Requests a second that the slowest server and API reach with the most callers."""
    name = f"{scenarios.CALLERS[-1]} callers"
    rates = [
        metrics["requests/s"]
        for subject, metrics in medians(results.records).items()
        if subject.goal == "1 one item" and subject.load == name
    ]
    if not rates:
        raise BenchmarkError("no server answered one-item requests")
    return min(rates)


def describe(plan: Plan, tritons: Mapping[str, TritonSettings]) -> dict[str, Any]:
    """Machine, versions and settings, before anything runs."""
    return {
        "date": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "machine": describe_machine(),
        "versions": describe_versions(),
        "git": describe_commit(),
        "plan": asdict(plan),
        "triton": {name: asdict(settings) for name, settings in tritons.items()},
    }


def write_results(folder: Path, what: str, results: Results, about: dict[str, Any]) -> Path:
    """FOLDER/DATE-WHAT.json; never replaces one. Returns its path."""
    numbers = medians(results.records)
    document = {
        **about,
        "notes": results.notes,
        "comparisons": [
            {**asdict(line), "ratio": line.ratio} for line in comparisons(results.records)
        ],
        "medians": [{**asdict(subject), "metrics": value} for subject, value in numbers.items()],
        "rounds": [asdict(record) for record in results.records],
    }
    folder.mkdir(parents=True, exist_ok=True)
    stem = f"{about['date'][:10]}-{what}"
    names = [f"{stem}.json", *(f"{stem}-{number}.json" for number in range(2, 1000))]
    path = next(folder / name for name in names if not (folder / name).exists())
    path.write_text(json.dumps(document, indent=1, allow_nan=False) + "\n")
    return path


def render(results: Results) -> str:
    """The table, then what went wrong."""
    lines = [table(comparisons(results.records))]
    lines += [f"note: {note}" for note in results.notes]
    for record in results.records:
        if record.errors:
            lines.append(f"error: {record.subject}, round {record.round}: {dict(record.errors)}")
    return "\n".join(lines)
