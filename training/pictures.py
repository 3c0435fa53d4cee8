"""The pictures of a model, as PNG files: samples, reconstructions and the latent space.

Plain arrays come in, so that a served model's answers are drawn by the same code.
"""

import io

import numpy as np
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray

from training.data import Dataset
from training.evaluate import Items, posteriors
from training.model import Model

Float32 = NDArray[np.float32]
_SEED = 20131220
_SAMPLES = 64
_PAIRS = 16
_POINTS = 2000


@torch.no_grad()
def draw_pictures(model: Model, dataset: Dataset) -> dict[str, bytes]:
    """The three pictures of a model on the test split, by file name."""
    generator = torch.Generator().manual_seed(_SEED)
    noise = torch.randn(_SAMPLES, *model.noise_shape, generator=generator)
    asked = None if model.label_count is None else torch.arange(_SAMPLES) % model.label_count
    observations = torch.from_numpy(dataset.observations("test")[:_POINTS])
    labels = torch.from_numpy(dataset.test_labels[:_POINTS])
    label = None if model.label_count is None else labels
    means, _ = posteriors(model, Items(observations, labels))
    pairs = observations[:_PAIRS]
    few = None if label is None else label[:_PAIRS]
    latents, _, _ = model.encode(pairs, torch.zeros(len(pairs), *model.noise_shape), few)
    decoded = model.decode(latents, few)
    return {
        "samples.png": samples(model.decode(model.sample_prior(noise, asked), asked).numpy()),
        "reconstructions.png": reconstructions(pairs.numpy(), decoded.numpy()),
        "latent_space.png": latent_space(means.numpy(), dataset.test_labels[:_POINTS]),
    }


def samples(observations: Float32) -> bytes:
    """A square grid of observations [N, C, H, W] in [0, 1]."""
    columns = int(np.ceil(np.sqrt(len(observations))))
    rows = -(-len(observations) // columns)
    figure = Figure(figsize=(6, 6 * rows / columns), dpi=100)
    _tile(figure, observations, rows, columns, top=0.99)
    return _png(figure)


def reconstructions(observations: Float32, reconstructed: Float32) -> bytes:
    """Observations [N, C, H, W] in [0, 1] above their reconstructions of the same shape."""
    figure = Figure(figsize=(10, 10 * 2.5 / len(observations)), dpi=100)
    _tile(figure, np.concatenate([observations, reconstructed]), 2, len(observations), top=0.84)
    figure.suptitle("observations (top) and their reconstructions", fontsize=9, y=0.98)
    return _png(figure)


def latent_space(means: Float32, labels: NDArray[np.int64]) -> bytes:
    """Posterior means [N, L], coloured by label [N].

    Two latents are drawn as they are, more by their first two principal components, for which it
    takes more than two items.
    """
    if min(means.shape) > 2:
        centred = means - means.mean(0)
        _, scales, axes = np.linalg.svd(centred, full_matrices=False)
        points = centred @ axes[:2].T
        shares = np.square(scales) / max(np.square(scales).sum(), np.finfo(np.float32).tiny)
        names = [f"principal component {i + 1} ({shares[i]:.0%} of variance)" for i in range(2)]
    else:
        points = np.pad(means, ((0, 0), (0, max(0, 2 - means.shape[1]))))
        names = ["latent 1", "latent 2"]
    figure = Figure(figsize=(7, 6), dpi=100, layout="constrained")
    axis = figure.add_subplot()
    for label in np.unique(labels):
        chosen = labels == label
        axis.scatter(points[chosen, 0], points[chosen, 1], s=12, alpha=0.8, label=str(label))
    axis.set(xlabel=names[0], ylabel=names[1], title="posterior means of the test split")
    axis.legend(title="label", loc="center left", bbox_to_anchor=(1, 0.5))
    return _png(figure)


def _tile(figure: Figure, observations: Float32, rows: int, columns: int, top: float) -> None:
    edges = {"left": 0.01, "right": 0.99, "bottom": 0.01, "top": top}
    spaces = {"wspace": 0.06, "hspace": 0.06}
    grid = figure.subplots(rows, columns, squeeze=False, gridspec_kw=edges | spaces)
    for axis in grid.flat:
        axis.axis("off")
    for axis, observation in zip(grid.flat, observations, strict=False):
        pixels = observation.transpose(1, 2, 0)
        axis.imshow(pixels, cmap="gray", vmin=0, vmax=1, interpolation="nearest")


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    FigureCanvasAgg(figure).print_png(buffer)  # type: ignore[no-untyped-call]
    return buffer.getvalue()
