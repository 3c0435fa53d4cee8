"""Publishing a model version: it is there completely or not at all, and never changes."""

import errno
import re
import secrets
import shutil
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

from export.errors import ExportError
from training.files import sync_directory, write_durably

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_VERSION = re.compile(r"[1-9][0-9]{0,9}")
_TAKEN = frozenset({errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR})


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
    interrupts this function, a signal that ends the process at once excepted, the repository is
    left as it was. Raises ExportError if the name is refused or the repository cannot be written.
    """
    check_name(name)
    folder = repository / name
    temporary = folder / f".publishing-{secrets.token_hex(8)}"
    missing: list[Path] = []
    try:
        missing = [path for path in (folder, *folder.parents) if not path.exists()]
        folder.mkdir(parents=True, exist_ok=True)
        for path in missing:
            sync_directory(path.parent)
        temporary.mkdir()
        for file, content in files.items():
            write_durably(temporary / file, content)
        return _rename(temporary, folder, manifest)
    except OSError as error:
        reason = error.strerror or str(error)
        raise ExportError(f"cannot publish in {folder}: {reason}") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)  # renamed by now, unless something failed
        for path in missing:
            with suppress(OSError):  # in use by now, unless something failed
                path.rmdir()


def _rename(temporary: Path, folder: Path, manifest: Callable[[int], bytes]) -> Path:
    """Give the directory the next free version; a non-empty directory is never replaced."""
    while True:
        version = _next_version(folder)
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


def _next_version(folder: Path) -> int:
    taken = (int(path.name) for path in folder.iterdir() if _VERSION.fullmatch(path.name))
    version = max(taken, default=0) + 1
    if not _VERSION.fullmatch(str(version)):
        raise ExportError(f"{folder} has no version number left")
    return version
