"""The GPU as nvidia-smi sees it, which comes with every driver: name, memory, share of time in use.

"busy" is the driver's own measure: percent of the time since its last sample (a sixth of a second
to a second) in which a kernel ran, however little of the GPU that kernel used.
"""

import contextlib
import statistics
import subprocess
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from benchmarks.errors import BenchmarkError

_COMMAND = (
    "nvidia-smi",
    "--query-gpu=name,driver_version,memory.total,memory.used,utilization.gpu",
    "--format=csv,noheader,nounits",
    "--id=0",
)
_EVERY_MS = 100


@dataclass(frozen=True)
class Reading:
    """What the first GPU was, and did, at one moment. Memory of all processes, in MiB."""

    name: str
    driver: str
    total_mib: float
    used_mib: float
    busy_percent: float


def parse(line: str) -> Reading:
    """One line of nvidia-smi. Raises BenchmarkError for another."""
    fields = [field.strip() for field in line.split(",")]
    try:
        name, driver, total, used, busy = fields
        return Reading(name, driver, float(total), float(used), float(busy))
    except ValueError as error:
        raise BenchmarkError(f"nvidia-smi said {line.strip()!r}; expected five values") from error


def read_gpu(command: Sequence[str] = _COMMAND) -> Reading:
    """The first GPU now. Raises BenchmarkError where there is none."""
    try:
        result = subprocess.run(  # noqa: S603 - the driver's own tool
            command, capture_output=True, text=True, timeout=60, check=False
        )
    except OSError as error:
        raise BenchmarkError("this machine has no NVIDIA GPU: there is no nvidia-smi") from error
    if result.returncode:
        said = (result.stdout + result.stderr).strip()
        raise BenchmarkError(f"this machine has no NVIDIA GPU to use: nvidia-smi said {said!r}")
    return parse(result.stdout)


@contextlib.contextmanager
def watched_gpu(
    command: Sequence[str] = (*_COMMAND, f"-lms={_EVERY_MS}"),
) -> Iterator[list[Reading]]:
    """Readings ten times a second, in a list that grows while the block runs."""
    readings: list[Reading] = []
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:  # noqa: S603
        assert process.stdout is not None
        lines = process.stdout

        def read() -> None:
            # One by one; the last line may be cut.
            readings.extend(parse(line) for line in lines if line.endswith("\n"))

        reader = threading.Thread(target=read)
        reader.start()
        try:
            yield readings
        finally:
            process.terminate()
            reader.join()


def busy(readings: Sequence[Reading]) -> float | None:
    """The median share of time in use, which start and end of a load do not move; in percent."""
    return statistics.median(reading.busy_percent for reading in readings) if readings else None
