import io

import matplotlib.image
import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from training.report.page import Picture
from training.report.tiles import columns, strip


def pixels(picture: Picture) -> NDArray[np.float32]:
    """[H, W, 3] in [0, 1]."""
    return matplotlib.image.imread(io.BytesIO(picture.content))[..., :3]


def test_observations_are_side_by_side_in_whole_pixels() -> None:
    observations = torch.zeros(3, 1, 8, 8)
    observations[1] = 0.5
    image = pixels(strip(observations, "three"))
    assert image.shape == (56, 3 * 60, 3)
    assert image[:, :56].max() == 0
    assert image[:, 60:116].mean() == pytest.approx(0.5, abs=0.01)
    assert image[:, 56:60].min() == 1


def test_a_strip_is_shown_as_wide_as_it_is() -> None:
    picture = strip(torch.zeros(2, 1, 28, 28), "two")
    assert picture.width == pixels(picture).shape[1] == 2 * 60
    assert picture.alt == "two"


def test_colours_are_kept_and_other_channels_become_gray() -> None:
    red = torch.zeros(1, 3, 8, 8)
    red[:, 0] = 1
    assert pixels(strip(red, ""))[0, 0].tolist() == [1, 0, 0]
    assert pixels(strip(torch.ones(1, 2, 8, 8), ""))[0, 0].tolist() == [1, 1, 1]


def test_limits_are_black_and_white_and_what_is_beyond_is_clipped() -> None:
    observations = torch.tensor([-9.0, -2.0, 0.0, 2.0, 9.0]).view(5, 1, 1, 1)
    row = pixels(strip(observations, "", (-2, 2)))[0, ::60, 0]
    assert row.tolist() == pytest.approx([0, 0, 0.5, 1, 1], abs=0.01)


@pytest.mark.parametrize(
    ("shape", "expected"),
    [((1, 8, 8), 14), ((1, 28, 28), 14), ((3, 64, 64), 12), ((3, 900, 900), 1)],
)
def test_as_many_fit_as_the_page_is_wide(shape: tuple[int, int, int], expected: int) -> None:
    assert columns(shape) == expected
    assert columns(shape, 1) == 1
