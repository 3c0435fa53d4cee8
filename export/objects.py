"""Publishing in an object store, which has no rename, no locks and no folders.

A version is there when its manifest.json is, which is written last. Before anything else its
exporter claims the number with an object NAME/.claims/VERSION, which the store creates only if it
is not there (If-None-Match). A claim is removed when its version is there. One that is older than a
day is that of an exporter that died: exporters give up long before.
"""

import json
import secrets
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress

from export.errors import ExportError
from export.publish import check_name, next_version
from export.storage import Location

MANIFEST = "manifest.json"
_CLAIMS = ".claims"
_LONGEST_SECONDS = 3600.0
_DEAD_AFTER_SECONDS = 24 * 3600.0
Clock = Callable[[], float]


def publish_objects(
    repository: Location,
    name: str,
    files: Mapping[str, bytes],
    manifest: Callable[[int], bytes],
    clock: Clock = time.time,
) -> Location:
    """As `export.publish.publish`, in an object store; returns the version's location.

    Raises ExportError too if the store creates an object that exists, because two exporters could
    then take one version, and if it took more than an hour. `clock` gives seconds since 1970.
    """
    check_name(name)
    model = repository.child(name)
    started = clock()
    _remove_leftovers(model, started)
    version = _claim(model, started)
    target = model.child(str(version))
    try:
        for file, content in files.items():
            target.write(file, content)
        description = manifest(version)
        if clock() - started > _LONGEST_SECONDS:
            raise ExportError(f"publishing {target.address} took more than an hour")
        # It may be ours: a client repeats a request whose answer was lost.
        if not target.create(MANIFEST, description) and target.read(MANIFEST) != description:
            raise ExportError(f"somebody else wrote {target.address}/{MANIFEST}")
    except BaseException:
        with suppress(ExportError):  # what can be removed; the next exporter removes the rest
            _remove_version(target, (*files, MANIFEST))
            _release(model, version)
        raise
    with suppress(ExportError):  # the version is there; the next exporter removes the claim
        _release(model, version)
    return target


def _claim(model: Location, now: float) -> int:
    """Take the next free version."""
    claims = model.child(_CLAIMS)
    content = json.dumps({"exporter": secrets.token_hex(8), "time": now}).encode()
    while True:
        version = next_version(model.address, model.names() | claims.names())
        if not claims.create(str(version), content):
            continue
        if claims.create(str(version), content):
            _release(model, version)
            raise ExportError(
                f"cannot publish in {model.address}: the store does not refuse to create an object "
                "that exists, so two exporters could take one version"
            )
        if not model.child(str(version)).names():
            return version
        _release(model, version)  # another one claimed, published and released it meanwhile


def _release(model: Location, version: int) -> None:
    model.child(_CLAIMS).remove(str(version))


def _remove_leftovers(model: Location, now: float) -> None:
    """Remove what exporters left that died, files before the claim."""
    claims = model.child(_CLAIMS)
    for version in claims.names():
        with suppress(ExportError, ValueError, KeyError):  # gone meanwhile, or no claim of ours
            if now - float(json.loads(claims.read(version))["time"]) > _DEAD_AFTER_SECONDS:
                target = model.child(version)
                files = target.names()
                if MANIFEST not in files:
                    _remove_version(target, files)
                claims.remove(version)


def _remove_version(target: Location, files: Iterable[str]) -> None:
    """The manifest first, so that nobody reads what is left."""
    for file in sorted(files, key=lambda file: file != MANIFEST):
        target.remove(file)
