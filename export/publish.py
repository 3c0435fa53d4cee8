"""Publishing a model version: it is there completely or not at all, and never changes.

What an exporter that was killed leaves behind is a folder `.publishing-*`, which the next one
removes: a living exporter holds a lock in its own.
"""

import errno
import fcntl
import os
import re
import secrets
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import IO

from export.errors import ExportError
from training.files import sync_directory, write_durably

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_VERSION = re.compile(r"[1-9][0-9]{0,9}")
_TAKEN = frozenset({errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR})
_WORKPLACE = ".publishing-"
_OWNER = "owner"  # the file in a workplace that its exporter locks


def check_name(name: str) -> None:
    """Raise ExportError unless `name` can name a model."""
    if not _NAME.fullmatch(name):
        raise ExportError(
            f"{name!r} cannot name a model: use 1 to 128 letters, digits, '.', '_' and '-', "
            "a letter or digit first"
        )


def publish(
    repository: Path,
    name: str,
    files: Mapping[str, bytes],
    manifest: Callable[[int], bytes],
) -> Path:
    """Write REPOSITORY/NAME/VERSION with `files` and manifest.json; returns its path.

    VERSION is one more than the largest there. `manifest` makes the manifest of a version, and is
    asked again where another exporter takes that version first. The version appears by a rename,
    after everything in it has reached the disk; a reader never sees a part of it. Whatever
    interrupts this function, the repository is left as it was; after a signal that ends the process
    at once, or a crash, a workplace is left too, which the next call removes. Raises ExportError if
    the name is refused or the repository cannot be written.
    """
    check_name(name)
    folder = repository / name
    missing: list[Path] = []
    try:
        missing = [path for path in (folder, *folder.parents) if not path.exists()]
        folder.mkdir(parents=True, exist_ok=True)
        for path in missing:
            sync_directory(path.parent)
        _remove_leftovers(folder)
        with _workplace(folder) as temporary:
            for file, content in files.items():
                write_durably(temporary / file, content)
            return _rename(temporary, folder, manifest)
    except OSError as error:
        reason = error.strerror or str(error)
        raise ExportError(f"cannot publish in {folder}: {reason}") from error
    finally:
        for path in missing:
            with suppress(OSError):  # in use by now, unless something failed
                path.rmdir()


@contextmanager
def _workplace(folder: Path) -> Iterator[Path]:
    """A new directory in a workplace, which no other exporter removes while this one lives."""
    while True:
        place = folder / f"{_WORKPLACE}{secrets.token_hex(8)}"
        try:
            place.mkdir()
            owner = _own(place)
            if owner is not None:
                with owner:
                    temporary = place / "version"
                    temporary.mkdir()
                    yield temporary
                    return
        finally:
            shutil.rmtree(place, ignore_errors=True)


def _own(place: Path) -> IO[bytes] | None:
    """The locked file of a new workplace; None if another exporter removed it before the lock."""
    path = place / _OWNER
    with suppress(FileNotFoundError), ExitStack() as opened:
        owner = opened.enter_context(path.open("ab"))
        _lock(owner, fcntl.LOCK_EX)
        if os.path.samestat(os.fstat(owner.fileno()), os.stat(path)):
            opened.pop_all()
            return owner
    return None


def _remove_leftovers(folder: Path) -> None:
    """Remove the workplaces of exporters that ended without doing so themselves."""
    for place in folder.glob(f"{_WORKPLACE}*"):
        with suppress(OSError), (place / _OWNER).open("ab") as owner:
            if _lock(owner, fcntl.LOCK_EX | fcntl.LOCK_NB):
                shutil.rmtree(place, ignore_errors=True)


def _lock(file: IO[bytes], operation: int) -> bool:
    """Whether the lock was taken; filesystems without locks give none, so nothing is removed."""
    try:
        fcntl.flock(file, operation)
    except OSError:
        return False
    return True


def _rename(temporary: Path, folder: Path, manifest: Callable[[int], bytes]) -> Path:
    """Give the directory the next free version; a non-empty directory is never replaced."""
    while True:
        version = next_version(folder, [path.name for path in folder.iterdir()])
        write_durably(temporary / "manifest.json", manifest(version))
        sync_directory(temporary)
        target = folder / str(version)
        try:
            temporary.rename(target)
            sync_directory(folder)
        except BaseException as error:
            if not temporary.exists():  # what is reported as not published is not there
                target.rename(temporary)
                raise
            if not isinstance(error, OSError) or error.errno not in _TAKEN:
                raise
        else:
            return target


def next_version(folder: object, names: Iterable[str]) -> int:
    """One more than the largest version among names. Raises ExportError if none is left."""
    version = max((int(name) for name in names if _VERSION.fullmatch(name)), default=0) + 1
    if not _VERSION.fullmatch(str(version)):
        raise ExportError(f"{folder} has no version number left")
    return version
