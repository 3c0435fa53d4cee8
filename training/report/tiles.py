"""Observations side by side as a PNG, one pixel of data as a square of pixels."""

import io

import matplotlib.image
import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from training.report.page import Picture

_TILE = 56
_GAP = 4
_WIDTH = 860


def columns(observation_shape: tuple[int, int, int], wanted: int = 16) -> int:
    """How many observations (C, H, W) fit beside each other, at most `wanted`."""
    return max(1, min(wanted, _WIDTH // (_scale(observation_shape) * observation_shape[2] + _GAP)))


def strip(observations: Tensor, alt: str, limits: tuple[float, float] = (0.0, 1.0)) -> Picture:
    """[N, C, H, W] in a row; `limits` are black and white. C is 1, or 3 for colours.

    Of another number of channels the mean is shown.
    """
    low, high = limits
    scaled = ((observations.float().cpu() - low) / (high - low)).clamp(0, 1).numpy()
    if scaled.shape[1] not in (1, 3):
        scaled = scaled.mean(1, keepdims=True)
    scale = _scale((1, *scaled.shape[2:]))
    pixels = scaled.repeat(scale, 2).repeat(scale, 3).transpose(0, 2, 3, 1)
    pixels = np.broadcast_to(pixels, (*pixels.shape[:3], 3))
    framed = np.pad(pixels, ((0, 0), (0, 0), (0, _GAP), (0, 0)), constant_values=1)
    row = np.concatenate(list(framed), 1)
    return Picture(png(row), alt, row.shape[1], "image/png")


def png(pixels: NDArray[np.float32]) -> bytes:
    """[H, W, 3] in [0, 1] as a PNG file."""
    buffer = io.BytesIO()
    matplotlib.image.imsave(buffer, np.round(pixels * 255).astype(np.uint8), format="png")
    return buffer.getvalue()


def _scale(observation_shape: tuple[int, int, int]) -> int:
    return max(1, _TILE // max(observation_shape[1:]))
