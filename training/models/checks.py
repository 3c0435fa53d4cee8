"""What the settings of every family have to fulfil."""

import math

from training.errors import require
from training.likelihoods import GaussianStd


def check_sizes(
    latent_size: int,
    hidden_sizes: tuple[int, ...],
    gaussian_std: GaussianStd = "learned",
    channels: tuple[int, ...] = (),
) -> None:
    """Raise TrainingError for a size below 1 or a standard deviation that is none."""
    require(latent_size >= 1, "model.latent_size must be at least 1")
    require(min(hidden_sizes, default=1) >= 1, "model.hidden_sizes must be at least 1")
    require(min(channels, default=1) >= 1, "model.channels must be at least 1")
    require(
        isinstance(gaussian_std, str) or 0 < gaussian_std < math.inf,
        "model.gaussian_std must be positive and finite",
    )
