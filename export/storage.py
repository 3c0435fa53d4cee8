"""Folders on disk and in object stores, through fsspec: paths, file://, s3://, gs://."""

import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

import fsspec
from fsspec.implementations.local import LocalFileSystem

from export.errors import ExportError

_PROTOCOL = re.compile(r"[a-z][a-z0-9+.-]*://")


def local_path(address: str) -> Path | None:
    """The path that an address names; None if it is that of an object store."""
    if address.startswith("file://") or not _PROTOCOL.match(address):
        return Path(address.removeprefix("file://"))
    return None


@dataclass(frozen=True)
class Location:
    """A folder, there or not. Every method raises ExportError if the storage cannot be used.

    address: as people write it. path: as `filesystem` wants it.
    """

    address: str
    filesystem: fsspec.AbstractFileSystem
    path: str

    def child(self, name: str) -> "Location":
        """A folder in this one."""
        return replace(self, address=f"{self.address}/{name}", path=f"{self.path}/{name}")

    def names(self) -> set[str]:
        """Of the files and folders in it; none if it is not there."""
        with self._reported("list", self.address):
            try:
                children = self.filesystem.ls(self.path, detail=False)
            except (FileNotFoundError, NotADirectoryError):
                return set()
        return {child.rstrip("/").rpartition("/")[2] for child in children if child != self.path}

    def read(self, name: str) -> bytes:
        """The content of a file."""
        with self._reported("read", f"{self.address}/{name}"):
            content: bytes = self.filesystem.cat_file(f"{self.path}/{name}")
        return content

    def write(self, name: str, content: bytes) -> None:
        """Write or replace a file."""
        with self._reported("write", f"{self.address}/{name}"):
            self.filesystem.pipe_file(f"{self.path}/{name}", content)

    def create(self, name: str, content: bytes) -> bool:
        """Write a file unless it is there; whether this call wrote it."""
        with self._reported("create", f"{self.address}/{name}"):
            try:
                self.filesystem.pipe_file(f"{self.path}/{name}", content, mode="create")
            except FileExistsError:
                return False
        return True

    def remove(self, name: str) -> None:
        """Remove a file, which may be gone already."""
        reported = self._reported("remove", f"{self.address}/{name}")
        with reported, suppress(FileNotFoundError):
            self.filesystem.rm_file(f"{self.path}/{name}")

    @contextmanager
    def _reported(self, verb: str, address: str) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # each store's client has errors of its own
            raise ExportError(f"cannot {verb} {address}: {_reason(error)}") from error


def locate(address: str) -> Location:
    """The folder at a path or URL. Raises ExportError if nothing here can reach such an address."""
    path = local_path(address)
    if path is not None:
        return Location(str(path), LocalFileSystem(), str(path.absolute()))
    try:
        filesystem, place = fsspec.core.url_to_fs(
            address, skip_instance_cache=True, use_listings_cache=False
        )
    except Exception as error:  # ImportError, ValueError, and what the store's client raises
        raise ExportError(f"cannot use {address}: {_reason(error)}") from error
    return Location(address.rstrip("/"), filesystem, place.rstrip("/"))


def _reason(error: Exception) -> str:
    if isinstance(error, ImportError):
        return f"{error}; the extras of this package are s3 and gs"
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return text.strip().partition("\n")[0] or type(error).__name__
