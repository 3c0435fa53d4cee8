"""Images a second on a GPU with CUDA graphs and without: `python -m benchmarks training-cuda`.

Networks and settings are those of presets; the images are random ones of MNIST's size, because on a
GPU what they show does not change how fast a fit is (on a CPU it does: see training_speed).
"""

import json
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from benchmarks.errors import BenchmarkError
from benchmarks.machine import describe_commit, describe_machine, installed
from training.config import FitConfig
from training.data import Dataset
from training.fit import fit
from training.presets import presets
from training.progress import Standing

PRESETS = ("mnist-mlp-full", "mnist-iwae50", "mnist-ladder-full")
_SECONDS = 2.5
_ITEMS = 60_000


def measure(folder: Path, say: Callable[[str], None]) -> Path:
    """Says a table and writes FOLDER/DATE-training-cuda.json. Raises BenchmarkError."""
    if not torch.cuda.is_available():
        raise BenchmarkError("this machine has no CUDA device to fit on")
    random = np.random.default_rng(0)
    images = random.integers(0, 2, (_ITEMS, 1, 28, 28), np.uint8) * np.uint8(255)
    labels = np.zeros(_ITEMS, np.int64)
    dataset = Dataset("random", images, images[:100], labels, labels[:100], maximum=255)
    rows = []
    say("| preset | precision | images/s | without CUDA graphs | ratio |\n" + "| --- " * 5 + "|")
    for name in PRESETS:
        preset = presets()[name].config
        for precision in ("float32", "bfloat16"):
            config = replace(preset, precision=precision, epochs=10_000, evaluate_every=10_000)
            graphs, eager = (
                images_per_second(replace(config, cuda_graphs=on), dataset, _SECONDS)
                for on in (True, False)
            )
            rows.append({"preset": name, "precision": precision, "graphs": graphs, "eager": eager})
            ratio = graphs / eager
            say(f"| {name} | {precision} | {graphs:,.0f} | {eager:,.0f} | {ratio:.2f} |")
    document = {
        "gpu": torch.cuda.get_device_name(),
        "machine": describe_machine(),
        "versions": installed(("torch",)),
        "git": describe_commit(),
        "rows": rows,
    }
    path = folder / f"{time.strftime('%Y-%m-%d')}-training-cuda.json"
    path.write_text(json.dumps(document, indent=1) + "\n")
    return path


def images_per_second(config: FitConfig, dataset: Dataset, seconds: float) -> float:
    """Of a fit that is stopped after so many seconds, over the second half of its steps."""
    seen: list[tuple[float, int]] = []

    def watch(standing: Standing) -> None:
        seen.append((time.perf_counter(), standing.step))

    with suppress(KeyboardInterrupt):  # there is no directory to save to
        fit(config, dataset, minutes=seconds / 60, watch=watch)
    (began, first), (ended, last) = seen[len(seen) // 2], seen[-1]
    return (last - first) * config.batch_size / (ended - began)
