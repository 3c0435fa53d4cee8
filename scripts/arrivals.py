"""Holds the simulation of a replica's queue against a result of `python -m benchmarks arrivals`."""

import json
import statistics
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from benchmarks.loops import poisson_arrivals
from scripts.queues import BATCH, BatchCost, Seen, observe


@dataclass(frozen=True)
class Round:
    """A round of Poisson arrivals: what was measured, and what the simulation says of the same
    arrivals, undisturbed and with both programs' waits for a core. waits: the service's and the
    generator's, in ms for each second; cpu: measured, in us/request."""

    rate: float
    measured: Seen
    calm: Seen
    disturbed: Seen
    waits: tuple[float, float]


class Arrivals:
    """A result of `python -m benchmarks arrivals`."""

    def __init__(self, path: Path) -> None:
        self._results = json.loads(path.read_text())

    def cpu(self, callers: int, whose: str = "server") -> float:
        """The service's or the client's microseconds of CPU for a request of so many callers."""
        rounds = (each for each in self._results["closed"] if each["callers"] == callers)
        return statistics.median(float(each[f"{whose}_cpu_us"]) for each in rounds)

    def cost(self, whose: str = "server") -> BatchCost:
        """As `Measured.cost`, in this run."""
        return BatchCost.of(self.cpu(1, whose), self.cpu(BATCH, whose))

    def rounds(self) -> Iterator[Round]:
        """Each, simulated."""
        plan = self._results["plan"]
        warmup, duration = plan["warmup"], plan["duration"]
        costs = self.cost(), self.cost("client")
        for each in self._results["open"]:
            times = poisson_arrivals(each["rate"], warmup + duration, each["seed"])
            due = [1e6 * time for time in times]
            both = [each["waits"][name] for name in ("service", "generator")]
            service, generator = (
                [(1e6 * end, 1e6 * took) for end, took in pairs] for pairs in both
            )
            totals = [sum(took for end, took in pairs if end >= warmup) for pairs in both]
            yield Round(
                each["rate"],
                Seen(each["p50_ms"], each["p99_ms"], each["lag_p99_ms"], each["server_cpu_us"]),
                observe(*costs, due, begin=1e6 * warmup),
                observe(*costs, due, service, generator, begin=1e6 * warmup),
                (1e3 * totals[0] / duration, 1e3 * totals[1] / duration),
            )


def table(arrivals: Arrivals) -> Iterator[str]:
    """The medians of the rounds, and what the simulation says."""
    cost = arrivals.cost()
    said = f"{cost.batch(16) / 16:.0f} us as said and {arrivals.cpu(16):.0f} as measured"
    yield f"Held against a run in which a batch cost {cost.fixed:.0f} + {cost.each:.1f} n us: with"
    yield f"16 callers a request costs {said}; under Poisson"
    yield "arrivals (medians of the rounds):"
    yield ""
    yield (
        "| requests/s | CPU, us: said | measured | p50, ms: said | measured | waits for a core, "
        "ms/s: service | generator | p99, ms: said, undisturbed | said, with the waits | measured |"
    )
    yield "| --- " * 10 + "|"
    rounds = list(arrivals.rounds())
    for rate in sorted({each.rate for each in rounds}):
        same = [_numbers(each) for each in rounds if each.rate == rate]
        medians = [statistics.median(column) for column in zip(*same, strict=True)]
        cells = [f"{value:.{places}f}" for value, places in zip(medians, _PLACES, strict=True)]
        yield f"| {rate:,.0f} | {' | '.join(cells)} |"


_PLACES = (0, 0, 2, 2, 1, 1, 2, 2, 2)


def _numbers(each: Round) -> tuple[float, ...]:
    """As the columns of the table."""
    said, was = each.calm, each.measured
    costs = said.cpu, was.cpu, said.p50, was.p50
    return (*costs, *each.waits, said.p99, each.disturbed.p99, was.p99)
