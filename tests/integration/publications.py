"""Further versions of an exported model: the same graphs under another number."""

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path


def publish(
    exported: Path,
    root: Path,
    version: int,
    name: str = "digits",
    change: Callable[[Path], object] = lambda folder: None,
) -> Path:
    """Publishes version 1 of digits again, as export does: written beside, then renamed.

    change gets the folder before.
    """
    folder = root / name / str(version)
    beside = root / name / f".publishing-{version}"
    shutil.copytree(exported / "digits" / "1", beside)
    manifest = json.loads((beside / "manifest.json").read_text())
    manifest["name"], manifest["version"] = name, version
    (beside / "manifest.json").write_text(json.dumps(manifest))
    change(beside)
    return beside.rename(folder)


def replace_graph(folder: Path, file: str, content: bytes) -> None:
    """Puts other bytes in a file of a version, and their digest in its manifest."""
    (folder / file).write_bytes(content)
    manifest = json.loads((folder / "manifest.json").read_text())
    for graph in manifest["graphs"]:
        if graph["file"] == file:
            graph["sha256"] = hashlib.sha256(content).hexdigest()
    (folder / "manifest.json").write_text(json.dumps(manifest))
