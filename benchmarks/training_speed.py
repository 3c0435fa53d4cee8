"""Images a second of a fit, beside pythae: `python -m benchmarks training-speed`.

Both fit the same networks with Adam on black and white images of MNIST's size, those of data set
digits made larger, on the CPU with all its cores, in turn: `mlp` and `conv` are the networks of
presets mnist-mlp and mnist-conv, which pythae gets as an encoder and a decoder of the user's;
`wide` has dense layers 784-512-32, which is pythae's own network and ours with settings. As the
images have no grey, neither draws pixels. Ours is measured in bfloat16, too, which pythae cannot
compute in on a CPU. pythae gets an environment of its own, where torch has the same version.
"""

import json
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.errors import BenchmarkError
from training.config import DataConfig
from training.data import load_dataset

PYTHAE = "pythae==0.1.2"
_FOLDER = Path(__file__).parent / ".peers" / "pythae"
_RESULTS = Path(__file__).parent / "results"
_ROUNDS = 3


@dataclass(frozen=True)
class _Network:
    """preset and settings: ours. peer: pythae's model, an expression of `_PEER`."""

    preset: str
    settings: tuple[str, ...]
    batch_size: int
    items: int
    peer: str
    latents: int = 32


_NETWORKS: Mapping[str, _Network] = {
    "mlp": _Network(
        "mnist-mlp", (), 128, 60_000, "VAE(config, DenseEncoder(), DenseDecoder())", 50
    ),
    "wide": _Network(
        "mnist-mlp",
        ("model.hidden_sizes=512", "model.latent_size=32", "model.activation=relu"),
        128,
        60_000,
        "VAE(config)",
    ),
    "conv": _Network("mnist-conv", (), 100, 36_000, "VAE(config, Encoder(), Decoder())"),
}
_PRECISIONS = ("float32", "bfloat16")
_EPOCHS = 2

# What pythae is run with: images/s over the epochs after the first.
_PEER = """
import sys, time, numpy as np, tempfile
import torch
from torch import nn
from pythae.models import VAE, VAEConfig
from pythae.models.base.base_utils import ModelOutput
from pythae.models.nn import BaseDecoder, BaseEncoder
from pythae.trainers import BaseTrainer, BaseTrainerConfig
from pythae.data.datasets import BaseDataset
path, expression = sys.argv[1], sys.argv[2]
epochs, batch_size, latents = map(int, sys.argv[3:])
class Encoder(BaseEncoder):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(1, 32, 4, 2, 1), nn.SiLU(), nn.Conv2d(32, 64, 4, 2, 1), nn.SiLU(),
            nn.Flatten(), nn.Linear(3136, 256), nn.SiLU())
        self.mean, self.log_variance = nn.Linear(256, 32), nn.Linear(256, 32)
    def forward(self, x):
        h = self.body(x)
        return ModelOutput(embedding=self.mean(h), log_covariance=self.log_variance(h))
class Decoder(BaseDecoder):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(
            nn.Linear(32, 256), nn.SiLU(), nn.Linear(256, 3136), nn.Unflatten(1, (64, 7, 7)),
            nn.SiLU(), nn.ConvTranspose2d(64, 32, 4, 2, 1), nn.SiLU(),
            nn.ConvTranspose2d(32, 1, 4, 2, 1), nn.Sigmoid())
    def forward(self, z):
        return ModelOutput(reconstruction=self.body(z))
class DenseEncoder(BaseEncoder):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(
            nn.Flatten(), nn.Linear(784, 200), nn.Tanh(), nn.Linear(200, 200), nn.Tanh())
        self.mean, self.log_variance = nn.Linear(200, latents), nn.Linear(200, latents)
    def forward(self, x):
        h = self.body(x)
        return ModelOutput(embedding=self.mean(h), log_covariance=self.log_variance(h))
class DenseDecoder(BaseDecoder):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(
            nn.Linear(latents, 200), nn.Tanh(), nn.Linear(200, 200), nn.Tanh(),
            nn.Linear(200, 784), nn.Sigmoid(), nn.Unflatten(1, (1, 28, 28)))
    def forward(self, z):
        return ModelOutput(reconstruction=self.body(z))
images = torch.from_numpy(np.load(path)["train_images"][:, None].astype("float32") / 255)
data = BaseDataset(images, torch.zeros(len(images)))
config = VAEConfig(input_dim=(1, 28, 28), latent_dim=latents, reconstruction_loss="bce")
def seconds(epochs):
    training = BaseTrainerConfig(
        output_dir=tempfile.mkdtemp(), num_epochs=epochs, learning_rate=1e-3,
        per_device_train_batch_size=batch_size, per_device_eval_batch_size=batch_size,
        no_cuda=True, steps_saving=None)
    trainer = BaseTrainer(eval(expression), train_dataset=data, training_config=training)
    started = time.perf_counter()
    trainer.train()
    return time.perf_counter() - started
print("RATE", len(images) * epochs / (seconds(1 + epochs) - seconds(1)))
"""


