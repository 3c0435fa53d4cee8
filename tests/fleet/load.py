"""Open-loop load on a fleet: `python -m tests.fleet.load TARGET RATE`, until standard input ends.

Calls are made at random moments, RATE a second on average, whatever becomes of those before; two
streams without an end are read beside them. Prints a line once a call has been answered, and at the
end what became of all (`Report`).
"""

import asyncio
import itertools
import json
import random
import sys
import time
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from vae_client import AsyncVaeClient, VaeError

_MOST_SECONDS = 120.0
_SEEDS = 8
_READING = 0.02  # seconds between two chunks of the stream


@dataclass(frozen=True)
class Outcome:
    """started: of time.monotonic. result: "OK", or what went wrong. model: who answered."""

    started: float
    seconds: float
    result: str
    model: str = ""


@dataclass
class Report:
    """chunks: of one sample each, which a stream brought. encoded: batches, which another did.
    stream: "OK", or what went wrong with them."""

    calls: list[Outcome] = field(default_factory=list)
    chunks: int = 0
    encoded: int = 0
    stream: str = "OK"


def together(reports: Sequence[Report]) -> Report:
    """The reports of several clients as one."""
    return Report(
        calls=[call for report in reports for call in report.calls],
        chunks=sum(report.chunks for report in reports),
        encoded=sum(report.encoded for report in reports),
        stream=next((report.stream for report in reports if report.stream != "OK"), "OK"),
    )


class Caller:
    """Makes one call after the other of a sequence, and checks the answers."""

    def __init__(self, client: AsyncVaeClient, report: Report) -> None:
        self._client = client
        self._report = report
        self._drawn: dict[tuple[str, int], np.ndarray] = {}

    async def call(self, index: int) -> None:
        """Draws, encodes or decodes, in turn."""
        kinds: list[Callable[[int], Coroutine[Any, Any, str]]]
        kinds = [self._sample, self._encode, self._decode]
        started = time.monotonic()
        model = ""
        try:
            model = await kinds[index % 3](index)
            result = "OK"
        except VaeError as error:
            result = str(error)
        except AssertionError:
            result = "a wrong answer"
        self._report.calls.append(Outcome(started, time.monotonic() - started, result, model))

    async def _sample(self, index: int) -> str:
        seed = index % _SEEDS
        drawn = await self._client.sample("digits", 3, seed=seed)
        first = self._drawn.setdefault((drawn.model, seed), drawn.observations)
        assert np.allclose(drawn.observations, first, atol=1e-5)  # on every replica
        return drawn.model

    async def _encode(self, index: int) -> str:
        posterior = await self._client.encode("digits", np.zeros((2, 1, 8, 8), np.float32))
        assert posterior.mean.shape == (2, 8)
        return posterior.model

    async def _decode(self, index: int) -> str:
        decoded = await self._client.decode("digits", np.zeros((1, 8), np.float32))
        assert decoded.observations.shape == (1, 1, 8, 8)
        return decoded.model

    async def encode_stream(self) -> None:
        """Encodes numbered batches without an end, one of which in 16 alone as well."""
        batches = (np.full((1, 1, 8, 8), _level(n), np.float32) for n in itertools.count())
        try:
            async for posterior in self._client.encode_stream("digits", batches):
                index = self._report.encoded
                if index % 16 == 0:
                    batch = np.full((1, 1, 8, 8), _level(index), np.float32)
                    alone = await self._client.encode("digits", batch)
                    same = np.allclose(alone.mean, posterior.mean, atol=1e-5)
                    assert same or alone.model != posterior.model
                self._report.encoded += 1
                await asyncio.sleep(_READING)
        except VaeError as error:
            self._report.stream = str(error)
        except AssertionError:
            self._report.stream = "a wrong posterior"

    async def sample_stream(self) -> None:
        """Reads a stream without an end, and compares some chunks with what one call draws."""
        try:
            async for chunk in self._client.sample_stream("digits", 10**9, chunk_items=1, seed=5):
                index = self._report.chunks
                if index % 16 == 0:
                    drawn = await self._client.sample("digits", 1, seed=5, start_index=index)
                    same = np.allclose(drawn.observations, chunk.observations, atol=1e-5)
                    assert same or drawn.model != chunk.model
                self._report.chunks += 1
                await asyncio.sleep(_READING)
        except VaeError as error:
            self._report.stream = str(error)
        except AssertionError:
            self._report.stream = "a wrong chunk"


def _level(number: int) -> float:
    return number % 251 / 251


async def load(target: str, rate: float) -> Report:
    """Loads the target until standard input ends, or for two minutes."""
    loop = asyncio.get_running_loop()
    ended = loop.run_in_executor(None, sys.stdin.read)
    report = Report()
    async with AsyncVaeClient(target) as client:
        caller = Caller(client, report)
        await client.models()
        sys.stdout.write("loading\n")
        sys.stdout.flush()
        streams = [
            asyncio.create_task(caller.sample_stream()),
            asyncio.create_task(caller.encode_stream()),
        ]
        running: set[asyncio.Task[None]] = set()
        first = due = time.monotonic()
        index = 0
        while not ended.done() and due < first + _MOST_SECONDS:
            due += random.expovariate(rate)
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            task = asyncio.create_task(caller.call(index))
            running.add(task)
            task.add_done_callback(running.discard)
            index += 1
        await asyncio.gather(*running)
        for stream in streams:
            stream.cancel()
        await asyncio.gather(*streams, return_exceptions=True)
    return report


def main() -> None:
    """See the module."""
    target, rate = sys.argv[1:]
    report = asyncio.run(load(target, float(rate)))
    json.dump(asdict(report), sys.stdout)


if __name__ == "__main__":
    main()
