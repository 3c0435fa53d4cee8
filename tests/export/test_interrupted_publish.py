"""A repository in which a publication fails or is interrupted looks as if it never began."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from export.errors import ExportError
from export.publish import publish
from tests.export.publications import FILES, contents, manifest

CALLS = [
    *((present, "mkdir", call) for present in (False, True) for call in (2, 3)),
    *((present, "rename", 1) for present in (False, True)),
    *((True, "fsync", call) for call in range(1, 6)),
    *((False, "fsync", call) for call in range(1, 7)),
    (False, "mkdir", 1),
]


@pytest.mark.parametrize(
    ("moment", "error", "expected"),
    [
        ("before", OSError(28, "stopped"), ExportError),
        ("before", KeyboardInterrupt("stopped"), KeyboardInterrupt),
        ("after", KeyboardInterrupt("stopped"), KeyboardInterrupt),
    ],
)
@pytest.mark.parametrize(("present", "operation", "call"), CALLS)
def test_whatever_interrupts_it_the_repository_is_left_as_it_was(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    present: bool,
    operation: str,
    call: int,
    moment: str,
    error: BaseException,
    expected: type[BaseException],
) -> None:
    """The last fsync is of the model's folder, after the rename; `present`: there is version 1."""
    if present:
        publish(tmp_path, "digits", FILES, manifest)
    before = contents(tmp_path)
    monkeypatch.setattr(os, operation, failing(getattr(os, operation), call, moment, error))

    with pytest.raises(expected, match="stopped"):
        publish(tmp_path, "digits", FILES, manifest)

    assert contents(tmp_path) == before


def failing(
    real: Callable[..., object], call: int, moment: str, error: BaseException
) -> Callable[..., object]:
    """The real function, except that one call raises, before or after it has done its work."""
    calls = 0

    def function(*arguments: object, **options: object) -> object:
        nonlocal calls
        calls += 1
        if calls == call:
            if moment == "after":
                real(*arguments, **options)
            raise error
        return real(*arguments, **options)

    return function


@pytest.mark.parametrize("error", [OSError(5, "Input/output error"), KeyboardInterrupt()])
def test_a_manifest_that_fails_leaves_no_new_folders(tmp_path: Path, error: BaseException) -> None:
    def fails(version: int) -> bytes:
        raise error

    with pytest.raises((ExportError, KeyboardInterrupt)):
        publish(tmp_path / "a" / "b", "digits", FILES, fails)
    assert contents(tmp_path) == {}
