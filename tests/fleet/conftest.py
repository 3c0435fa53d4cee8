"""A fleet of three, a host to cut off, and a table of what the loads saw."""

import contextlib
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.fleet.load import Report
from tests.fleet.names import NameServer
from tests.fleet.network import Host, NotAllowedError, another_host
from tests.fleet.replicas import Fleet

ADDRESSES = ("127.0.0.2", "127.0.0.3", "127.0.0.4")


@pytest.fixture(scope="module")
def fleet(digits_repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """Three replicas. A test leaves three behind, whichever."""
    repository = tmp_path_factory.mktemp("fleet")
    shutil.copytree(digits_repository, repository, dirs_exist_ok=True)
    with NameServer() as names:
        started = Fleet(repository, names)
        try:
            for address in ADDRESSES:
                started.start(address)
            names.addresses = list(ADDRESSES)
            yield started
        finally:
            started.stop_all()


@pytest.fixture(scope="module")
def record(request: pytest.FixtureRequest) -> Iterator[Callable[[str, Report | str], None]]:
    """Takes reports, or why there is none, of which it prints a table at the end."""
    rows = [("what", "calls", "failed", "slowest s", "chunks", "encoded", "streams")]

    missing: list[str] = []

    def add(name: str, report: Report | str) -> None:
        if isinstance(report, str):
            missing.append(f"\n{name}: NOT CHECKED: {report}")
            return
        failed = sum(call.result != "OK" for call in report.calls)
        slowest = max((call.seconds for call in report.calls), default=0.0)
        row = (
            len(report.calls),
            failed,
            f"{slowest:.2f}",
            report.chunks,
            report.encoded,
            report.stream,
        )
        rows.append((name, *map(str, row)))

    yield add
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    reporter = request.config.pluginmanager.getplugin("terminalreporter")
    with request.config.pluginmanager.getplugin("capturemanager").global_and_fixture_disabled():
        for row in rows:
            cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=True)]
            reporter.write("\n" + "  ".join(cells))
        for line in missing:
            reporter.write(line, red=True)


@pytest.fixture
def host(record: Callable[[str, Report | str], None]) -> Iterator[Host]:
    """A host whose network can be cut. Without it the table says that this was not checked."""
    with contextlib.ExitStack() as stack:
        try:
            made = stack.enter_context(another_host())
        except NotAllowedError as error:
            record("one cut off", str(error))
            pytest.skip(f"no network to cut: {error}")
        yield made
