"""The questions: what is asked of whom. Every case measures one subject once."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks.http2 import Method
from benchmarks.load import Load, LoadReport, run_load
from benchmarks.loops import REFUSALS
from benchmarks.messages import decode, decode_uint8, infer
from benchmarks.models import CONV, MLP, MODELS, BenchModel, decoder_file
from benchmarks.onnxruntime_loop import BATCHES, run_loop
from benchmarks.peers import Peers
from benchmarks.perf_analyzer import Windows, run_perf_analyzer
from benchmarks.records import ONNXRUNTIME, Record, Subject
from benchmarks.servers import Server

CALLERS = (1, 16, 64)
BATCH = 64  # items of a batched request
# Enough callers that a batch of four requests waits while another runs, and no more: each holds an
# answer of `items` observations.
BATCHED_CALLERS = 8
SATURATING_CALLERS = 2 * BATCH


@dataclass(frozen=True)
class Plan:
    """How long everything takes. Times in seconds; `rounds` visit every case in turn."""

    rounds: int
    warmup: float
    duration: float
    loop: float
    perf_rounds: int
    windows: Windows
    memory_requests: int
    open_shares: tuple[float, ...]  # of what the slowest server reaches with the most callers


FULL = Plan(5, 0.5, 2.0, 0.5, 2, Windows(1500, 25, 10), 200_000, (0.4,))
QUICK = Plan(2, 0.2, 0.6, 0.2, 1, Windows(500, 50, 8), 20_000, (0.4,))


@dataclass(frozen=True)
class Bench:
    """What the cases need. `service_inference`: whether the service speaks ModelInfer."""

    plan: Plan
    peers: Peers
    repository: Path
    threads: int
    tritons: tuple[Server, ...]
    service: Server
    service_inference: bool

    def apis(self) -> Iterator[tuple[Server, str, Callable[[BenchModel, int], Method]]]:
        """Every server with every API through which it decodes."""
        for triton in self.tritons:
            yield triton, "ModelInfer", infer
        yield self.service, "Decode", decode
        if self.service_inference:
            yield self.service, "ModelInfer", infer


@dataclass(frozen=True)
class Case:
    """A subject, and what measures it for a round. `measure` raises BenchmarkError."""

    subject: Subject
    measure: Callable[[int], Record]


def one_item(bench: Bench) -> list[Case]:
    """Goal 1: one-item requests to the MLP, from our own load generator."""
    return [
        load_case(
            "1 one item", bench.plan, MLP, 1, f"{callers} callers", Load(concurrency=callers), api
        )
        for callers in CALLERS
        for api in bench.apis()
    ]


def perf_analyzer(bench: Bench) -> list[Case]:
    """Goal 1 again, from perf_analyzer."""
    servers = [*bench.tritons, *([bench.service] if bench.service_inference else [])]
    return [_perf_case(bench, server, callers) for callers in CALLERS for server in servers]


def batched(bench: Bench) -> list[Case]:
    """Goal 2: requests of 64 items, beside onnxruntime alone on the same number of threads."""
    cases: list[Case] = []
    load = Load(concurrency=BATCHED_CALLERS)
    name = f"{BATCH}-item requests"
    for model in MODELS:
        cases.append(_loop_case("2 batched", bench, model, name, (BATCH,)))
        cases += [
            load_case("2 batched", bench.plan, model, BATCH, name, load, api)
            for api in bench.apis()
        ]
        levels = f"{name}, uint8"
        ours = (bench.service, "Decode", decode_uint8)
        cases.append(_loop_case("2 batched", bench, model, levels, (BATCH,), uint8=True))
        cases.append(load_case("2 batched", bench.plan, model, BATCH, levels, load, ours))
    return cases


def saturation(bench: Bench) -> list[Case]:
    """Goal 3: one-item requests to the conv model, beside onnxruntime's best batch size."""
    name = f"{SATURATING_CALLERS} callers"
    load = Load(concurrency=SATURATING_CALLERS)
    return [_loop_case("3 saturation", bench, CONV, name, BATCHES)] + [
        load_case("3 saturation", bench.plan, CONV, 1, name, load, api) for api in bench.apis()
    ]


