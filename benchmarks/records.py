"""What is measured, and how rounds become one number beside another."""

import statistics
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

SERVICE, ONNXRUNTIME = "service", "onnxruntime"
# Metrics with their formats; those of which less is better say so in `LESS_IS_BETTER`.
FORMATS = {
    "requests/s": ",.0f",
    "items/s": ",.0f",
    "p50 ms": ".2f",
    "p99 ms": ".2f",
    "server CPU us/request": ",.0f",
    "refused %": ".2f",
    "refused p99 ms": ".2f",
    "start-up s": ".2f",
    "resident MiB": ".0f",
    "growth MiB": ".1f",
}
LESS_IS_BETTER = frozenset(FORMATS) - {"requests/s", "items/s"}


@dataclass(frozen=True)
class Subject:
    """What a number is about. Two subjects compare that differ in server and api only.

    `goal` is the question, `load` how it was asked, `client` what asked, `api` through what.
    """

    goal: str
    model: str
    load: str
    client: str
    server: str
    api: str = ""


@dataclass(frozen=True)
class Record:
    """The metrics of one subject in one round, by the names of FORMATS; `errors` by gRPC code."""

    subject: Subject
    round: int
    metrics: Mapping[str, float]
    errors: Mapping[str, int]


@dataclass(frozen=True)
class Comparison:
    """One line of the table. `ours` and `theirs` are medians over rounds.

    `ratios` has ours / theirs of each round, ascending: both were measured within seconds, so what
    else the machine did hit both. Empty where a ratio says nothing, as for what may be negative.
    """

    subject: Subject
    peer: Subject
    metric: str
    ours: float
    theirs: float
    ratios: tuple[float, ...]

    @property
    def ratio(self) -> float | None:
        """The median of `ratios`."""
        return statistics.median(self.ratios) if self.ratios else None


def medians(records: Iterable[Record]) -> dict[Subject, dict[str, float]]:
    """The median over rounds of each metric of each subject, in the order of first appearance."""
    return {
        subject: {name: statistics.median(rounds.values()) for name, rounds in metrics.items()}
        for subject, metrics in _by_round(records).items()
    }


def comparisons(records: Iterable[Record]) -> list[Comparison]:
    """Each number of the service beside the same number of each peer, by goal."""
    numbers = _by_round(records)
    lines = [
        _compare(subject, peer, metric, metrics[metric], theirs[metric])
        for subject, metrics in numbers.items()
        if subject.server == SERVICE
        for peer, theirs in numbers.items()
        if peer.server != SERVICE and _comparable(subject, peer)
        for metric in FORMATS
        if metric in metrics and metric in theirs
        if not (metric == "items/s" and "requests/s" in theirs)  # the same once more
    ]
    return sorted(lines, key=lambda line: line.subject.goal)


def _by_round(records: Iterable[Record]) -> dict[Subject, dict[str, dict[int, float]]]:
    values: dict[Subject, dict[str, dict[int, float]]] = {}
    for record in records:
        metrics = values.setdefault(record.subject, {})
        for name, value in record.metrics.items():
            metrics.setdefault(name, {})[record.round] = value
    return values


def _comparable(subject: Subject, peer: Subject) -> bool:
    """Whether both answer the same question; onnxruntime alone has no client."""
    same = (subject.goal, subject.model, subject.load) == (peer.goal, peer.model, peer.load)
    return same and (peer.server == ONNXRUNTIME or subject.client == peer.client)


def _compare(
    subject: Subject, peer: Subject, metric: str, ours: dict[int, float], theirs: dict[int, float]
) -> Comparison:
    shared = ours.keys() & theirs.keys()
    positive = all(ours[number] > 0 < theirs[number] for number in shared)
    ratios = sorted(ours[number] / theirs[number] for number in shared) if positive else []
    middle, other = statistics.median(ours.values()), statistics.median(theirs.values())
    return Comparison(subject, peer, metric, middle, other, tuple(ratios))


def table(lines: Iterable[Comparison]) -> str:
    """The comparisons as text, one a line; the range is that of the ratio over rounds."""
    head = (
        "goal",
        "model",
        "load",
        "client, api",
        "metric",
        "service",
        "peer",
        "",
        "ratio",
        "range",
    )
    rows = [head]
    for line in lines:
        subject, form = line.subject, FORMATS[line.metric]
        less = ", less is better" if line.metric in LESS_IS_BETTER else ""
        rows.append(
            (
                subject.goal,
                subject.model,
                subject.load,
                f"{subject.client}, {subject.api}" if subject.api else subject.client,
                line.metric + less,
                format(line.ours, form),
                format(line.theirs, form),
                line.peer.server,
                "" if line.ratio is None else f"{line.ratio:.2f}",
                f"{line.ratios[0]:.2f}-{line.ratios[-1]:.2f}" if line.ratios else "",
            )
        )
    widths = [max(len(row[column]) for row in rows) for column in range(len(head))]
    numeric = {5, 6, 8, 9}
    return "\n".join(
        "  ".join(
            cell.rjust(width) if column in numeric else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    )
