"""Encoded images to pixels, through Pillow: one shape for all, whatever the files hold."""

import io
import struct
import warnings
import zlib
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from training.data.memory import require_memory
from training.errors import TrainingError

Encoded = tuple[str, Path | bytes]  # what to call it in an error, and where it is
SUFFIXES = (".bmp", ".jfif", ".jpeg", ".jpg", ".png", ".webp")
# How many images decide the shape of all.
LOOKED_AT = 100
_FORMATS = ("BMP", "JPEG", "PNG", "WEBP")
_GRAY_MODES = ("1", "L", "LA")
_DEEP_MODES = ("I", "F")  # and I;16, I;16B, ...: more than 8 bits
_DEFAULT_SIDES = (64, 32, 16)
_NAMED = 10  # damaged images in one error
# Pillow warns of images of 89 megapixels and more, and raises at twice as many; here both refuse.
_DAMAGES = (
    Image.DecompressionBombError,
    Image.DecompressionBombWarning,
    EOFError,
    IndexError,
    OSError,
    SyntaxError,  # Pillow's for broken PNG
    ValueError,
    struct.error,
    zlib.error,
)


def read_images(
    images: Iterable[Encoded], count: int, shape: tuple[int, int, int], what: str
) -> NDArray[np.uint8]:
    """[count, C, H, W] of so many encoded images.

    Raises TrainingError if some are damaged; it says how many and names the first ten.
    """
    require_memory(count * shape[0] * shape[1] * shape[2], f"{what}, {count} images of {shape},")
    pixels = np.empty((count, *shape), np.uint8)
    damaged: list[TrainingError] = []
    for index, encoded in enumerate(images):
        try:
            pixels[index] = to_pixels(open_image(encoded, 2 * max(shape)), shape)
        except TrainingError as error:
            damaged.append(error)
    if damaged:
        raise _complaint(damaged, count, what)
    return pixels


def choose_shape(
    images: Sequence[Encoded], size: int | None, channels: int | None
) -> tuple[int, int, int]:
    """(C, H, W) for a set, from its first images where `size` or `channels` is None.

    Those that are damaged are left to `read_images`, unless all are: then it raises TrainingError.

    Gray if all of them are. Their own size if all have the same and it reaches no further than
    64; else a square of 64, 32 or 16, the largest that half of them fill without enlargement.
    """
    modes: list[str] = []
    sizes: list[tuple[int, int]] = []
    damaged: list[TrainingError] = []
    for encoded in images[:LOOKED_AT]:  # none is kept: photographs are large
        try:
            image = open_image(encoded, _DEFAULT_SIDES[0])
        except TrainingError as error:
            damaged.append(error)
        else:
            modes.append(image.mode)
            sizes.append(image.size)
    if not sizes:
        raise _complaint(damaged, len(images), "those looked at first")
    if channels is None:
        channels = 1 if set(modes) == {"L"} else 3
    if size is not None:
        return channels, size, size
    width, height = sizes[0]
    if len(set(sizes)) == 1 and max(width, height) <= _DEFAULT_SIDES[0]:
        return channels, height, width
    median = sorted(map(min, sizes))[len(sizes) // 2]
    side = next((side for side in _DEFAULT_SIDES if side <= median), _DEFAULT_SIDES[-1])
    return channels, side, side


def _complaint(damaged: Sequence[TrainingError], count: int, what: str) -> TrainingError:
    """One error for all; the only one as it is."""
    if len(damaged) == 1:
        return damaged[0]
    lines = [f"{len(damaged)} of {count} images of {what} cannot be read:"]
    lines += [f"  {error}" for error in damaged[:_NAMED]]
    if len(damaged) > _NAMED:
        lines.append(f"  and {len(damaged) - _NAMED} more")
    return TrainingError("\n".join(lines))


def open_image(encoded: Encoded, least: int) -> Image.Image:
    """Decode to mode L or RGB, upright; what is transparent becomes black.

    A JPEG is decoded at a half, a fourth or an eighth of its sides if they are at least `least`
    pixels then, which takes a photograph a ninth of the time.
    Raises TrainingError if it is damaged, of more than 8 bits or of 89 megapixels and more.
    """
    what, source = encoded
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of damaged EXIF data and the like: pixels are whole
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            file = io.BytesIO(source) if isinstance(source, bytes) else source
            with Image.open(file, formats=_FORMATS) as image:
                image.draft(None, (least, least))
                deep = image.mode in _DEEP_MODES or image.mode.startswith("I;")
                upright = ImageOps.exif_transpose(image)
                upright.load()
    except _DAMAGES as error:
        why = "it is none of them" if isinstance(error, UnidentifiedImageError) else error
        raise TrainingError(
            f"cannot read {what}: expected an image as {', '.join(_FORMATS)}: {why}"
        ) from error
    if deep:
        raise TrainingError(f"{what} has more than 8 bits for each pixel; expected 8-bit images")
    gray = upright.mode in _GRAY_MODES
    if upright.has_transparency_data:
        opaque = Image.new("RGBA", upright.size, "black")
        upright = Image.alpha_composite(opaque, upright.convert("RGBA"))
    return upright.convert("L" if gray else "RGB")


def to_pixels(image: Image.Image, shape: tuple[int, int, int]) -> NDArray[np.uint8]:
    """[C, H, W]: the largest centered part with the sides' ratio, resampled if it must be."""
    channels, height, width = shape
    mode = "L" if channels == 1 else "RGB"
    if image.mode != mode:
        image = image.convert(mode)
    if image.size != (width, height):
        image = ImageOps.fit(image, (width, height), Image.Resampling.LANCZOS)
    pixels = np.asarray(image, np.uint8).reshape(height, width, channels)
    return np.moveaxis(pixels, 2, 0)
