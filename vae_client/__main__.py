"""`python -m vae_client models | sample --model NAME --count N --out FILE`."""

import argparse
import math
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from vae_client.channel import DEFAULT_TIMEOUT
from vae_client.client import VaeClient
from vae_client.errors import VaeError
from vae_client.messages import Observations


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns the exit code: 0, 1 if the call failed, 2 if the command line is at fault."""
    options = _parser().parse_args(arguments)
    try:
        with VaeClient(options.target, timeout=options.timeout) as client:
            if options.command == "models":
                _models(client)
            else:
                _sample(client, options)
    except VaeError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except (OSError, ImportError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m vae_client", description="Calls a VAE service."
    )
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--target", default="localhost:8500", help="default %(default)s")
    common.add_argument(
        "--timeout", type=float, default=DEFAULT_TIMEOUT, help="seconds; default %(default)s"
    )
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("models", parents=[common], help="list what is served")
    sample = commands.add_parser("sample", parents=[common], help="draw samples into a file")
    sample.add_argument("--model", required=True, help='"digits" or "models/digits/versions/2"')
    sample.add_argument("--count", type=int, default=16, help="default %(default)s")
    sample.add_argument("--seed", type=int, help="default: the service picks one")
    sample.add_argument("--temperature", type=float, help="default 1")
    sample.add_argument(
        "--labels",
        type=int,
        nargs="+",
        default=[],
        metavar="LABEL",
        help="of a conditional model: one for all samples, or one for each",
    )
    sample.add_argument(
        "--out", type=Path, required=True, metavar="FILE", help=".png for a picture, or .npy"
    )
    return parser


def _models(client: VaeClient) -> None:
    for model in client.models():
        marks = ["default"] if model.default_version else []
        elbo = model.training_metrics.get("elbo")
        marks += [] if elbo is None else [f"ELBO {elbo:.2f} nats"]
        observations, latents = list(model.observations.shape)[1:], list(model.latents.shape)[1:]
        shapes = f"observations {observations}, latents {latents}"
        shapes += f", {len(model.labels)} labels" if model.labels else ""
        shapes += f", on {model.execution_provider}"
        print(f"{model.name}  {shapes}" + (f" ({', '.join(marks)})" if marks else ""))


def _sample(client: VaeClient, options: argparse.Namespace) -> None:
    if options.out.suffix not in (".png", ".npy"):
        raise ValueError(f"--out must end in .png or .npy, not {options.out.suffix!r}")
    picture = options.out.suffix == ".png"
    drawn = client.sample(
        options.model,
        options.count,
        seed=options.seed,
        temperature=options.temperature,
        labels=options.labels,
        uint8=picture,
    )
    if picture:
        _write_picture(options.out, drawn.observations)
    else:
        np.save(options.out, drawn.observations)
    print(f"{options.count} samples of {drawn.model} with seed {drawn.seed} in {options.out}")


def _write_picture(path: Path, observations: Observations) -> None:
    """A square grid of observations [N, C, H, W] uint8, each enlarged to some 64 pixels."""
    try:
        from PIL import Image
    except ImportError:
        raise ImportError(
            "PNG needs Pillow, which the extra `images` brings; or write .npy"
        ) from None
    if observations.ndim != 4 or observations.shape[1] not in (1, 3):
        shape = observations.shape[1:]
        raise ValueError(f"observations of shape {shape} are no images; write .npy instead")
    count, channels, height, width = observations.shape
    columns = math.ceil(math.sqrt(count))
    rows = math.ceil(count / columns)
    tiles = np.zeros((rows * columns, channels, height + 1, width + 1), np.uint8)
    tiles[:count, :, :height, :width] = observations
    grid = tiles.reshape(rows, columns, channels, height + 1, width + 1)
    pixels = grid.transpose(0, 3, 1, 4, 2).reshape(rows * (height + 1), columns * (width + 1), -1)
    factor = max(1, round(64 / height))
    image = Image.fromarray(pixels.squeeze(2) if channels == 1 else pixels)
    image.resize((image.width * factor, image.height * factor), Image.Resampling.NEAREST).save(path)


if __name__ == "__main__":
    sys.exit(main())
