"""What a directory says it holds."""

import os
from pathlib import Path

import pytest

from service.repository import RepositoryError
from service.sources import DirectorySource
from tests.service.repositories import write


def versions(root: Path) -> dict[str, list[int]]:
    return {name: sorted(model.versions) for name, model in DirectorySource(root).list().items()}


def test_models_are_listed_with_their_versions(tmp_path: Path) -> None:
    for name, version in (("b", 2), ("b", 10), ("b", 9), ("a", 1)):
        write(tmp_path, name, version)
    assert versions(tmp_path) == {"a": [1], "b": [2, 9, 10]}


@pytest.mark.parametrize(
    "folder",
    [
        "model/.publishing-0123456789abcdef",
        "model/002",
        "model/0",
        "model/-2",
        "model/2.bak",
        "model/latest",
        "model/2",  # without a manifest it is not published yet
        ".publishing-0123456789abcdef/1",
        ".git/1",
        "lost+found/1",
        "empty",
    ],
)
def test_folders_that_are_no_version_are_ignored(tmp_path: Path, folder: str) -> None:
    write(tmp_path)
    (tmp_path / folder).mkdir(parents=True)
    if folder != "model/2":
        (tmp_path / folder / "manifest.json").write_text("")
    assert versions(tmp_path) == {"model": [1]}


@pytest.mark.parametrize("file", ["README", "model/2"])
def test_files_among_the_folders_are_ignored(tmp_path: Path, file: str) -> None:
    write(tmp_path)
    (tmp_path / file).write_text("")
    assert versions(tmp_path) == {"model": [1]}


def test_a_models_settings_are_listed_with_it(tmp_path: Path) -> None:
    write(tmp_path)
    assert DirectorySource(tmp_path).list()["model"].settings == b""
    (tmp_path / "model" / "settings.toml").write_bytes(b"instances = 2")
    assert DirectorySource(tmp_path).list()["model"].settings == b"instances = 2"


def test_a_version_stays_the_same_until_one_of_its_files_changes(tmp_path: Path) -> None:
    file = write(tmp_path) / "encoder.onnx"
    first, again = (DirectorySource(tmp_path).list()["model"].versions[1] for _ in range(2))
    assert first == again
    os.utime(file, ns=(1, 1))
    assert DirectorySource(tmp_path).list()["model"].versions[1] != first


def test_a_link_to_nowhere_hides_no_other_model(tmp_path: Path) -> None:
    (write(tmp_path, "a") / "extra").symlink_to(tmp_path / "nowhere")
    write(tmp_path, "b")
    assert versions(tmp_path) == {"a": [1], "b": [1]}


def test_an_empty_directory_cannot_be_read_while_something_of_it_is_served(tmp_path: Path) -> None:
    source = DirectorySource(tmp_path)
    assert source.list() == {}
    source.keep({"a digest"})
    with pytest.raises(RepositoryError, match="is empty, as where a volume is not mounted"):
        source.list()
    (tmp_path / "model").mkdir()
    assert source.list() == {}
    (tmp_path / "model").rmdir()
    source.keep(())
    assert source.list() == {}


def test_a_repository_that_the_system_cannot_reach_is_refused(tmp_path: Path) -> None:
    root = tmp_path / "models"
    root.symlink_to("x" * 300)  # stat fails with another error than "not there", as on a dead mount
    with pytest.raises(RepositoryError, match=r"cannot be read: .*File name too long"):
        DirectorySource(root).list()


@pytest.mark.parametrize("content", [None, ""], ids=["nothing", "a file"])
def test_a_repository_that_is_not_a_directory_is_refused(
    tmp_path: Path, content: str | None
) -> None:
    root = tmp_path / "models"
    if content is not None:
        root.write_text(content)
    with pytest.raises(RepositoryError, match="is not a directory; expected a model repository"):
        DirectorySource(root).list()
