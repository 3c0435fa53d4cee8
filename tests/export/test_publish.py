import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import export
from export.errors import ExportError
from export.publish import check_name, publish
from tests.export.publications import FILES, contents, manifest


def test_a_version_holds_the_files_and_its_manifest(tmp_path: Path) -> None:
    path = publish(tmp_path, "digits", FILES, manifest)
    assert path == tmp_path / "digits" / "1"
    assert contents(tmp_path) == {
        "digits": None,
        "digits/1": None,
        "digits/1/encoder.onnx": b"an encoder",
        "digits/1/decoder.onnx": b"a decoder",
        "digits/1/manifest.json": b"version 1",
    }


def test_a_missing_repository_is_made(tmp_path: Path) -> None:
    assert publish(tmp_path / "a" / "b", "digits", FILES, manifest).is_dir()


def test_the_next_version_leaves_the_others_as_they_are(tmp_path: Path) -> None:
    first = publish(tmp_path, "digits", FILES, manifest)
    before = contents(first)
    second = publish(tmp_path, "digits", {"decoder.onnx": b"new"}, manifest)
    assert second == tmp_path / "digits" / "2"
    assert contents(second) == {"decoder.onnx": b"new", "manifest.json": b"version 2"}
    assert contents(first) == before


@pytest.mark.parametrize(
    ("present", "expected"),
    [
        (["7"], "8"),
        (["2", "10"], "11"),
        (["latest", "0", "-3", "1.5", "\u0663", "007"], "1"),
        ([".publishing-0123456789abcdef"], "1"),
        (["999999999"], "1000000000"),
    ],
)
def test_the_next_version_is_one_more_than_the_largest(
    tmp_path: Path, present: list[str], expected: str
) -> None:
    for name in present:
        (tmp_path / "digits" / name).mkdir(parents=True)
    assert publish(tmp_path, "digits", FILES, manifest).name == expected


def test_a_model_without_a_version_number_left_is_refused(tmp_path: Path) -> None:
    (tmp_path / "digits" / "9999999999").mkdir(parents=True)
    before = contents(tmp_path)
    with pytest.raises(ExportError, match="no version number left"):
        publish(tmp_path, "digits", FILES, manifest)
    assert contents(tmp_path) == before


@pytest.mark.parametrize("name", ["a", "7", "Digits-mlp_v1.5", "a" * 128, "a..b"])
def test_a_name_of_letters_digits_and_punctuation_is_fine(name: str) -> None:
    check_name(name)


@pytest.mark.parametrize(
    "name",
    [
        "",
        ".",
        "..",
        ".hidden",
        "-rf",
        "_a",
        "a/b",
        "../a",
        "/a",
        "a b",
        "a\n",
        "a\0",
        "é",
        "a" * 129,
    ],
)
def test_another_name_is_refused_and_nothing_is_written(tmp_path: Path, name: str) -> None:
    with pytest.raises(ExportError, match="cannot name a model") as raised:
        publish(tmp_path / "models", name, FILES, manifest)
    assert "\n" not in str(raised.value)
    assert contents(tmp_path) == {}


@pytest.mark.parametrize("repository", ["file", "file/below", "x" * 300])
def test_a_repository_that_cannot_be_a_folder_is_refused(tmp_path: Path, repository: str) -> None:
    (tmp_path / "file").write_bytes(b"content")
    with pytest.raises(ExportError, match="cannot publish in"):
        publish(tmp_path / repository, "digits", FILES, manifest)
    assert contents(tmp_path) == {"file": b"content"}


def test_an_exporter_that_loses_a_version_takes_the_next_one(tmp_path: Path) -> None:
    """Another one publishes between the choice of the version and the rename, twice."""
    asked: list[int] = []

    def beaten(version: int) -> bytes:
        asked.append(version)
        if len(asked) < 3:
            publish(tmp_path, "digits", {"decoder.onnx": b"theirs"}, manifest)
        return manifest(version)

    path = publish(tmp_path, "digits", FILES, beaten)

    assert asked == [1, 2, 3]
    assert contents(path) == FILES | {"manifest.json": b"version 3"}
    assert sorted(child.name for child in path.parent.iterdir()) == ["1", "2", "3"]
    assert (path.parent / "1" / "decoder.onnx").read_bytes() == b"theirs"


def test_a_file_in_the_place_of_a_version_is_never_replaced(tmp_path: Path) -> None:
    def beaten(version: int) -> bytes:
        if version == 1:
            (tmp_path / "digits" / "1").write_bytes(b"in the way")
        return manifest(version)

    assert publish(tmp_path, "digits", FILES, beaten).name == "2"
    assert (tmp_path / "digits" / "1").read_bytes() == b"in the way"


def test_concurrent_threads_get_different_versions(tmp_path: Path) -> None:
    start = threading.Barrier(8)

    def exporter(number: int) -> tuple[int, Path]:
        start.wait()
        return number, publish(tmp_path, "digits", {"owner": str(number).encode()}, manifest)

    with ThreadPoolExecutor(8) as pool:
        published = dict(pool.map(exporter, range(8)))

    assert sorted(path.name for path in published.values()) == [str(n) for n in range(1, 9)]
    for number, path in published.items():
        assert contents(path) == {
            "owner": str(number).encode(),
            "manifest.json": f"version {path.name}".encode(),
        }
    assert len(list((tmp_path / "digits").iterdir())) == 8


PROGRAM = """
import sys
from pathlib import Path
from export.publish import publish
for _ in range(20):
    print(publish(Path(sys.argv[1]), "digits", {"f": b"x" * 1000}, lambda version: b"{}").name)
"""


def test_concurrent_processes_get_different_versions(tmp_path: Path) -> None:
    root = Path(export.__file__).parents[1]
    command = [sys.executable, "-c", PROGRAM, str(tmp_path)]
    started = [
        subprocess.Popen(command, cwd=root, stdout=subprocess.PIPE, text=True) for _ in range(3)
    ]
    versions = [
        int(line) for process in started for line in process.communicate(timeout=60)[0].split()
    ]
    assert sorted(versions) == list(range(1, 61))
