"""The RPC that a handler works for, on whichever threads it runs."""

import threading
from typing import Any

import numpy as np
import pytest

from service.batching import Batcher, BatchingOptions, Entry
from service.completion import Completion, run
from service.errors import ServiceError
from service.spans import Within, follow, inherited
from service.statistics import GraphStatistics

INPUTS = {"x": np.zeros((3, 1), np.float32)}


class Recorded:
    """A Recorder that keeps what it is told."""

    def __init__(self) -> None:
        self.told: list[tuple[str, str, float]] = []
        self.items: list[int] = []

    def queued(self, graph: str, started: float, ended: float) -> None:
        self.told.append(("queue", graph, ended - started))

    def computed(self, graph: str, started: float, ended: float, items: int) -> None:
        self.told.append(("compute", graph, ended - started))
        self.items.append(items)


class Answer(Completion[Any]):
    """Settled by an entry."""

    def take(self, entry: Entry) -> None:
        self.settle(entry.outputs, entry.error)


@pytest.fixture
def batcher() -> Any:
    made = Batcher(
        lambda inputs: {"y": inputs["x"]},
        BatchingOptions(buckets=(1, 2)),
        GraphStatistics(),
        on_admitted=follow("graph"),
    )
    yield made
    made.stop()


async def submitted(batcher: Batcher, deadline: float | None = None) -> Any:
    answer = Answer()
    batcher.submit(INPUTS, 3, answer.take, deadline)
    return await answer


def test_a_traced_handler_is_told_how_long_its_items_waited_and_ran(batcher: Batcher) -> None:
    recorded = Recorded()

    async def rpc() -> Any:
        return await Within(recorded, submitted(batcher))

    outputs = run(rpc())
    np.testing.assert_array_equal(outputs["y"], INPUTS["x"])
    assert [told[:2] for told in recorded.told] == [("queue", "graph"), ("compute", "graph")]
    assert all(seconds >= 0 for *_, seconds in recorded.told)
    assert recorded.items == [3]


def test_items_that_never_ran_have_only_waited(batcher: Batcher) -> None:
    recorded = Recorded()

    async def rpc() -> Any:
        return await Within(recorded, submitted(batcher, deadline=0.0))

    with pytest.raises(ServiceError):
        run(rpc())
    assert [told[0] for told in recorded.told] == ["queue"]


def test_others_are_told_nothing(batcher: Batcher) -> None:
    recorded = Recorded()

    async def rpc() -> None:
        await Within(recorded, first())

    async def first() -> None:
        """Traced, but it submits nothing."""

    run(rpc())
    run(submitted(batcher))
    assert recorded.told == []


def test_work_beside_a_handler_on_another_thread_is_its_rpcs(batcher: Batcher) -> None:
    recorded = Recorded()
    gate: Completion[None] = Completion()

    async def beside() -> Any:
        await gate  # from here on another thread
        return await submitted(batcher)

    async def rpc() -> Any:
        return inherited(beside())

    begun = run(_within(recorded, rpc()))
    thread = threading.Thread(target=gate.settle)
    thread.start()
    run(begun)
    thread.join()
    assert recorded.items == [3]


async def _within(recorded: Recorded, handler: Any) -> Any:
    return await Within(recorded, handler)


def test_a_handler_that_nobody_traces_runs_as_it_is(batcher: Batcher) -> None:
    handler = submitted(batcher)
    assert inherited(handler) is handler
    run(handler)
