"""Draws from a linear-Gaussian model: a set whose log-likelihood is known exactly."""

import numpy as np
from numpy.typing import NDArray

from training.data.dataset import Dataset
from training.data.density import LinearGaussian

SIDE = 4
STD = 0.5
# Norms of the columns of W. They are orthogonal, so the exact posterior is a diagonal Gaussian and
# a VAE with these latents, or more, can close the gap between ELBO and log-likelihood.
COLUMN_NORMS = (4.0, 3.0, 2.0, 1.0)
TRAIN_SIZE = 50_000
TEST_SIZE = 10_000


def load_linear_gaussian(seed: int) -> Dataset:
    """50000 and 10000 draws of [1, 4, 4] float32, with the density that they come from.

    The seed decides weight, bias, latents and noise. The set has no labels.
    """
    generator = np.random.default_rng(seed)
    dims, latent_size = SIDE * SIDE, len(COLUMN_NORMS)
    basis, _ = np.linalg.qr(generator.standard_normal((dims, latent_size)))
    density = LinearGaussian(basis * np.array(COLUMN_NORMS), generator.standard_normal(dims), STD)
    train = _draw(density, TRAIN_SIZE, generator)
    test = _draw(density, TEST_SIZE, generator)
    return Dataset(
        "linear-gaussian",
        train,
        test,
        np.zeros(len(train), np.int64),
        np.zeros(len(test), np.int64),
        maximum=None,
        density=density,
    )


def _draw(
    density: LinearGaussian, count: int, generator: np.random.Generator
) -> NDArray[np.float32]:
    dims, latent_size = density.weight.shape
    latents = generator.standard_normal((count, latent_size))
    noise = generator.standard_normal((count, dims))
    draws = latents @ density.weight.T + density.bias + density.std * noise
    return draws.astype(np.float32).reshape(count, 1, SIDE, SIDE)
