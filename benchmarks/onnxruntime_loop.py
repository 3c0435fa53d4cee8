"""What onnxruntime alone reaches: a loop over one batch, without a server around it.

`python -m benchmarks.onnxruntime_loop ...` prints a JSON object, items a second by batch size. The
loop gets what is best for it: inputs and outputs are bound once, so that a run copies nothing.
"""

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import onnxruntime

from benchmarks.errors import BenchmarkError

BATCHES = (1, 8, 16, 32, 64)


def measure(
    graph: Path,
    threads: int,
    seconds: float,
    batches: Sequence[int],
    spinning: bool,
    uint8: bool = False,
) -> dict[int, float]:
    """Items a second of a decoder by batch size, `seconds` each.

    `spinning`: whether onnxruntime's threads wait for work by burning CPU, its default.
    `uint8`: whether it gives observations in uint8.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", str(int(spinning)))
    session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    (latents,) = session.get_inputs()
    name = "observations_uint8" if uint8 else "observations"
    dtype = np.uint8 if uint8 else np.float32
    observations = next(one for one in session.get_outputs() if one.name == name)
    random = np.random.default_rng(0)
    rates: dict[int, float] = {}
    for batch in batches:
        values = random.standard_normal((batch, *latents.shape[1:]), dtype=np.float32)
        outputs = np.empty((batch, *observations.shape[1:]), dtype)
        binding = session.io_binding()
        binding.bind_cpu_input(latents.name, values)
        binding.bind_output(observations.name, "cpu", 0, dtype, outputs.shape, outputs.ctypes.data)
        run = partial(session.run_with_iobinding, binding)
        _rate(run, seconds / 5)
        rates[batch] = _rate(run, seconds) * batch
    return rates


def run_loop(
    graph: Path,
    threads: int,
    seconds: float,
    batches: Sequence[int] = BATCHES,
    uint8: bool = False,
) -> dict[int, float]:
    """`measure` in a process of its own; with more than one thread, the better of both ways to
    wait."""
    ways = ("0", "1") if threads > 1 else ("0",)
    results = [_run(graph, threads, seconds, batches, way, uint8) for way in ways]
    return {batch: max(result[batch] for result in results) for batch in batches}


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints one JSON object."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.onnxruntime_loop")
    parser.add_argument("--graph", type=Path, required=True, help="decoder.onnx")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=1.0, help="of each batch size")
    parser.add_argument("--batches", type=int, nargs="+", default=BATCHES)
    parser.add_argument("--spinning", type=int, choices=(0, 1), default=0)
    parser.add_argument("--uint8", action="store_true", help="observations in uint8")
    given = parser.parse_args(arguments)
    rates = measure(
        given.graph,
        given.threads,
        given.seconds,
        given.batches,
        bool(given.spinning),
        given.uint8,
    )
    sys.stdout.write(json.dumps(rates) + "\n")
    return 0


def _run(
    graph: Path,
    threads: int,
    seconds: float,
    batches: Sequence[int],
    spinning: str,
    uint8: bool,
) -> dict[int, float]:
    command = [sys.executable, "-m", "benchmarks.onnxruntime_loop", "--graph", str(graph)]
    command += ["--threads", str(threads), "--seconds", str(seconds), "--spinning", spinning]
    command += ["--batches", *map(str, batches)]
    command += ["--uint8"] if uint8 else []
    limit = 60 + 2 * seconds * len(batches)
    process = subprocess.run(  # noqa: S603 - this very module
        command, capture_output=True, text=True, timeout=limit, check=False
    )
    if process.returncode:
        raise BenchmarkError(f"the loop over onnxruntime failed: {process.stderr.strip()}")
    return {int(batch): float(rate) for batch, rate in json.loads(process.stdout).items()}


def _rate(run: Callable[[], object], seconds: float) -> float:
    """Calls a second."""
    count = 0
    started = time.perf_counter()
    while (elapsed := time.perf_counter() - started) < seconds:
        run()
        count += 1
    return count / elapsed


if __name__ == "__main__":
    sys.exit(main())
