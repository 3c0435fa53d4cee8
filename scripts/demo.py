"""The whole path on real data: fit, export, serve, call. `make demo` runs it.

Leaves a run in runs/, a model version in models/ and three pictures in out/. Ends with an error as
soon as a step does not do what it should.
"""

import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from scripts.launch import running_service
from training.config import DataConfig
from training.data import Dataset, load_dataset
from training.pictures import latent_space, reconstructions, samples
from vae_client import VaeClient

PRESET = "digits"
MODEL = "digits"
SEED = 7
OUT = Path("out")
REPOSITORY = Path("models")


def main() -> int:
    """Runs every step; returns 0 if all of them did what they should."""
    started = time.monotonic()
    step(f"1. fit {PRESET} on scikit-learn's handwritten digits")
    run = Path("runs") / f"demo-{time.strftime('%Y%m%d-%H%M%S')}"
    module("training", "fit", PRESET, "--out", str(run))
    step("2. export to ONNX")
    module("export", str(run), "--repository", str(REPOSITORY), "--name", MODEL)
    step("3. serve")
    with running_service(REPOSITORY, echo=say) as service:
        say("health: SERVING")
        step("4. call")
        dataset = load_dataset(DataConfig("digits"))
        with VaeClient(service.target) as client:
            call(client, dataset)
        step("5. metrics")
        print_metrics(service.scrape())
        step("6. stop with SIGTERM")
        check(service.stop() == 0, "the service drained and ended with 0")
    print(f"\ndone in {time.monotonic() - started:.0f} s")
    print(f"pictures: {', '.join(str(path) for path in sorted(OUT.glob('*.png')))}")
    print("`make serve` serves the model on port 8500; README.md says how to call it")
    return 0


def step(title: str) -> None:
    """Says what comes next."""
    print(f"\n== {title}", flush=True)


def say(line: str) -> None:
    """Prints a line of a step."""
    print(f"   {line}", flush=True)


def check(holds: bool, claim: str) -> None:
    """Says what holds; ends the demo where it does not."""
    if not holds:
        raise SystemExit(f"error: this should hold and does not: {claim}")
    say(claim)


def module(name: str, *arguments: str) -> None:
    """Runs python -m name as a process of its own."""
    code = subprocess.run([sys.executable, "-m", name, *arguments], check=False).returncode
    if code:
        raise SystemExit(f"error: python -m {name} ended with {code}")


def call(client: VaeClient, dataset: Dataset) -> None:
    """Sample, Encode and Decode, checked and drawn."""
    model = client.model(MODEL)
    say(f"{model.name} on {model.execution_provider}")
    drawn = client.sample(MODEL, 64, seed=SEED)
    again = client.sample(MODEL, 64, seed=SEED)
    rest = client.sample(MODEL, 32, seed=SEED, start_index=32)
    check(np.array_equal(drawn.observations, again.observations), "Sample: same seed, same samples")
    check(
        np.allclose(drawn.observations[32:], rest.observations, atol=1e-5),
        "Sample: items 32 to 63 are the same when they are asked for alone",
    )
    observations = dataset.observations("test")
    posterior = client.encode(MODEL, observations)
    decoded = client.decode(MODEL, posterior.mean, latent_space=posterior.latent_space)
    error = rmse(observations - decoded.observations)
    baseline = rmse(observations - dataset.observations("train").mean(0))
    check(
        error < 0.7 * baseline,
        f"Decode(Encode(x)): RMSE {error:.3f} per pixel over {len(observations)} test items; "
        f"the mean image, which knows nothing of x, gives {baseline:.3f}",
    )
    OUT.mkdir(exist_ok=True)
    for name, picture in {
        "samples.png": samples(drawn.observations),
        "reconstructions.png": reconstructions(observations[:16], decoded.observations[:16]),
        "latent_space.png": latent_space(posterior.mean, dataset.test_labels),
    }.items():
        (OUT / name).write_bytes(picture)
        say(f"wrote {OUT / name}")


def rmse(differences: NDArray[np.float32]) -> float:
    """Root of the mean square."""
    return float(np.sqrt(np.square(differences).mean()))


def print_metrics(scrape: str) -> None:
    """The request and batch counters of a scrape."""
    names = ("vae_requests_total{", "vae_batch_items_count{", "vae_batch_items_sum{")
    counters = [line for line in scrape.splitlines() if line.startswith(names)]
    for line in counters:
        say(line)
    served = [line for line in counters if "VaeService" in line and 'code="OK"' in line]
    check(len(served) == 3, "Sample, Encode and Decode are counted")


if __name__ == "__main__":
    sys.exit(main())
