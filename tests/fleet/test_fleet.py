"""Three replicas under load from vae_client while they come, go, die and fall silent."""

import asyncio
import shutil
import signal
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.fleet.load import Report
from tests.fleet.replicas import Fleet, loading, wait_until
from vae_client import AsyncVaeClient

pytestmark = [pytest.mark.load, pytest.mark.timeout(300)]
Record = Callable[[str, Report], None]


def check_that_nothing_was_lost(report: Report) -> None:
    results = Counter(call.result for call in report.calls)

    assert list(results) == ["OK"], results
    assert report.stream == "OK"
    assert report.chunks


def change(after: dict[str, dict[str, float]], before: dict[str, dict[str, float]]) -> list[float]:
    return [after[address]["OK"] - before[address]["OK"] for address in before]


def test_calls_are_balanced(fleet: Fleet, record: Record) -> None:
    before = fleet.answered()
    with loading(fleet.target) as load:
        load.last(5.0)
    shares = change(fleet.answered(), before)

    record("all well", load.report)
    check_that_nothing_was_lost(load.report)
    assert sum(shares) >= len(load.report.calls)
    assert max(shares) - min(shares) <= 0.1 * sum(shares) / len(shares)


def test_no_call_fails_while_all_are_restarted(fleet: Fleet, record: Record) -> None:
    addresses = list(fleet.replicas)
    with loading(fleet.target) as load:
        for address in addresses:
            assert fleet.stop(address) == 0
            replica = fleet.start(address)
            wait_until(lambda: fleet.answered()[address]["OK"] > 0)  # noqa: B023 - called here
            assert replica.process.poll() is None

    record("rolling restart", load.report)
    check_that_nothing_was_lost(load.report)
    assert not errors(fleet)


def errors(fleet: Fleet) -> list[str]:
    return [line for line in fleet.log if '"level": "error"' in line]
