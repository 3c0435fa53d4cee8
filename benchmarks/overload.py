"""Goal 3: more requests than the service can serve, and whether its batcher's latency bound holds.

The bound is that of `service.batching`: a one-item request has its answer within
D + R + ceil(C / B) x R + ceil(1 / B) x R + R seconds, with D the queue delay, R the longest run of
a batch, C the queue's items and B those of a batch. Measured at the socket, from the moment at
which a request was due, so with all that the formula does not know.
"""

import math
from dataclasses import replace
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from benchmarks.load import Load, run_load
from benchmarks.messages import decode
from benchmarks.models import CONV, largest_batch
from benchmarks.records import SERVICE, Record, Subject
from benchmarks.scenarios import SATURATING_CALLERS, Plan, record_of
from scripts.launch import running_service

QUEUE_ITEMS = 256
REFUSAL_MS = 10.0  # the longest that a refusal may take
_EXCESS = 1.5
_LEAST_WARMUP, _LEAST_DURATION = 0.5, 1.5  # seconds; in less the queue does not fill
_GOAL = "3 overload"


def latency_bound(
    longest_run: float, batch: int, delay: float = 0.0, queue_items: int = QUEUE_ITEMS
) -> float:
    """Seconds until a one-item request that was admitted has its answer, at most."""
    return delay + longest_run * (3 + math.ceil(queue_items / batch))


def longest_run(metrics: str) -> float:
    """Seconds that no batch of the conv decoder took more than, to the next bucket's bound."""
    bounds = sorted(
        (sample.value, float(sample.labels["le"]))
        for family in text_string_to_metric_families(metrics)
        for sample in family.samples
        if sample.name == "vae_batch_duration_seconds_bucket"
        and (sample.labels["model"], sample.labels["graph"]) == (CONV.name, "decoder")
    )
    return min(bound for count, bound in bounds if count == bounds[-1][0])


def overload(plan: Plan, repository: Path, threads: int) -> list[Record]:
    """In every round half as many requests more as it can serve; the service's figures, and beside
    them the bound and the longest that a refusal may take."""
    options = ("--threads", str(threads), "--max-queue-items", str(QUEUE_ITEMS))
    records = []
    batch = largest_batch(repository, CONV)
    with running_service(repository, *options) as service:
        times = Load(
            concurrency=SATURATING_CALLERS,
            warmup=max(plan.warmup, _LEAST_WARMUP),
            duration=max(plan.duration, _LEAST_DURATION),
        )
        method = decode(CONV, 1)
        capacity = run_load(service.target, method, times).requests_per_second
        load = replace(times, concurrency=None, rate=_EXCESS * capacity)
        name = f"Poisson, {_EXCESS} times capacity"
        subject = Subject(_GOAL, CONV.name, name, "load", SERVICE, "Decode")
        for number in range(plan.rounds):
            complete = replace(load, seed=number, watch=service.process.pid)
            report = run_load(service.target, method, complete)
            records.append(record_of(subject, number, 1, report))
            bound = 1000 * latency_bound(longest_run(service.scrape()), batch)
            limits = {"p99 ms": bound, "refused p99 ms": REFUSAL_MS}
            records.append(Record(replace(subject, server="bound"), number, limits, {}))
    return records
