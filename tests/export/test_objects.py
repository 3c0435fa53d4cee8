"""Publishing in an object store: a real S3-compatible server on loopback."""

import json
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

import export
from export.__main__ import main
from export.errors import ExportError
from export.objects import publish_objects
from export.storage import Location, locate
from tests.export.publications import FILES, manifest
from training.checkpoint import Run

ROOT = Path(export.__file__).parents[1]
HOUR = 3600.0


@pytest.fixture
def repository(bucket: str) -> Location:
    return locate(f"{bucket}/some/models")


def contents(location: Location) -> dict[str, bytes]:
    """Every object below a location, by its path from there."""
    start = len(location.path) + 1
    filesystem = location.filesystem
    return {path[start:]: filesystem.cat_file(path) for path in filesystem.find(location.path)}


def whole(version: int) -> dict[str, bytes]:
    """The objects of a version that `publish_objects` wrote."""
    files = FILES | {"manifest.json": manifest(version)}
    return {f"digits/{version}/{name}": content for name, content in files.items()}


def test_versions_hold_their_files_and_nothing_else_is_left(repository: Location) -> None:
    for version in (1, 2):
        published = publish_objects(repository, "digits", FILES, manifest)
        assert published.address == f"{repository.address}/digits/{version}"
    assert contents(repository) == whole(1) | whole(2)


def test_a_run_is_published_and_checked_by_url(
    runs: Mapping[str, Run], bucket: str, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [str(runs["mlp"].path), "--repository", f"{bucket}/models", "--name", "a"]
    assert main(arguments) == 0
    assert capsys.readouterr().out.startswith(f"published {bucket}/models/a/1\n")
    assert main(["--check", f"{bucket}/models", "a"]) == 0
    assert capsys.readouterr().out.startswith(f"{bucket}/models/a/1 is as it was published\n")


def test_concurrent_exporters_get_different_versions(bucket: str) -> None:
    def exporter(number: int) -> tuple[int, str]:
        owner = {"owner": str(number).encode()}
        location = publish_objects(locate(f"{bucket}/models"), "digits", owner, manifest)
        return number, location.address

    with ThreadPoolExecutor(4) as pool:
        published = dict(pool.map(exporter, range(8)))

    versions = {int(address.rpartition("/")[2]) for address in published.values()}
    assert len(versions) == 8
    for number, address in published.items():
        assert locate(address).read("owner") == str(number).encode()
        assert locate(address).names() == {"owner", "manifest.json"}
    assert not locate(f"{bucket}/models/digits/.claims").names()


def test_a_manifest_is_written_after_everything_else(
    repository: Location, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[str] = []
    for method in ("write", "create"):
        monkeypatch.setattr(Location, method, noting(getattr(Location, method), written))
    publish_objects(repository, "digits", FILES, manifest)
    assert written == ["1", "1", *FILES, "manifest.json"]


def noting(real: Callable[..., Any], written: list[str]) -> Callable[..., Any]:
    def method(location: Location, name: str, content: bytes) -> Any:
        written.append(name)
        return real(location, name, content)

    return method


@pytest.mark.parametrize("error", [ExportError("stopped"), KeyboardInterrupt("stopped")])
@pytest.mark.parametrize("write", range(1, 6))
def test_a_publication_that_fails_leaves_nothing(
    repository: Location, monkeypatch: pytest.MonkeyPatch, write: int, error: BaseException
) -> None:
    publish_objects(repository, "digits", FILES, manifest)
    calls = 0

    def failing(real: Callable[..., Any]) -> Callable[..., Any]:
        def method(*arguments: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls == write:
                raise error
            return real(*arguments)

        return method

    with monkeypatch.context() as patched:
        for method in ("write", "create"):
            patched.setattr(Location, method, failing(getattr(Location, method)))
        with pytest.raises((ExportError, KeyboardInterrupt), match="stopped"):
            publish_objects(repository, "digits", FILES, manifest)
    before = contents(repository)
    assert {name for name in before if "/.claims/" not in name} == whole(1).keys()
    published = publish_objects(repository, "digits", FILES, manifest)
    assert contents(published) == FILES | {"manifest.json": manifest(int(published.path[-1]))}


PROGRAM = """
import sys, time
from export.objects import publish_objects
from export.storage import locate
def manifest(version):
    print("ready", flush=True)
    sys.stdin.readline()
publish_objects(locate(sys.argv[1]), "digits", {"encoder.onnx": b"theirs"}, manifest)
"""


def test_what_a_killed_exporter_left_is_no_version_and_is_removed_after_a_day(
    repository: Location,
) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM, repository.address],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGKILL)
    left = contents(repository)
    assert left.keys() == {"digits/1/encoder.onnx", "digits/.claims/1"}
    claimed = json.loads(left["digits/.claims/1"])["time"]

    publish_objects(repository, "digits", FILES, manifest, clock=lambda: claimed + 23 * HOUR)
    assert contents(repository) == left | whole(2)

    publish_objects(repository, "digits", FILES, manifest, clock=lambda: claimed + 25 * HOUR)
    assert contents(repository) == whole(2) | whole(3)


def test_an_exporter_that_took_an_hour_gives_up(repository: Location) -> None:
    """Others may take it for dead, a day later."""
    times = iter([0.0, HOUR + 1])
    with pytest.raises(ExportError, match="took more than an hour"):
        publish_objects(repository, "digits", FILES, manifest, clock=lambda: next(times))
    assert contents(repository) == {}


def test_a_store_that_replaces_what_it_should_create_is_refused(
    repository: Location, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As servers do that do not know If-None-Match."""

    def replaces(location: Location, name: str, content: bytes) -> bool:
        location.write(name, content)
        return True

    monkeypatch.setattr(Location, "create", replaces)
    with pytest.raises(ExportError, match="does not refuse to create an object that exists"):
        publish_objects(repository, "digits", FILES, manifest)
    assert contents(repository) == {}


def test_a_bucket_that_is_not_there_is_named(bucket: str) -> None:
    address = f"{bucket}-none"
    with pytest.raises(ExportError, match=rf"cannot create {address}/a/\.claims/1: ."):
        publish_objects(locate(address), "a", FILES, manifest)


def test_a_store_that_nothing_reaches_is_exit_code_2(
    runs: Mapping[str, Run], capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [str(runs["mlp"].path), "--repository", "nothing://here", "--name", "a"]
    assert main(arguments) == 2
    assert capsys.readouterr().err == (
        "error: cannot use nothing://here: Protocol not known: nothing\n"
    )
