"""Shapes with known factors, in the manner of dSprites (Matthey et al. 2017), drawn here.

The grid is 3 shapes x 6 scales x 20 orientations x 16 columns x 16 rows: 92160 images, an eighth
of dSprites. Unlike there, orientation covers one period of each shape (a quarter turn of the
square, half a turn of the ellipse, a full turn of the heart) and the period's end is left out, so
that no two items are the same image and each factor can be read from the pixels. Edges are
anti-aliased, because 20 orientations of a small square do not differ in binary pixels; models
with a Bernoulli likelihood binarize as they do for MNIST.
"""

import math

import numpy as np
from numpy.typing import NDArray

from training.data.dataset import Dataset, Factors
from training.data.memory import require_memory
from training.data.splits import split_indices
from training.errors import TrainingError

SHAPES = ("square", "ellipse", "heart")
FACTOR_NAMES = ("shape", "scale", "orientation", "x", "y")
FACTOR_SIZES = (3, 6, 20, 16, 16)
_SIZES = (32, 64)
_PERIODS = (math.pi / 2, math.pi, 2 * math.pi)
_OVERSAMPLING = 8  # points per pixel and axis: 64 levels of gray along the edges
_SMALLEST_SCALE = 0.5


def load_shapes(image_size: int | None, seed: int) -> Dataset:
    """The whole grid, [1, 32, 32] or [1, 64, 64], split at random: a tenth is for testing.

    Labels are the shapes. Both splits are in random order. Raises TrainingError for another size.
    """
    size = 32 if image_size is None else image_size
    if size not in _SIZES:
        raise TrainingError(f"shapes are drawn with data.image_size 32 or 64, not {size}")
    count = math.prod(FACTOR_SIZES)
    require_memory(2 * count * size * size, f"drawing {count} shapes of {size}x{size} pixels")
    pixels = render_shapes(size)
    factors = np.stack(np.unravel_index(np.arange(count), FACTOR_SIZES), axis=1)
    train, test = split_indices(count, seed, "shapes")
    return Dataset(
        "shapes",
        pixels[train],
        pixels[test],
        factors[train, 0],
        factors[test, 0],
        maximum=255,
        label_names=SHAPES,
        factors=Factors(FACTOR_NAMES, FACTOR_SIZES, factors[train], factors[test]),
    )


def render_shapes(size: int) -> NDArray[np.uint8]:
    """Every item of the grid [N, 1, size, size], the last factor varying fastest.

    A shape is drawn once for each scale and orientation, then moved: neighbouring columns and rows
    are size / 32 whole pixels apart, and all positions keep the largest shape inside the frame.
    """
    step = size // 32
    window = size // 2 + step
    sprites = _render_sprites(window, size / 4)
    columns, rows = FACTOR_SIZES[3:]
    grid = np.zeros((*FACTOR_SIZES, size, size), np.uint8)
    for column in range(columns):
        for row in range(rows):
            left, top = column * step, row * step
            grid[:, :, :, column, row, top : top + window, left : left + window] = sprites
    return grid.reshape(-1, 1, size, size)


def _render_sprites(window: int, unit: float) -> NDArray[np.uint8]:
    """Shapes x scales x orientations [3, 6, 20, window, window], centered; `unit` in pixels."""
    points = ((np.arange(window * _OVERSAMPLING) + 0.5) / _OVERSAMPLING - window / 2) / unit
    x, y = np.meshgrid(points, -points)  # y grows upwards, rows downwards
    scales = np.linspace(_SMALLEST_SCALE, 1, FACTOR_SIZES[1])
    sprites = np.empty((*FACTOR_SIZES[:3], window, window), np.uint8)
    for shape, (name, period) in enumerate(zip(SHAPES, _PERIODS, strict=True)):
        angles = np.arange(FACTOR_SIZES[2]) * period / FACTOR_SIZES[2]
        for orientation, angle in enumerate(angles):
            along = math.cos(angle) * x + math.sin(angle) * y
            across = math.cos(angle) * y - math.sin(angle) * x
            for scale, factor in enumerate(scales):
                inside = _inside(name, along / factor, across / factor)
                cells = inside.reshape(window, _OVERSAMPLING, window, _OVERSAMPLING)
                sprites[shape, scale, orientation] = np.rint(255 * cells.mean((1, 3)))
    return sprites


def _inside(name: str, x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Whether points lie in the shape, which at scale 1 fits in the unit circle."""
    if name == "square":
        return np.maximum(abs(x), abs(y)) <= 0.7
    if name == "ellipse":
        return x**2 + (2 * y) ** 2 <= 0.97**2
    # The sextic heart, moved so that the smallest circle around it is centered.
    u, v = 1.29 * x, 1.29 * y + 0.25
    return (u**2 + v**2 - 1) ** 3 <= u**2 * v**3
