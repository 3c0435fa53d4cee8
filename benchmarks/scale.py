"""Goal 4: what a process more adds, on a machine that has too few cores to show it.

Measured: the service's CPU for a request, c, with one process and with two that get twice the
Poisson arrivals, so that each has as many as the one had. Processes share nothing but the port, so
at their limit a core more gives c(1) / c(2) of what the first gave, as long as every process has
work. Here the processes and the generator share the cores, and what waits for a core fills batches,
which flatters two: nothing above 1 counts. Also measured: both under the same arrivals. There each
of two has half of them and smaller batches: what a process too many costs, not what a core adds.

Simulated: whether it has. The kernel gives each connection to a process at random. With
- connections of equal, fixed load, the fullest process is at its limit first: X(N) = C / max n_i
  times a process's rate, for C connections of which process i has n_i;
- callers that wait for their answers, and fill any process, only processes without a connection are
  idle: X(N) = the number with one.
"""

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from benchmarks.load import Load, run_load
from benchmarks.messages import decode
from benchmarks.models import MLP, build_repository
from benchmarks.records import SERVICE, Record, Subject
from benchmarks.scenarios import record_of
from benchmarks.servers import running

PROCESSES = (1, 2, 4, 8, 16, 32)
CONNECTIONS = (8, 32, 128, 512, 2048, 8192)
GOAL = 0.8
_SAME, _EACH = "4 scale, same load", "4 scale, same load of each process"
_COST = "server CPU us/request"
_DRAWS = 2000


@dataclass(frozen=True)
class ScalePlan:
    """How it is measured. Times in seconds; `rates` in requests a second for one process."""

    rounds: int = 4
    warmup: float = 0.5
    duration: float = 3.0
    connections: int = 16
    rates: tuple[float, ...] = (2000.0, 4000.0)


@dataclass(frozen=True)
class Law:
    """Simulated requests a second for each added core, in those of the first, when the first is 1.

    `fixed` for connections of equal load: median and 5th percentile of draws. `waiting` for callers
    that wait for their answers: the mean.
    """

    processes: int
    connections: int
    fixed: float
    fixed_low: float
    waiting: float


def measure(plan: ScalePlan) -> list[Record]:
    """The records of all rounds; every round visits every case in turn."""
    records = []
    with TemporaryDirectory(prefix="models-") as name, ExitStack() as stack:
        repository = Path(name)
        build_repository(repository)
        one, two = (
            stack.enter_context(running(repository, ["--threads", "1"], processes=count))
            for count in (1, 2)
        )
        cases = [
            (goal, server, rate, times * rate)
            for rate in plan.rates
            for goal, server, times in (
                (_SAME, one, 1),
                (_SAME, two, 1),
                (_EACH, one, 1),
                (_EACH, two, 2),
            )
        ]
        for number in range(plan.rounds):
            for goal, server, rate, offered in cases:
                load = Load(
                    rate=offered,
                    connections=plan.connections,
                    warmup=plan.warmup,
                    duration=plan.duration,
                    seed=number,
                    watch=server.pid,
                )
                subject = Subject(
                    goal, MLP.name, f"Poisson {rate:,.0f}/s", "load", server.name, "Decode"
                )
                report = run_load(server.target, decode(MLP, 1), load)
                records.append(record_of(subject, number, 1, report))
    return records


def cost_ratios(records: Sequence[Record]) -> dict[str, float]:
    """c(1) / c(2) by goal and load: the median over rounds of the ratios within a round."""
    costs = {
        (one.subject.goal, one.subject.load, one.subject.server, one.round): one.metrics[_COST]
        for one in records
    }
    ratios: dict[str, list[float]] = {}
    for (goal, load, server, number), cost in costs.items():
        if server == SERVICE:
            more = costs[goal, load, f"{SERVICE}, 2 processes", number]
            ratios.setdefault(f"{goal}, {load}", []).append(cost / more)
    return {name: median(values) for name, values in ratios.items()}


def simulate(
    cost_ratio: float,
    processes: Sequence[int] = PROCESSES,
    connections: Sequence[int] = CONNECTIONS,
    seed: int = 0,
) -> list[Law]:
    """The law for every number of processes beyond one, each with every number of connections.

    cost_ratio: c(1) / c(2) at equal load of each process.
    """
    random = np.random.default_rng(seed)
    laws = []
    for count in processes:
        if count == 1:
            continue
        for clients in connections:
            shares = random.multinomial(clients, np.full(count, 1 / count), size=_DRAWS)
            fixed = _per_added(cost_ratio * clients / shares.max(axis=1), count)
            waiting = _per_added(cost_ratio * (shares > 0).sum(axis=1), count)
            laws.append(
                Law(
                    count,
                    clients,
                    fixed=float(np.median(fixed)),
                    fixed_low=float(np.percentile(fixed, 5)),
                    waiting=float(waiting.mean()),
                )
            )
    return laws


def _per_added(rates: np.ndarray[Any, np.dtype[np.float64]], count: int) -> Any:
    """Requests a second of `count` processes, in those of one, as a share for each added core."""
    return (rates - 1) / (count - 1)


def connections_needed(cost_ratio: float, processes: int, seed: int = 0) -> int | None:
    """Fewest connections of equal load, of powers of two, with which half of all draws reach the
    goal; None where 2**17 do not."""
    for exponent in range(18):
        (law,) = simulate(cost_ratio, [processes], [2**exponent], seed)
        if law.fixed >= GOAL:
            return 1 << exponent
    return None


def report(plan: ScalePlan, records: Sequence[Record]) -> tuple[str, dict[str, Any]]:
    """What it says, as text and for the file of results."""
    ratios = cost_ratios(records)
    each = [ratio for name, ratio in ratios.items() if name.startswith(_EACH)]
    ratio = min(*each, 1.0)  # above 1 is noise: processes do not help one another
    laws = simulate(ratio)
    needed = {str(count): connections_needed(ratio, count) for count in PROCESSES if count > 1}
    lines = [f"{name}: c(1) / c(2) = {value:.2f}" for name, value in ratios.items()]
    lines.append("requests/s for each added core, connections of fixed load (waiting callers):")
    for count in PROCESSES[1:]:
        cells = ", ".join(
            f"{law.connections} connections {law.fixed:.2f} ({law.waiting:.2f})"
            for law in laws
            if law.processes == count
        )
        lines.append(f"{count} processes: {cells}; {GOAL} from {needed[str(count)]}")
    about = {
        "plan": asdict(plan),
        "cost_ratios": ratios,
        "cost_ratio": ratio,
        "simulation": [asdict(law) for law in laws],
        "connections_needed": needed,
    }
    return "\n".join(lines), about


QUICK = replace(ScalePlan(), rounds=2, duration=1.0)
