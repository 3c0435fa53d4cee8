"""Observations as image files."""

import io

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from service.errors import InvalidRequest
from service.images import can_be_images, from_files, to_png

RANDOM = np.random.default_rng(0)
GRAY, COLOUR = (RANDOM.integers(0, 256, (2, c, 5, 7), np.uint8) for c in (1, 3))


def saved(image: Image.Image, kind: str) -> bytes:
    with io.BytesIO() as file:
        image.save(file, kind)
        return file.getvalue()


@pytest.mark.parametrize("levels", [GRAY, COLOUR], ids=["gray", "colour"])
def test_png_files_hold_every_level(
    levels: NDArray[np.uint8],
) -> None:
    files = to_png(levels)
    with Image.open(io.BytesIO(files[1])) as image:
        assert (image.format, image.size) == ("PNG", (7, 5))
    np.testing.assert_array_equal(from_files(files, "images", levels.shape[1:]), levels)


def test_gray_and_colour_are_converted() -> None:
    colour = from_files(to_png(GRAY), "images", (3, 5, 7))
    np.testing.assert_array_equal(colour, np.repeat(GRAY, 3, axis=1))
    assert from_files(to_png(COLOUR), "images", (1, 5, 7)).shape == (2, 1, 5, 7)


def test_jpeg_is_read_too() -> None:
    file = saved(Image.new("L", (7, 5), 200), "JPEG")
    levels = from_files([file], "images", (1, 5, 7))
    np.testing.assert_allclose(levels, 200, atol=2)


def test_only_gray_and_colour_images_can_be_files() -> None:
    shapes = [(1, 8, 8), (3, 8, 8), (2, 8, 8), (64,)]
    assert [can_be_images(shape) for shape in shapes] == [True, True, False, False]


def test_an_image_of_another_size_is_refused_by_its_header() -> None:
    huge = saved(Image.new("1", (9000, 9000)), "PNG")  # 10 KB, and 81 MB once it is read
    good = to_png(GRAY)[0]
    with pytest.raises(InvalidRequest, match=r"images\[1\]: expected 7 x 5 pixels, not 9000 x"):
        from_files([good, huge], "images", (1, 5, 7))


@pytest.mark.parametrize(
    "file",
    [b"", b"GIF89a", saved(Image.new("L", (7, 5)), "BMP"), to_png(COLOUR)[0][:60],
     to_png(COLOUR)[0][:-30], to_png(GRAY)[0][:40] + b"\xff" * 20],
    ids=["empty", "other", "bmp", "cut early", "cut late", "damaged"],
)  # fmt: skip
def test_what_is_no_whole_file_is_refused(file: bytes) -> None:
    with pytest.raises(InvalidRequest, match=r"images\[0\]: expected a whole PNG or JPEG file"):
        from_files([file], "images", (1, 5, 7))
