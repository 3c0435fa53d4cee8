"""Images a second of a fit, beside pythae: `python -m benchmarks training-speed`.

Both fit a VAE of dense layers 784-512-32 with Adam and batches of 128 on random binary images of
MNIST's size, on the CPU with all its cores, in turn. pythae gets an environment of its own, where
torch has the same version.
"""

import json
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from benchmarks.errors import BenchmarkError

PYTHAE = "pythae==0.1.2"
_FOLDER = Path(__file__).parent / ".peers" / "pythae"
_RESULTS = Path(__file__).parent / "results"
_ROUNDS = 3
_ITEMS, _EPOCHS = 60_000, 2

# What pythae is run with: images/s over the epochs after the first.
_PEER = """
import sys, time, numpy as np
from pythae.models import VAE, VAEConfig
from pythae.trainers import BaseTrainer, BaseTrainerConfig
from pythae.data.datasets import BaseDataset
import torch, tempfile
images = torch.from_numpy(np.load(sys.argv[1])["train_images"][:, None].astype("float32") / 255)
data = BaseDataset(images, torch.zeros(len(images)))
def seconds(epochs):
    model = VAE(VAEConfig(input_dim=(1, 28, 28), latent_dim=32, reconstruction_loss="bce"))
    config = BaseTrainerConfig(
        output_dir=tempfile.mkdtemp(), num_epochs=epochs, learning_rate=1e-3,
        per_device_train_batch_size=128, per_device_eval_batch_size=128, no_cuda=True,
        steps_saving=None)
    trainer = BaseTrainer(model, train_dataset=data, training_config=config)
    started = time.perf_counter()
    trainer.train()
    return time.perf_counter() - started
epochs = int(sys.argv[2])
print("RATE", len(images) * epochs / (seconds(1 + epochs) - seconds(1)))
"""


def measure(say: Callable[[str], None]) -> Path:
    """Says the rates and writes DATE-training-speed.json. Raises BenchmarkError."""
    python = _install()
    rates: dict[str, list[float]] = {"training": [], "pythae": []}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        images = np.random.default_rng(0).integers(0, 2, (_ITEMS, 28, 28), np.uint8) * 255
        labels = np.zeros(_ITEMS, np.int64)
        np.savez(
            folder / "images.npz",
            train_images=images,
            train_labels=labels,
            test_images=images[:1000],
            test_labels=labels[:1000],
        )
        for number in range(_ROUNDS):
            rates["training"].append(_ours(folder, number))
            rates["pythae"].append(_theirs(python, folder))
            say(", ".join(f"{who} {all_of[-1]:,.0f} images/s" for who, all_of in rates.items()))
    ratios = [
        ours / theirs for ours, theirs in zip(rates["training"], rates["pythae"], strict=True)
    ]
    say(f"ratio {statistics.median(ratios):.2f} ({min(ratios):.2f}-{max(ratios):.2f})")
    document = {
        "model": "784-512-32, batch 128, Adam",
        "machine": f"{platform.processor() or platform.machine()}, CPU",
        "pythae": PYTHAE,
        "images_per_second": rates,
        "ratios": ratios,
    }
    path = _RESULTS / f"{time.strftime('%Y-%m-%d')}-training-speed.json"
    path.write_text(json.dumps(document, indent=1) + "\n")
    return path


def _ours(folder: Path, number: int) -> float:
    run = folder / f"run{number}"
    command = [sys.executable, "-m", "training", "fit", "mnist-mlp", "--out", str(run)]
    settings = ["data.name=arrays", f"data.path={folder / 'images.npz'}", "batch_size=128"]
    settings += ["model.hidden_sizes=512", "model.latent_size=32", "model.activation=relu"]
    settings += [f"epochs={1 + _EPOCHS}", f"evaluate_every={1 + _EPOCHS}", "optimizer.ema_decay=0"]
    for setting in settings:
        command += ["--set", setting]
    _call(command)
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return float(statistics.mean(line["images_per_second"] for line in lines[1:]))


def _theirs(python: Path, folder: Path) -> float:
    output = _call([str(python), "-c", _PEER, str(folder / "images.npz"), str(_EPOCHS)])
    return float(output.rpartition("RATE")[2])


def _install() -> Path:
    python = _FOLDER / "bin" / "python"
    if not python.exists():
        import torch

        version = torch.__version__.partition("+")[0]
        _call([sys.executable, "-m", "venv", str(_FOLDER)])
        _call([str(python), "-m", "pip", "install", "--quiet", f"torch=={version}", PYTHAE])
    return python


def _call(command: list[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
    if done.returncode:
        raise BenchmarkError((done.stderr.strip() or "no reason").splitlines()[-1])
    return done.stdout
