"""Explicit control that several processes share through a file."""

from pathlib import Path

import pytest

from service.errors import LoadFailed, ModelNotFound
from service.repository import RepositoryError
from service.wanted import WantedModels


class Process:
    """A process with its own models, and the file that it shares."""

    def __init__(self, path: Path | None) -> None:
        self.calls: list[str] = []
        self.broken = False
        self.unreadable = False
        self.wanted = WantedModels(self, path)

    def load(self, name: str) -> None:
        self.calls.append(f"load {name}")
        if self.unreadable:
            raise RepositoryError("not mounted")
        if self.broken:
            raise LoadFailed("damaged")

    def unload(self, name: str) -> None:
        self.calls.append(f"unload {name}")
        if self.broken:
            raise ModelNotFound("not loaded")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "wanted.json"


def test_what_one_process_is_asked_for_the_others_do_once(path: Path) -> None:
    first, second = Process(path), Process(path)
    first.wanted.load("a")
    for process in (first, second, second):
        process.wanted.follow()
    first.wanted.unload("a")
    second.wanted.follow()
    assert first.calls == second.calls == ["load a", "unload a"]


def test_a_model_that_is_asked_for_again_is_loaded_again(path: Path) -> None:
    first, second = Process(path), Process(path)
    for _ in range(2):
        first.wanted.load("a")
        second.wanted.follow()
    assert second.calls == ["load a", "load a"]


def test_what_cannot_be_loaded_nobody_else_is_told_of(path: Path) -> None:
    first, second = Process(path), Process(path)
    first.broken = True
    with pytest.raises(LoadFailed):
        first.wanted.load("a")
    second.wanted.follow()
    assert second.calls == []


def test_a_process_that_cannot_follow_does_not_try_for_ever(path: Path) -> None:
    first, second = Process(path), Process(path)
    second.broken = True
    first.wanted.load("a")
    for _ in range(2):
        second.wanted.follow()
    first.wanted.unload("a")
    second.wanted.follow()
    assert second.calls == ["load a", "unload a"]


def test_what_an_unreadable_repository_kept_from_being_loaded_is_left_for_the_next_time(
    path: Path,
) -> None:
    first, second = Process(path), Process(path)
    first.wanted.load("a")
    second.unreadable = True
    for _ in range(2):
        with pytest.raises(RepositoryError):
            second.wanted.follow()
    second.unreadable = False
    for _ in range(2):
        second.wanted.follow()
    assert second.calls == ["load a"] * 3


def test_a_process_that_starts_again_loads_what_was_asked_for(path: Path) -> None:
    Process(path).wanted.load("a")
    again = Process(path)
    again.wanted.follow()
    assert again.calls == ["load a"]


def test_two_processes_lose_none_of_what_they_are_asked_for(path: Path) -> None:
    first, second, third = Process(path), Process(path), Process(path)
    first.wanted.load("a")
    second.wanted.load("b")
    third.wanted.follow()
    assert sorted(third.calls) == ["load a", "load b"]


def test_without_a_file_a_process_is_alone() -> None:
    alone = Process(None)
    alone.wanted.load("a")
    alone.wanted.follow()
    alone.wanted.unload("a")
    alone.wanted.follow()
    assert alone.calls == ["load a", "unload a"]


@pytest.mark.parametrize("text", ["", "[]", '{"a": "1"}', "{"])
def test_a_damaged_file_is_an_error(path: Path, text: str) -> None:
    path.write_text(text)
    with pytest.raises(RepositoryError, match=r"wanted\.json"):
        Process(path).wanted.follow()
