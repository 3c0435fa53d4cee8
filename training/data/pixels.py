"""Arrays of images in any of the usual layouts, as [N, C, H, W] uint8."""

import math

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from training.data.images import to_pixels
from training.errors import TrainingError

_EXPECTED = (
    "expected integers of shape [N, H, W], [N, H, W, C] or [N, C, H, W] with C 1 or 3, or [N, D] "
    "with D = H*H or 3*H*H"
)


def as_pixels(
    array: NDArray[np.generic],
    what: str,
    size: int | None,
    channels: int | None,
    maximum: int = 255,
) -> NDArray[np.uint8]:
    """[N, C, H, W] uint8, cropped, resized and converted if `size` or `channels` says so.

    Raises TrainingError, calling the array `what`, unless it holds at least one image of integers
    from 0 to `maximum`.
    """
    if array.dtype.kind not in "iub":
        hint = "; store round(255 * x) as uint8" if array.dtype.kind == "f" else ""
        raise TrainingError(f"{what} is {array.dtype}; {_EXPECTED}{hint}")
    if not array.size:
        raise TrainingError(f"{what} is empty, of shape {array.shape}; {_EXPECTED}")
    if int(array.min()) < 0 or int(array.max()) > maximum:
        raise TrainingError(
            f"{what} goes from {array.min()} to {array.max()}; expected 0 to {maximum}"
        )
    pixels = np.ascontiguousarray(_channels_first(array, what).astype(np.uint8, copy=False))
    found_channels, height, width = pixels.shape[1:]
    shape = (channels or found_channels, size or height, size or width)
    if shape == pixels.shape[1:]:
        return pixels
    resized = np.empty((len(pixels), *shape), np.uint8)
    for index, item in enumerate(pixels):
        image = Image.fromarray(item[0] if len(item) == 1 else np.moveaxis(item, 0, 2).copy())
        resized[index] = np.minimum(to_pixels(image, shape), maximum)  # resampling overshoots
    return resized


def _channels_first(array: NDArray[np.generic], what: str) -> NDArray[np.generic]:
    shape = array.shape
    if array.ndim == 2:
        for channels in (1, 3):  # planar, as CIFAR's rows
            side = math.isqrt(shape[1] // channels)
            if side * side * channels == shape[1]:
                return array.reshape(-1, channels, side, side)
    if array.ndim == 3:
        return array[:, None]
    if array.ndim == 4 and shape[3] in (1, 3):
        return np.moveaxis(array, 3, 1)
    if array.ndim == 4 and shape[1] in (1, 3):
        return array
    raise TrainingError(f"{what} is {array.dtype} of shape {shape}; {_EXPECTED}")
