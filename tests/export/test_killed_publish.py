"""A killed exporter never shows a reader a part of a version, and the next one cleans up."""

import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import export
from export.publish import publish
from tests.export.publications import FILES, contents, manifest

ROOT = Path(export.__file__).parents[1]
WAITS = """
import sys
from pathlib import Path
from export.publish import publish
def manifest(version):
    print("ready", flush=True)
    sys.stdin.readline()
    return f"version {version}".encode()
publish(Path(sys.argv[1]), "digits", {"encoder.onnx": b"theirs"}, manifest)
"""


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository for each step at which an exporter was killed."""
    folder = tmp_path_factory.mktemp("killed")
    program = Path(__file__).with_name("killed_exporters.py")
    subprocess.run(
        [sys.executable, program, folder],
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "protos")])},
        check=True,
        timeout=100,
    )
    return folder


def test_an_exporter_was_killed_at_every_step(killed: Path) -> None:
    """Three directories; two files, a manifest, two directories to the disk; the rename; owner."""
    steps = sorted(path.name for path in killed.iterdir() if is_killed(path))
    counts = Counter(step.partition("-")[0] for step in steps)
    assert counts == {"mkdir": 6, "fsync": 10, "rename": 2, "unlink": 2, "rmdir": 2}


def is_killed(repository: Path) -> bool:
    """Not the last one of its kind, in which nothing was killed."""
    operation, call, moment = repository.name.split("-")
    return repository.with_name(f"{operation}-{int(call) + 1}-{moment}").exists()


def test_a_reader_sees_whole_versions_only(killed: Path) -> None:
    for repository in killed.iterdir():
        versions = [path for path in (repository / "digits").iterdir() if path.name.isdigit()]
        assert versions
        for version in versions:
            whole = FILES | {"manifest.json": manifest(int(version.name))}
            assert contents(version) == whole, repository.name


def test_the_next_exporter_publishes_and_leaves_versions_alone(killed: Path) -> None:
    for repository in killed.iterdir():
        folder = repository / "digits"
        before = {path.name for path in folder.iterdir() if path.name.isdigit()}
        published = publish(repository, "digits", FILES, manifest)
        assert published.name == str(len(before) + 1)
        assert {path.name for path in folder.iterdir()} == before | {published.name}


@contextmanager
def waiting_exporter(repository: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that has written its files and waits before it publishes."""
    with subprocess.Popen(
        [sys.executable, "-c", WAITS, repository],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        try:
            yield process
        finally:
            process.kill()


def test_what_a_living_exporter_writes_is_left_alone(tmp_path: Path) -> None:
    with waiting_exporter(tmp_path) as process:
        assert publish(tmp_path, "digits", FILES, manifest).name == "1"
        process.communicate("go\ngo\n", timeout=60)
        assert process.returncode == 0
    assert contents(tmp_path / "digits") == {
        "1": None,
        **{f"1/{name}": content for name, content in FILES.items()},
        "1/manifest.json": b"version 1",
        "2": None,
        "2/encoder.onnx": b"theirs",
        "2/manifest.json": b"version 2",
    }


def test_what_a_killed_exporter_wrote_is_removed(tmp_path: Path) -> None:
    with waiting_exporter(tmp_path) as process:
        process.send_signal(signal.SIGKILL)
        process.wait(60)
    assert [path.name[:12] for path in (tmp_path / "digits").iterdir()] == [".publishing-"]
    assert publish(tmp_path, "digits", FILES, manifest).name == "1"
    assert [path.name for path in (tmp_path / "digits").iterdir()] == ["1"]
