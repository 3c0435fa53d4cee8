"""Exporters that end at once, as a power cut ends them. A program of its own: it forks.

    python killed_exporters.py FOLDER

Publishes in FOLDER/OPERATION-CALL-before and -after for each call of each operation that changes
the disk, in a process that ends right before or after that call. Version 1 is there already.
"""

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from export.publish import publish
from tests.export.publications import FILES, manifest

OPERATIONS = ("mkdir", "rename", "fsync", "unlink", "rmdir")


def main(folder: Path) -> None:
    for operation in OPERATIONS:
        for moment in ("before", "after"):
            call = 1
            while killed(folder / f"{operation}-{call}-{moment}", operation, call, moment):
                call += 1


def killed(repository: Path, operation: str, call: int, moment: str) -> bool:
    """Whether there was such a call."""
    publish(repository, "digits", FILES, manifest)
    child = os.fork()
    if child == 0:
        setattr(os, operation, ending(getattr(os, operation), call, moment))
        publish(repository, "digits", FILES, manifest)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7


def ending(real: Callable[..., Any], call: int, moment: str) -> Callable[..., Any]:
    """The real function, but for one call with which the process ends."""
    calls = 0

    def function(*arguments: Any, **options: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == call and moment == "before":
            os._exit(7)
        try:
            return real(*arguments, **options)
        finally:
            if calls == call:
                os._exit(7)

    return function


if __name__ == "__main__":
    main(Path(sys.argv[1]))
