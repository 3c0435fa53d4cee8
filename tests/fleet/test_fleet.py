"""Three replicas under load from vae_client while they come, go, die, fall silent, are cut off."""

import asyncio
import contextlib
import itertools
from collections import Counter
from collections.abc import Callable, Iterator

import pytest

from tests.fleet.load import Report, together
from tests.fleet.network import Host
from tests.fleet.replicas import Fleet, loading, wait_until
from vae_client import AsyncVaeClient, Samples

pytestmark = [pytest.mark.load, pytest.mark.timeout(300)]
Codes = dict[str, dict[str, float]]
Record = Callable[[str, Report | str], None]
KEEPALIVE = 15.0  # seconds until a client knows that nobody answers (vae_client.channel)
NEW = ("127.0.0.5", "127.0.0.6", "127.0.0.7")
BAND = 0.1  # a replica's share of the calls is an even one, a tenth of it more or less,
WINDOW = 120  # ... of so many calls in a row,
WINDOWS = 12  # ... and comes to be that within so many times as many
CLIENTS = 4  # of one fleet, each a process


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


def shares(after: Codes, before: Codes) -> list[float]:
    """How many calls each replica has answered between."""
    return [after[address]["OK"] - before[address]["OK"] for address in before]


def check_that_all_get_an_even_share(fleet: Fleet) -> None:
    """Lets a running load last until each replica has had an even share of WINDOW calls."""
    seen = []
    for _ in range(WINDOWS):
        before = fleet.answered()
        wait_until(lambda: sum(shares(fleet.answered(), before)) >= WINDOW)  # noqa: B023
        answers = shares(fleet.answered(), before)
        even = sum(answers) / len(answers)
        if all(abs(answer - even) <= BAND * even for answer in answers):
            return
        seen.append(answers)
    raise AssertionError(f"calls to {', '.join(before)}: {seen}")


def test_calls_are_balanced(fleet: Fleet, record: Record) -> None:
    with loading(fleet.target) as load:
        check_that_all_get_an_even_share(fleet)

    record("all well", load.report)
    check_that_nothing_was_lost(load.report)


def test_no_call_fails_while_all_are_restarted_and_each_gets_its_share_again(
    fleet: Fleet, record: Record
) -> None:
    with loading(fleet.target) as load:
        for address in list(fleet.replicas):
            assert fleet.stop(address) == 0
            fleet.start(address)
            wait_until(has_answered(fleet, address))
            check_that_all_get_an_even_share(fleet)

    record("rolling restart", load.report)
    check_that_nothing_was_lost(load.report)


def test_every_client_moves_to_a_new_replica_as_its_connections_age(
    fleet: Fleet, record: Record
) -> None:
    with contextlib.ExitStack() as stack:
        rate = 30.0 / CLIENTS
        loads = [stack.enter_context(loading(fleet.target, rate)) for _ in range(CLIENTS)]
        fleet.start(NEW[0])
        loads[0].last(1.0)
        assert not has_answered(fleet, NEW[0])()  # nobody knows it
        fleet.names.addresses.append(NEW[0])
        wait_until(lambda: fleet.connections(NEW[0]) == CLIENTS)
        check_that_all_get_an_even_share(fleet)

    report = together([load.report for load in loads])
    record("one replica more", report)
    for load in loads:
        check_that_nothing_was_lost(load.report)
    fleet.names.addresses.remove(NEW[0])
    fleet.stop(NEW[0])


def test_no_call_fails_while_others_on_new_addresses_take_over(
    fleet: Fleet, record: Record
) -> None:
    with loading(fleet.target) as load:
        for old, new in zip(list(fleet.replicas), NEW, strict=True):
            fleet.start(new)
            fleet.names.addresses.append(new)
            fleet.names.addresses.remove(old)
            assert fleet.stop(old) == 0
            wait_until(has_answered(fleet, new))

    record("new addresses", load.report)
    check_that_nothing_was_lost(load.report)


def test_no_call_fails_while_all_change_to_another_version(fleet: Fleet, record: Record) -> None:
    with loading(fleet.target) as load:
        load.last(1.0)
        fleet.publish(2)
        wait_until(lambda: fleet.serve(2))
        load.last(1.0)

    record("another version", load.report)
    check_that_nothing_was_lost(load.report)
    models = [call.model for call in load.report.calls]
    assert set(models) == {"models/digits/versions/1", "models/digits/versions/2"}
    assert models[-1] == "models/digits/versions/2"


def test_no_call_is_lost_when_a_replica_is_killed(fleet: Fleet, record: Record) -> None:
    *others, victim = list(fleet.replicas)
    with loading(fleet.target) as load:
        load.last(2.0)
        fleet.kill(victim)
        load.last(3.0)
        codes = fleet.answered()
        fleet.start(victim)
        check_that_all_get_an_even_share(fleet)

    record("one killed", load.report)
    check_that_nothing_was_lost(load.report)
    for address in others:  # nobody else's calls failed, so none of them was repeated
        assert set(codes[address]) == {"OK"}


def test_those_calls_are_repeated_that_the_killed_replica_had(fleet: Fleet) -> None:
    *_, victim = list(fleet.replicas)
    calls = 30

    async def kill() -> list[float]:
        """How many calls the others answered."""
        async with AsyncVaeClient(fleet.target) as client:

            def start() -> list[asyncio.Task[Samples]]:
                return [asyncio.create_task(client.sample("digits", 1)) for _ in range(calls)]

            answers = [0.0]
            while max(answers) != calls / 3:  # until it is connected to all
                before = fleet.answered()
                await asyncio.gather(*start())
                wait_until(lambda: sum(shares(fleet.answered(), before)) == calls)  # noqa: B023
                answers = shares(fleet.answered(), before)
            fleet.freeze(victim)
            tasks = start()
            for answered in itertools.islice(asyncio.as_completed(tasks), calls * 2 // 3):
                await answered
            assert sum(not task.done() for task in tasks) == calls / 3
            fleet.kill(victim)
            await asyncio.gather(*tasks)
            before.pop(victim)
            return shares(fleet.answered(), before)

    answers = asyncio.run(kill())
    fleet.start(victim)

    assert sum(answers) == 2 * calls - calls / 3  # those before, and these, each of them once


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


def test_no_call_is_lost_when_the_network_to_a_replica_is_cut_and_it_is_called_when_it_is_mended(
    fleet: Fleet, host: Host, record: Record
) -> None:
    fleet.start(host.address, within=host.command)
    fleet.names.addresses.append(host.address)
    with loading(fleet.target) as load:
        wait_until(has_answered(fleet, host.address))
        host.cut()
        load.last(KEEPALIVE + 3.0)
        host.mend()
        wait_until(has_answered(fleet, host.address, fleet.answered()[host.address]["OK"]))

    record("one cut off", load.report)
    check_that_nothing_was_lost(load.report)
    assert max(call.seconds for call in load.report.calls) > 1.0  # so it was cut
    fleet.names.addresses.remove(host.address)
    assert fleet.stop(host.address) == 0
