"""Simulations of the queue of one replica, by what a batch costs; scripts/capacity.py uses them."""

import bisect
import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

BATCH = 64
Waits = Sequence[tuple[float, float]]
_REQUESTS = 200_000


@dataclass(frozen=True)
class BatchCost:
    """CPU microseconds of a batch of n one-item requests: fixed + each * n."""

    fixed: float
    each: float

    @classmethod
    def of(cls, one: float, full: float) -> "BatchCost":
        """Of what a request costs in batches of 1 and in batches of 64."""
        each = (full * BATCH - one) / (BATCH - 1)
        return cls(one - each, each)

    def batch(self, requests: int) -> float:
        """Microseconds of a batch."""
        return self.fixed + self.each * requests

    def most(self) -> float:
        """Requests a second that a replica can bear."""
        return BATCH / self.batch(BATCH) * 1e6


@dataclass(frozen=True)
class Queue:
    """What a simulated replica does.

    p50, p99: latencies in ms. cpu: microseconds a request. busy: share of the time. waiting: mean
    requests that wait for their batch.
    """

    p50: float
    p99: float
    cpu: float
    busy: float
    waiting: float


def poisson(rate: float, requests: int = _REQUESTS, seed: int = 0) -> list[float]:
    """When so many requests arrive at `rate` a second, in microseconds."""
    gaps = np.random.default_rng(seed).exponential(1e6 / rate, requests)
    times: list[float] = np.cumsum(gaps).tolist()
    return times


def simulate(cost: BatchCost, rate: float, requests: int = _REQUESTS, seed: int = 0) -> Queue:
    """One replica with delay 0 and Poisson arrivals: an idle one takes whatever waits, up to 64."""
    arrivals = np.array(poisson(rate, requests, seed))
    latencies = np.empty(requests)
    busy = free = waited = 0.0
    first = 0
    while first < requests:
        start = max(free, arrivals[first])
        waiting = int(np.searchsorted(arrivals, start, "right"))
        last = min(waiting, first + BATCH)
        took = cost.batch(last - first)
        busy += took
        free = start + took
        waited += float((start - arrivals[first:last]).sum())
        latencies[first:last] = free - arrivals[first:last]
        first = last
    p50, p99 = np.percentile(latencies, (50, 99)) / 1000
    return Queue(float(p50), float(p99), busy / requests, busy / free, waited / free)


@dataclass(frozen=True)
class Seen:
    """What a simulated load generator sees: latencies, and how late it is itself (99 %), in ms;
    cpu: the replica's microseconds a request."""

    p50: float
    p99: float
    lag: float
    cpu: float


def observe(
    cost: BatchCost,
    generator: BatchCost,
    due: Sequence[float],
    waits: Waits = (),
    generator_waits: Waits = (),
    begin: float = 0.0,
) -> Seen:
    """The same replica as a generator with a core of its own sees it (benchmarks.loops.open_loop).

    It is a queue too: it sends what is due at once and takes what has been answered at once, half
    of its cost for each, and cannot send while it takes. due: when each call is, ascending;
    latencies count from then, and only those of calls that are due after `begin`. waits: when a
    program had waited for a core, ascending, and for how long; whatever it does next starts so much
    later. All in microseconds.
    """
    replica_waits, sender_waits = _Debts(waits), _Debts(generator_waits)
    latencies: list[float] = []
    lags: list[float] = []
    busy = 0.0
    sent: deque[tuple[float, float]] = deque()  # when it was sent, and due
    done: deque[tuple[float, list[float]]] = deque()  # when a batch ends, and its calls were due
    now = free = 0.0
    first = ended = 0
    while ended < len(due):
        now += sender_waits.until(now)
        last = bisect.bisect_right(due, now, first)
        if last > first:
            lags += [now - moment for moment in due[first:last] if moment >= begin]
            now += generator.batch(last - first) / 2
            sent += [(now, moment) for moment in due[first:last]]
            first = last
        while sent and (start := max(free, sent[0][0])) <= now:
            start += replica_waits.until(start)
            batch = [sent.popleft()[1]]
            while sent and sent[0][0] <= start and len(batch) < BATCH:
                batch.append(sent.popleft()[1])
            busy += cost.batch(len(batch))
            free = start + cost.batch(len(batch))
            done.append((free, batch))
        next_due = due[first] if first < len(due) else math.inf
        now = max(now, min(next_due, done[0][0] if done else math.inf))
        answered: list[float] = []
        while done and done[0][0] <= now:
            answered += done.popleft()[1]
        if answered:
            now += generator.batch(len(answered)) / 2
            latencies += [now - moment for moment in answered if moment >= begin]
            ended += len(answered)
    p50, p99 = np.percentile(latencies, (50, 99)) / 1000
    lag = float(np.percentile(lags, 99)) / 1000
    return Seen(float(p50), float(p99), lag, busy / len(due))


class _Debts:
    """Waits that nothing has started later by yet."""

    def __init__(self, waits: Waits) -> None:
        self._waits = deque(waits)

    def until(self, now: float) -> float:
        """Those of until now together, each of which counts once."""
        owed = 0.0
        while self._waits and self._waits[0][0] <= now:
            owed += self._waits.popleft()[1]
        return owed