def measure(say: Callable[[str], None]) -> Path:
    """Says the rates and writes DATE-training-speed.json. Raises BenchmarkError."""
    python = _install()
    networks = {}
    with tempfile.TemporaryDirectory() as name:
        for title, network in _NETWORKS.items():
            folder = Path(name) / title
            folder.mkdir()
            _write_images(folder, network.items)
            networks[title] = _measure(title, network, folder, python, say)
    document = {
        "machine": f"{platform.processor() or platform.machine()}, CPU",
        "pythae": PYTHAE,
        "networks": networks,
    }
    path = _RESULTS / f"{time.strftime('%Y-%m-%d')}-training-speed.json"
    path.write_text(json.dumps(document, indent=1) + "\n")
    return path


def _measure(
    title: str, network: _Network, folder: Path, python: Path, say: Callable[[str], None]
) -> dict[str, dict[str, list[float]]]:
    """images_per_second and ratios, by precision, of each round."""
    rates: dict[str, list[float]] = {who: [] for who in (*_PRECISIONS, "pythae")}
    for number in range(_ROUNDS):
        for precision in _PRECISIONS:
            rates[precision].append(_ours(network, folder, f"{precision}{number}", precision))
        rates["pythae"].append(_theirs(network, folder, python))
        text = ", ".join(f"{who} {all_of[-1]:,.0f}" for who, all_of in rates.items())
        say(f"{title}: {text} images/s")
    ratios = {
        precision: [
            ours / theirs for ours, theirs in zip(rates[precision], rates["pythae"], strict=True)
        ]
        for precision in _PRECISIONS
    }
    for precision, of in ratios.items():
        median, least, most = statistics.median(of), min(of), max(of)
        say(f"{title}, {precision}: {median:.2f} times pythae ({least:.2f}-{most:.2f})")
    return {"images_per_second": rates, "ratios": ratios}


def _write_images(folder: Path, items: int) -> None:
    # Images with something in them: of noise nothing can be learned, and a fit that stands still
    # has gradients so small that both are slow with them.
    digits = load_dataset(DataConfig("digits")).train[:, 0]
    rows = np.arange(28) * 8 // 28
    large = (digits > digits.max() // 2)[:, rows][:, :, rows].astype(np.uint8) * 255
    images = np.resize(large, (items, 28, 28))
    labels = np.zeros(items, np.int64)
    np.savez(
        folder / "images.npz",
        train_images=images,
        train_labels=labels,
        test_images=images[:1000],
        test_labels=labels[:1000],
    )


def _ours(network: _Network, folder: Path, label: str, precision: str) -> float:
    run = folder / label
    command = [sys.executable, "-m", "training", "fit", network.preset, "--out", str(run)]
    settings = ["data.name=arrays", f"data.path={folder / 'images.npz'}", *network.settings]
    settings += [f"batch_size={network.batch_size}", f"precision={precision}"]
    settings += [f"epochs={1 + _EPOCHS}", f"evaluate_every={1 + _EPOCHS}", "optimizer.ema_decay=0"]
    for setting in settings:
        command += ["--set", setting]
    _call(command)
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return float(statistics.mean(line["images_per_second"] for line in lines[1:]))


def _theirs(network: _Network, folder: Path, python: Path) -> float:
    numbers = map(str, (_EPOCHS, network.batch_size, network.latents))
    arguments = [str(folder / "images.npz"), network.peer, *numbers]
    output = _call([str(python), "-c", _PEER, *arguments])
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
