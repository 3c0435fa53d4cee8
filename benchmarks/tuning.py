"""Looks for Triton's best settings: the peer gets them, and the file says which."""

import statistics
import tempfile
from dataclasses import replace
from pathlib import Path

from benchmarks.load import Load, run_load
from benchmarks.messages import infer
from benchmarks.models import CONV, MLP, MODELS, build_repository
from benchmarks.peers import Peers, install_peers
from benchmarks.records import Record, Subject, medians
from benchmarks.runner import Results, describe, write_results
from benchmarks.scenarios import BATCH, BATCHED_CALLERS, SATURATING_CALLERS, Plan, record_of
from benchmarks.triton import TritonSettings, running_triton

_BASE = TritonSettings()


def _with_batches(most: int) -> TritonSettings:
    return replace(_BASE, max_batch_sizes={model.name: most for model in MODELS})


CANDIDATES = {
    "base": _BASE,
    "pool 64": replace(_BASE, allocation_pool=64),
    "2 instances": replace(_BASE, instances=2),
    "2 instances, pool 64": replace(_BASE, instances=2, allocation_pool=64),
    "2 threads": replace(_BASE, threads=2),
    "batch 32": _with_batches(32),
    "batch 128": _with_batches(128),
    "batch 256": _with_batches(256),
    "eager": replace(_BASE, eager_batching=True),
    "preferred 32, 64": replace(_BASE, preferred_batch_sizes=(32, 64)),
}
_LOADS = (
    (MLP, 1, 1),
    (MLP, 1, 16),
    (MLP, 1, 64),
    (MLP, BATCH, BATCHED_CALLERS),
    (CONV, BATCH, BATCHED_CALLERS),
    (CONV, 1, SATURATING_CALLERS),
)


def tune(plan: Plan, folder: Path, what: str) -> tuple[str, Path]:
    """Measure every candidate in every round; the table and the file of results.

    The score is the geometric mean over the loads of items a second, in units of the first
    candidate's.
    """
    results = Results()
    about = describe(plan, CANDIDATES)
    peers = install_peers()
    with tempfile.TemporaryDirectory(prefix="models-") as name:
        repository = Path(name)
        build_repository(repository)
        for number in range(plan.rounds):
            for candidate, settings in CANDIDATES.items():
                results.records += _measure(plan, peers, repository, candidate, settings, number)
    path = write_results(folder, what, results, about)
    return _table(results), path


def _measure(
    plan: Plan, peers: Peers, repository: Path, name: str, settings: TritonSettings, number: int
) -> list[Record]:
    records = []
    with running_triton(peers, repository, settings) as server:
        for model, items, callers in _LOADS:
            if items > settings.max_batch_size(model):
                continue
            load = Load(
                concurrency=callers, warmup=plan.warmup, duration=plan.duration, watch=server.pid
            )
            subject = Subject(name, model.name, f"{callers} callers of {items}", "load", "triton")
            report = run_load(server.target, infer(model, items), load)
            records.append(record_of(subject, number, items, report))
    return records


def _table(results: Results) -> str:
    """Items a second of each candidate and load, medians over rounds, and the score."""
    rates: dict[str, dict[str, float]] = {}
    for subject, metrics in medians(results.records).items():
        rates.setdefault(subject.goal, {})[f"{subject.model}, {subject.load}"] = metrics["items/s"]
    base = next(iter(rates.values()))
    lines = []
    for name, row in rates.items():
        score = statistics.geometric_mean(row[load] / base[load] for load in row)
        cells = "; ".join(f"{load}: {rate:,.0f} items/s" for load, rate in row.items())
        lines.append(f"{name} (score {score:.2f}): {cells}")
    return "\n".join(lines)
