"""Fixtures of the service's tests."""

from collections.abc import Iterator

import pytest

from service.batching import BatchingOptions
from tests.service.fakes import Bench, MakeBench


@pytest.fixture
def make_bench() -> Iterator[MakeBench]:
    """Makes batchers with fakes around them; largest batch 4, no delay, a queue of 12 items."""
    benches: list[Bench] = []

    def make(
        buckets: tuple[int, ...] = (1, 2, 4),
        delay: float = 0.0,
        capacity: int = 12,
        instances: int = 1,
    ) -> Bench:
        benches.append(Bench(BatchingOptions(buckets, delay, capacity), instances))
        return benches[-1]

    yield make
    for bench in benches:
        bench.close()


@pytest.fixture
def bench(make_bench: MakeBench) -> Bench:
    """A batcher with one instance: largest batch 4, no delay, a queue of 12 items."""
    return make_bench()
