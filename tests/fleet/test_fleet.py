"""Three replicas under load from vae_client while they come, go, die and fall silent."""

import asyncio
import itertools
import json
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.fleet.load import Report
from tests.fleet.replicas import Fleet, loading, wait_until
from vae_client import AsyncVaeClient

pytestmark = [pytest.mark.load, pytest.mark.timeout(300)]
Record = Callable[[str, Report], None]
NEW = ("127.0.0.5", "127.0.0.6", "127.0.0.7")


@pytest.fixture(autouse=True)
def _sound(fleet: Fleet) -> Iterator[None]:
    yield
    assert [line for line in fleet.log if '"level": "error"' in line] == []


def check_that_nothing_was_lost(report: Report) -> None:
    results = Counter(call.result for call in report.calls)

    assert list(results) == ["OK"], results
    assert report.stream == "OK"
    assert report.chunks
    assert report.encoded


def has_answered(fleet: Fleet, address: str, calls: float = 0.0) -> Callable[[], bool]:
    """Whether a replica has answered more than so many calls."""
    return lambda: fleet.answered()[address]["OK"] > calls


def test_calls_are_balanced(fleet: Fleet, record: Record) -> None:
    before = fleet.answered()
    with loading(fleet.target) as load:
        load.last(5.0)
    after = fleet.answered()

    record("all well", load.report)
    check_that_nothing_was_lost(load.report)
    shares = [after[address]["OK"] - before[address]["OK"] for address in before]
    assert max(shares) - min(shares) <= 0.1 * sum(shares) / len(shares)


def test_no_call_fails_while_all_are_restarted(fleet: Fleet, record: Record) -> None:
    with loading(fleet.target) as load:
        for address in list(fleet.replicas):
            assert fleet.stop(address) == 0
            fleet.start(address)
            wait_until(has_answered(fleet, address))

    record("rolling restart", load.report)
    check_that_nothing_was_lost(load.report)


def test_a_new_replica_gets_calls_within_the_age_of_connections(
    fleet: Fleet, record: Record
) -> None:
    with loading(fleet.target) as load:
        fleet.start(NEW[0])
        load.last(1.0)
        assert not has_answered(fleet, NEW[0])()  # nobody knows it
        fleet.names.addresses.append(NEW[0])
        wait_until(has_answered(fleet, NEW[0]))

    record("one replica more", load.report)
    check_that_nothing_was_lost(load.report)
    fleet.names.addresses.remove(NEW[0])
    fleet.stop(NEW[0])


def test_no_call_fails_while_a_new_version_replaces_the_old_on_new_addresses(
    fleet: Fleet, record: Record, new_version: Path
) -> None:
    with loading(fleet.target) as load:
        for old, new in zip(list(fleet.replicas), NEW, strict=True):
            fleet.start(new, repository=new_version)
            fleet.names.addresses.append(new)
            fleet.names.addresses.remove(old)
            assert fleet.stop(old) == 0
            wait_until(has_answered(fleet, new))

    record("another version", load.report)
    check_that_nothing_was_lost(load.report)
    assert {call.model for call in load.report.calls} == {
        "models/digits/versions/1",
        "models/digits/versions/2",
    }
    assert load.report.calls[-1].model == "models/digits/versions/2"


def test_no_call_is_lost_when_a_replica_is_killed(fleet: Fleet, record: Record) -> None:
    *others, victim = list(fleet.replicas)
    with loading(fleet.target) as load:
        load.last(2.0)
        fleet.kill(victim)
        load.last(3.0)
        codes = fleet.answered()
        fleet.start(victim)
        wait_until(has_answered(fleet, victim))

    record("one killed", load.report)
    check_that_nothing_was_lost(load.report)
    for address in others:  # nobody else's calls failed, so none of them was repeated
        assert set(codes[address]) == {"OK"}


def test_those_calls_are_repeated_that_the_killed_replica_had(fleet: Fleet) -> None:
    *others, victim = list(fleet.replicas)
    calls = 30

    async def kill() -> int:
        """How many calls waited for the replica."""
        async with AsyncVaeClient(fleet.target) as client:
            await asyncio.gather(*(client.sample("digits", 1) for _ in range(calls)))
            before = fleet.answered()
            fleet.freeze(victim)
            tasks = [asyncio.create_task(client.sample("digits", 1)) for _ in range(calls)]
            first = itertools.islice(asyncio.as_completed(tasks), calls - calls // 3)
            for answered in first:
                await answered
            waiting = sum(not task.done() for task in tasks)
            fleet.kill(victim)
            await asyncio.gather(*tasks)
            after = fleet.answered()
            answers = [after[other]["OK"] - before[other]["OK"] for other in others]
            assert sum(answers) == calls  # each of them once
            return waiting

    waited = asyncio.run(kill())
    fleet.start(victim)

    assert waited == calls // 3


def test_no_call_is_lost_when_a_replica_falls_silent(fleet: Fleet, record: Record) -> None:
    *_, victim = list(fleet.replicas)
    with loading(fleet.target) as load:
        load.last(1.0)
        fleet.freeze(victim)
        load.last(4.0)

    record("one silent", load.report)
    check_that_nothing_was_lost(load.report)
    fleet.thaw(victim)
    calls = fleet.answered()[victim]["OK"]
    with loading(fleet.target):
        wait_until(has_answered(fleet, victim, calls))


@pytest.fixture
def new_version(digits_repository: Path, tmp_path: Path) -> Path:
    """A repository with the same as version 2."""
    repository = tmp_path / "models"
    shutil.copytree(digits_repository / "digits" / "1", repository / "digits" / "2")
    file = repository / "digits" / "2" / "manifest.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"version": 2}))
    return repository
