"""A model repository in an object store (s3://, gs://), through fsspec, with a local cache.

A version is downloaded beside its place in the cache, verified there, and renamed:

    CACHE/SHA-256 of manifest.json/NAME/VERSION/

So what the cache holds is whole, whoever was killed meanwhile, and processes can share it. What
none of them has used for a day leaves it, renamed before it is removed; each marks what it uses by
its time of change.
"""

import contextlib
import fcntl
import hashlib
import json
import os
import re
import secrets
import shutil
import time
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from service.model_settings import SETTINGS_FILE
from service.repository import MANIFEST_FILE, NAME, VERSION, RepositoryError, read_version
from service.sources import Listed

_PARTIAL: Final = ".partial-"
_OURS: Final = re.compile(r"[0-9a-f]{64}|\.partial-.*")
_UNUSED_SECONDS: Final = 24 * 3600.0
# What changes when an object does, by the names that stores have for it.
_CHANGES: Final = ("ETag", "etag", "md5Hash", "LastModified", "updated", "mtime")


class ObjectSource:
    """See `service.sources.Source`."""

    def __init__(self, address: str, cache: Path) -> None:
        """address: as fsspec has them, for example "s3://bucket/prefix".

        Raises RepositoryError if its file system cannot be had, or the cache cannot be written.
        """
        self.place = address.rstrip("/")
        self._cache = cache
        try:
            import fsspec  # not in the extra `service`: who has a directory does without

            self._files, root = fsspec.core.url_to_fs(
                self.place, skip_instance_cache=True, use_listings_cache=False
            )
        except (ImportError, ValueError) as error:
            raise RepositoryError(
                f"{address} needs another file system: install the extra vae-serving[s3] for "
                f"s3://, vae-serving[gs] for gs:// ({error})"
            ) from error
        self._root = str(root).rstrip("/")
        self._served = False
        try:
            cache.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise RepositoryError(f"{cache} cannot hold the cache: {error}") from error

    def list(self) -> Mapping[str, Listed]:
        """The models under the address, all in one listing.

        An address without any object while something of it is served cannot be read either: a rule
        of the store, or a command with the wrong prefix, has emptied it.
        """
        try:
            found = self._files.find(self._root, detail=True)
        except Exception as error:  # stores have no class of errors in common
            raise RepositoryError(f"{self.place} cannot be listed: {error}") from error
        if self._served and not found:
            raise RepositoryError(f"{self.place} is empty, which it was not")
        files: dict[str, dict[int, dict[str, str]]] = {}
        for path, details in found.items():
            parts = str(path).removeprefix(self._root).strip("/").split("/")
            if len(parts) == 3 and NAME.fullmatch(parts[0]) and VERSION.fullmatch(parts[1]):
                versions = files.setdefault(parts[0], {})
                versions.setdefault(int(parts[1]), {})[parts[2]] = _fingerprint(details)
        return {
            name: Listed(there, self._settings(name, found))
            for name, versions in files.items()
            if (
                there := {
                    version: json.dumps(held, sort_keys=True)
                    for version, held in versions.items()
                    if MANIFEST_FILE in held
                }
            )
        }

    def fetch(self, name: str, version: int) -> Path:
        """A directory of the cache, with the version downloaded and verified."""
        manifest = self._read(f"{name}/{version}/{MANIFEST_FILE}")
        root = self._cache / hashlib.sha256(manifest).hexdigest()
        with self._locked():
            there = (root / name / str(version)).is_dir()
            if there:
                _mark(root)
        if not there:
            self._download(name, version, manifest, root)
        return root

    def keep(self, digests: Collection[str]) -> None:
        """Removes what nobody has used for a day, and what killed downloads and removals left."""
        self._served = bool(digests)
        unused: list[Path] = []
        with contextlib.suppress(OSError), self._locked():
            for digest in digests:
                _mark(self._cache / digest)
            for path in self._cache.iterdir():
                if not _OURS.fullmatch(path.name):
                    continue
                if time.time() - path.stat().st_mtime > _UNUSED_SECONDS:
                    unused.append(self._partial())
                    path.rename(unused[-1])
        for path in unused:
            shutil.rmtree(path, ignore_errors=True)

    def _download(self, name: str, version: int, manifest: bytes, root: Path) -> None:
        partial = self._partial()
        folder = partial / name / str(version)
        try:
            folder.mkdir(parents=True)
            for file in _files_of(manifest, f"{self.place}/{name}/{version}"):
                (folder / file).write_bytes(self._read(f"{name}/{version}/{file}"))
            (folder / MANIFEST_FILE).write_bytes(manifest)
            read_version(partial, name, version)
            try:
                partial.rename(root)
            except OSError:
                if not (root / name / str(version)).is_dir():  # else another process was faster
                    raise
        except OSError as error:
            raise RepositoryError(f"{self._cache} cannot hold a version: {error}") from error
        except RepositoryError as error:
            text = str(error).replace(str(partial), self.place)
            raise RepositoryError(text) from error
        finally:
            shutil.rmtree(partial, ignore_errors=True)

    def _settings(self, name: str, found: Mapping[str, Any]) -> bytes:
        path = f"{name}/{SETTINGS_FILE}"
        return self._read(path) if f"{self._root}/{path}" in found else b""

    def _read(self, path: str) -> bytes:
        try:
            content: bytes = self._files.cat_file(f"{self._root}/{path}")
        except Exception as error:  # stores have no class of errors in common
            raise RepositoryError(f"{self.place}/{path} cannot be read: {error}") from error
        return content

    def _partial(self) -> Path:
        return self._cache / f"{_PARTIAL}{secrets.token_hex(8)}"

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        """No other process marks or removes anything in the cache meanwhile."""
        descriptor = os.open(self._cache, os.O_RDONLY)
        try:
            with contextlib.suppress(OSError):  # a file system without locks
                fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)


def _mark(root: Path) -> None:
    """Somebody uses it."""
    with contextlib.suppress(OSError):  # it is another user's, or has been removed by hand
        os.utime(root)


def _fingerprint(details: Mapping[str, Any]) -> str:
    return ":".join(str(details.get(key, "")) for key in ("size", *_CHANGES))


def _files_of(manifest: bytes, place: str) -> list[str]:
    """The files that a manifest names, each a name without a folder."""
    try:
        files = {str(graph["file"]) for graph in json.loads(manifest)["graphs"]}
    except (ValueError, KeyError, TypeError) as error:
        raise RepositoryError(f"{place}/{MANIFEST_FILE} names no graphs") from error
    for file in files:
        if os.path.basename(file) != file or file in ("", ".", "..", MANIFEST_FILE) or "\0" in file:
            raise RepositoryError(f"{place}/{file} leads out of the version")
    return sorted(files)
