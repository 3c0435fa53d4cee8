"""The results in docs/performance.md: tables made from a file that a run wrote."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks import device_runs, device_service
from benchmarks.device_runs import Latency
from benchmarks.device_service import Served
from benchmarks.errors import BenchmarkError
from benchmarks.records import FORMATS, ONNXRUNTIME

_SHOWN_ITEMS = {1, 64}  # of batches on a device; the file has the other buckets
_SHOWN_LOADS = {(1, 64), (64, 4)}  # items of a request, and callers
_MODELS = {"mlp": "MLP", "conv": "64x64 convolutions", "both": "both models"}
_LEFT_OUT = {"p50 ms", "refused %"}  # the file has them
_CLIENTS = {"perf_analyzer": " by perf_analyzer"}
_TITLES = {
    "triton": "beside Triton, one instance (as many threads)",
    "triton, 2 instances": "beside Triton, two instances (both cores)",
    ONNXRUNTIME: "share of onnxruntime alone",
    "bound": "beside the bound",
}


def write_results(page: Path, results: Path) -> None:
    """Replaces what stands between the marks of the page by the tables of a results file.

    Raises BenchmarkError for a file of which the page has no tables.
    """
    kind = results.stem[len("2026-11-26-") :]
    if kind not in TABLES:
        raise BenchmarkError(f"expected a file of {' or '.join(TABLES)}, not {results}")
    begin, end = marks(kind)
    before, _, rest = page.read_text().partition(begin)
    _, _, after = rest.partition(end)
    page.write_text(f"{before}{begin}\n{TABLES[kind](results)}{end}{after}")


def marks(kind: str) -> tuple[str, str]:
    """What stands before and after the tables of a kind of results."""
    return f"<!-- results: {kind} -->", f"<!-- end of results: {kind} -->"


def tables(results: Path) -> str:
    """A line on the run, then a table for each peer."""
    document: dict[str, Any] = json.loads(results.read_text())
    machine, versions = document["machine"], document["versions"]
    lines = [
        f"`benchmarks/results/{results.name}`: {machine['cores']} cores of an "
        f"{machine['processor']}, onnxruntime {versions['onnxruntime']} with "
        f"{document['threads']} thread, grpcio {versions['grpcio']}, "
        f"{document['plan']['rounds']} rounds. The ratio is the median over the rounds, with its "
        "range.",
        "",
    ]
    comparisons: Sequence[Mapping[str, Any]] = document["comparisons"]
    for server, title in _TITLES.items():
        rows = [
            _row(each)
            for each in comparisons
            if each["peer"]["server"] == server and each["metric"] not in _LEFT_OUT
        ]
        if rows:
            peer = "peer" if server != ONNXRUNTIME else "onnxruntime"
            lines += [f"| {title} | service | {peer} | ratio |", "| --- | --- | --- | --- |"]
            lines += [*rows, ""]
    return "\n".join(lines)


def cuda_tables(results: Path) -> str:
    """A line on the run, then batches by graph and way, and loads through the service."""
    document: dict[str, Any] = json.loads(results.read_text())
    versions = document["versions"]
    batches = [Latency(**each) for each in document["latency"]]
    served = [Served(**each) for each in document["service"]]
    about = (
        f"`benchmarks/results/{results.name}`: one {document['gpu']['name']}, onnxruntime-gpu "
        f"{versions['onnxruntime-gpu']}, torch {versions['torch']}, {document['machine']['cores']} "
        "cores. Milliseconds of a batch, medians:"
    )
    parts = [
        about,
        device_runs.table([each for each in batches if each.items in _SHOWN_ITEMS]),
        "Decode through the service:",
        device_service.table(
            [each for each in served if (each.items, each.callers) in _SHOWN_LOADS]
        ),
    ]
    return "\n\n".join(parts) + "\n"


TABLES: Mapping[str, Callable[[Path], str]] = {"goals": tables, "cuda": cuda_tables}


def _row(comparison: Mapping[str, Any]) -> str:
    subject, metric = comparison["subject"], comparison["metric"]
    form, ratios = FORMATS[metric], comparison["ratios"]
    what = f"{_MODELS.get(subject['model'], subject['model'])}, {subject['load']}"
    if subject["api"]:
        what += f", {subject['api']}{_CLIENTS.get(subject['client'], '')}"
    ratio = f"{comparison['ratio']:.2f} ({ratios[0]:.2f}-{ratios[-1]:.2f})" if ratios else ""
    ours, theirs = format(comparison["ours"], form), format(comparison["theirs"], form)
    return f"| {what.strip(', ')}: {metric} | {ours} | {theirs} | {ratio} |"
