"""Observations as image files: PNG out, PNG or JPEG in. Takes milliseconds: not for a hot path."""

import io
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from service.errors import InvalidRequest

Levels = NDArray[np.uint8]
_MODES = {1: "L", 3: "RGB"}
_FORMATS = ("PNG", "JPEG")
_COMPRESSION = 1  # zlib's; 6 takes three times as long for some 10 % of the bytes


def can_be_images(observation_shape: tuple[int, ...]) -> bool:
    """Whether observations (C, H, W) are gray or RGB images."""
    return len(observation_shape) == 3 and observation_shape[0] in _MODES


def to_png(levels: Levels) -> list[bytes]:
    """A PNG file for each item of [items, C, H, W] uint8, C being 1 or 3."""
    return [_png(item) for item in levels]


def from_files(files: Sequence[bytes | memoryview], field: str, shape: tuple[int, ...]) -> Levels:
    """The items [files, C, H, W] uint8 of PNG or JPEG files, for a model of shape (C, H, W).

    Gray and colour are converted into each other; transparency is dropped. A file's header is
    read, and must name the model's height and width, before anything of its size is allocated.

    Raises InvalidRequest that names the file of field and what was expected.
    """
    channels, height, width = shape
    levels = np.empty((len(files), *shape), np.uint8)
    for index, file in enumerate(files):
        where = f"{field}[{index}]"
        try:
            with Image.open(io.BytesIO(file), formats=_FORMATS) as image:
                if image.size != (width, height):
                    raise InvalidRequest(
                        where,
                        f"expected {width} x {height} pixels, not {image.size[0]} x "
                        f"{image.size[1]}",
                    )
                pixels = np.asarray(image.convert(_MODES[channels]))
        except InvalidRequest:
            raise
        except (UnidentifiedImageError, Image.DecompressionBombError, OSError, ValueError,
                SyntaxError, EOFError):  # fmt: skip
            raise InvalidRequest(where, "expected a whole PNG or JPEG file") from None
        levels[index] = pixels.reshape(height, width, channels).transpose(2, 0, 1)
    return levels


def _png(item: Levels) -> bytes:
    pixels = np.ascontiguousarray(item.transpose(1, 2, 0))
    image = Image.fromarray(pixels[:, :, 0] if len(item) == 1 else pixels)
    with io.BytesIO() as file:
        image.save(file, "PNG", compress_level=_COMPRESSION)
        return file.getvalue()