def open_arrivals(bench: Bench, capacity: float) -> list[Case]:
    """Latency at arrival rates that both servers can bear; `capacity` in requests a second."""
    cases: list[Case] = []
    for share in bench.plan.open_shares:
        rate = round(capacity * share, -1) or 1.0
        name = f"Poisson {rate:,.0f}/s"
        load = Load(rate=rate)
        cases += [
            load_case("1 open loop", bench.plan, MLP, 1, name, load, api) for api in bench.apis()
        ]
    return cases


def record_of(subject: Subject, number: int, items: int, report: LoadReport) -> Record:
    """The metrics of a load; latencies only where their percentile has ended. A refusal by a full
    server is a figure, no error."""
    metrics: dict[str, float | None] = {
        "requests/s": report.requests_per_second if items == 1 else None,
        "items/s": report.requests_per_second * items,
        "p50 ms": report.p50_ms,
        "p99 ms": report.p99_ms,
        "server CPU us/request": report.server_cpu_us,
        "client CPU us/request": report.client_cpu_us,
        "generator lag p99 ms": report.lag_p99_ms,
    }
    refused = sum(report.errors.get(code, 0) for code in REFUSALS)
    if refused or report.lag_p99_ms is not None:  # an open loop may ask for more than there is
        metrics["refused %"] = 100 * refused / max(report.requests, 1)
        metrics["refused p99 ms"] = report.refused_p99_ms
    errors = {code: count for code, count in report.errors.items() if code not in REFUSALS}
    known = {name: value for name, value in metrics.items() if value is not None}
    return Record(subject, number, known, errors)


def load_case(
    goal: str,
    plan: Plan,
    model: BenchModel,
    items: int,
    name: str,
    load: Load,
    api: tuple[Server, str, Callable[[BenchModel, int], Method]],
) -> Case:
    """Requests of so many items to a server through an API, from our own load generator."""
    server, api_name, make = api
    subject = Subject(goal, model.name, name, "load", server.name, api_name)
    method = make(model, items)

    def measure(number: int) -> Record:
        # Every round draws other arrivals, the same for every server.
        complete = replace(
            load, warmup=plan.warmup, duration=plan.duration, watch=server.pid, seed=number
        )
        return record_of(subject, number, items, run_load(server.target, method, complete))

    return Case(subject, measure)


def _perf_case(bench: Bench, server: Server, callers: int) -> Case:
    subject = Subject(
        "1 one item", MLP.name, f"{callers} callers", "perf_analyzer", server.name, "ModelInfer"
    )

    def measure(number: int) -> Record:
        report = run_perf_analyzer(bench.peers, server, MLP.decoder, callers, bench.plan.windows)
        metrics = {
            "requests/s": report.requests_per_second,
            "p50 ms": report.p50_ms,
            "p99 ms": report.p99_ms,
        }
        if report.server_cpu_us is not None:
            metrics["server CPU us/request"] = report.server_cpu_us
        return Record(subject, number, metrics, {})

    return Case(subject, measure)


def _loop_case(
    goal: str,
    bench: Bench,
    model: BenchModel,
    name: str,
    batches: tuple[int, ...],
    uint8: bool = False,
) -> Case:
    subject = Subject(goal, model.name, name, "loop", ONNXRUNTIME)
    graph = decoder_file(bench.repository, model)

    def measure(number: int) -> Record:
        rates = run_loop(graph, bench.threads, bench.plan.loop, batches, uint8)
        by_batch = {f"items/s at {batch}": rate for batch, rate in rates.items()}
        return Record(subject, number, {"items/s": max(rates.values()), **by_batch}, {})

    return Case(subject, measure)
