"""Where model versions come from: what is there, and a local copy of it to read.

A version is there once its manifest.json is: whoever publishes writes that last.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from service.model_settings import SETTINGS_FILE
from service.repository import MANIFEST_FILE, NAME, VERSION, RepositoryError


@dataclass(frozen=True)
class Listed:
    """A model of a source: its versions, each with what changes when its files do; its settings.

    settings: the bytes of settings.toml, empty without one.
    """

    versions: Mapping[int, str]
    settings: bytes


class Source(Protocol):
    """A model repository. Used by one thread at a time."""

    place: str  # as the operator wrote it

    def list(self) -> Mapping[str, Listed]:
        """The models, by name. Raises RepositoryError if nobody can say."""
        ...

    def fetch(self, name: str, version: int) -> Path:
        """The root of a directory that holds root/name/version. Raises RepositoryError."""
        ...

    def keep(self, digests: Collection[str]) -> None:
        """Served are versions with manifests of these SHA-256; of others no copy is needed."""
        ...


class DirectorySource:
    """A directory of this machine."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._served = False
        self.place = str(root)

    def list(self) -> Mapping[str, Listed]:
        """The models under the directory; what is no model or version is passed over.

        A directory that is empty while something of it is served cannot be read either: that is
        what is left where a volume was mounted.
        """
        try:
            if not self._root.is_dir():
                raise RepositoryError(
                    f"{self._root} is not a directory; expected a model repository"
                )
            folders = list(self._root.iterdir())
            listed = {
                folder.name: Listed(_versions(folder), _settings(folder))
                for folder in folders
                if folder.is_dir() and NAME.fullmatch(folder.name)
            }
        except OSError as error:  # no right to, or a file system over a network that has gone
            raise RepositoryError(f"{self._root} cannot be read: {error}") from error
        if self._served and not folders:
            raise RepositoryError(f"{self._root} is empty, as where a volume is not mounted")
        return {name: model for name, model in listed.items() if model.versions}

    def fetch(self, name: str, version: int) -> Path:
        """It is there already."""
        return self._root

    def keep(self, digests: Collection[str]) -> None:
        """There are no copies."""
        self._served = bool(digests)


def _versions(folder: Path) -> dict[int, str]:
    return {
        int(path.name): _fingerprint(path)
        for path in folder.iterdir()
        if VERSION.fullmatch(path.name) and (path / MANIFEST_FILE).is_file()
    }


def _fingerprint(version: Path) -> str:
    """Another text once a file is replaced, added or taken away."""
    files = []
    for file in sorted(version.iterdir()):
        try:
            status = file.stat()
        except OSError:  # a link to nowhere, or a file that has just gone
            files.append(file.name)
            continue
        # Not the inode: file systems over a network give the same file another one.
        files.append(f"{file.name}:{status.st_size}:{status.st_mtime_ns}")
    return "/".join(files)


def _settings(folder: Path) -> bytes:
    try:
        return (folder / SETTINGS_FILE).read_bytes()
    except FileNotFoundError:
        return b""
