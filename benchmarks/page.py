"""The results in docs/performance.md: tables made from a file that a run wrote."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.records import FORMATS, ONNXRUNTIME

BEGIN, END = "<!-- results -->", "<!-- end of results -->"
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
    """Replaces what stands between the marks of the page by the tables of a results file."""
    before, _, rest = page.read_text().partition(BEGIN)
    _, _, after = rest.partition(END)
    page.write_text(f"{before}{BEGIN}\n{tables(results)}{END}{after}")


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


def _row(comparison: Mapping[str, Any]) -> str:
    subject, metric = comparison["subject"], comparison["metric"]
    form, ratios = FORMATS[metric], comparison["ratios"]
    what = f"{_MODELS.get(subject['model'], subject['model'])}, {subject['load']}"
    if subject["api"]:
        what += f", {subject['api']}{_CLIENTS.get(subject['client'], '')}"
    ratio = f"{comparison['ratio']:.2f} ({ratios[0]:.2f}-{ratios[-1]:.2f})" if ratios else ""
    ours, theirs = format(comparison["ours"], form), format(comparison["theirs"], form)
    return f"| {what.strip(', ')}: {metric} | {ours} | {theirs} | {ratio} |"
