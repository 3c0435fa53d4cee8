"""Closed and open loops of load, and what they count. Pure: the client and the clock come in."""

import itertools
import math
import random
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol

_OK = "OK"
REFUSALS = frozenset({"REFUSED_STREAM", "RESOURCE_EXHAUSTED"})  # the server is full, not broken


class Client(Protocol):
    """Sends calls that are all alike. A call's token is the time that its latency counts from."""

    def submit(self, token: float) -> None: ...
    def poll(self, timeout: float) -> list[tuple[float, str]]:
        """Token and code of the calls that have ended, after at most timeout seconds."""


@dataclass(frozen=True)
class Window:
    """Seconds that are not measured, seconds that are, and seconds to wait for what is left.

    `requests` ends a closed loop early, when so many calls have ended.
    """

    warmup: float
    duration: float
    grace: float = 10.0
    requests: int | None = None


@dataclass
class Tally:
    """What the measured window saw: latencies in seconds of calls that ended well; codes of all."""

    latencies: list[float] = field(default_factory=list)
    codes: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0
    refusals: list[float] = field(default_factory=list)  # seconds until a call was refused
    lags: list[float] = field(default_factory=list)  # open loop: submitted later than scheduled

    def add(self, latency: float, code: str) -> None:
        """Count a call that has ended."""
        self.codes[code] += 1
        if code == _OK:
            self.latencies.append(latency)
        elif code in REFUSALS:
            self.refusals.append(latency)


def poisson_arrivals(rate: float, duration: float, seed: int) -> Iterator[float]:
    """Arrival times in [0, duration) seconds of a Poisson process of `rate` a second."""
    draws = random.Random(seed)  # noqa: S311 - a schedule needs no cryptography
    gaps = (draws.expovariate(rate) for _ in itertools.count())
    return itertools.takewhile(lambda time: time < duration, itertools.accumulate(gaps))


def percentile(values: Sequence[float], percent: float) -> float:
    """The smallest of ascending values that at least `percent` of 100 do not exceed (nearest
    rank); NaN if there are none."""
    if not values:
        return math.nan
    return values[max(math.ceil(len(values) * percent / 100) - 1, 0)]


def closed_loop(
    client: Client,
    clock: Callable[[], float],
    concurrency: int,
    window: Window,
    mark: Callable[[], None] = lambda: None,
) -> Tally:
    """`concurrency` callers, each of which calls again as soon as its call has ended.

    Counts the calls that end inside the window. `mark` is called at its two ends.
    """
    tally = Tally()
    for _ in range(concurrency):
        client.submit(clock())
    begin = clock() + window.warmup
    while (now := clock()) < begin:
        for _ in client.poll(begin - now):
            client.submit(clock())
    mark()
    begin = clock()
    end = begin + window.duration
    count, limit = 0, window.requests if window.requests is not None else math.inf
    while (now := clock()) < end and count < limit:
        ended = client.poll(end - now)
        now = clock()
        for token, code in ended:
            tally.add(now - token, code)
            client.submit(now)
        count += len(ended)
    tally.seconds = clock() - begin
    mark()
    left, end = concurrency, clock() + window.grace
    while left and (now := clock()) < end:
        left -= len(client.poll(end - now))
    return tally


def open_loop(
    client: Client,
    clock: Callable[[], float],
    arrivals: Iterator[float],
    window: Window,
    mark: Callable[[], None] = lambda: None,
) -> Tally:
    """Calls arrive when the schedule says, whether or not earlier ones have ended.

    A latency counts from the scheduled arrival, not from when this process got around to it, so a
    server that stalls is charged for everybody who came meanwhile: no coordinated omission.
    Counts the calls that are scheduled inside the window, whenever they end; those that have not
    ended `grace` seconds after the window count as UNFINISHED, infinitely late.
    """
    tally = Tally()
    start = clock()
    begin, end = start + window.warmup, start + window.warmup + window.duration
    upcoming = next(arrivals, math.inf)
    scheduled = outstanding = 0
    marked = False
    last = end
    while True:
        now = clock()
        while (due := start + upcoming) <= now:
            if due >= begin:
                if not marked:
                    mark()
                    marked = True
                tally.lags.append(now - due)
                scheduled += 1
            client.submit(due)
            outstanding += 1
            upcoming = next(arrivals, math.inf)
        if math.isinf(due) and (not outstanding or now >= end + window.grace):
            break
        ended = client.poll(min(due, end + window.grace) - now)
        now = clock()
        outstanding -= len(ended)
        for token, code in ended:
            if token >= begin:
                tally.add(now - token, code)
                last = max(last, now)
    mark()
    if unfinished := scheduled - tally.codes.total():
        tally.codes["UNFINISHED"] += unfinished
        tally.latencies += [math.inf] * unfinished
        last = max(last, now)
    tally.seconds = last - begin
    return tally
