import numpy as np
import pytest
from numpy.typing import NDArray

from training.config import DataConfig
from training.data import Dataset, load_dataset
from training.data.shapes import FACTOR_SIZES, SHAPES, render_shapes
from training.errors import TrainingError


@pytest.fixture(scope="module")
def grid() -> NDArray[np.uint8]:
    """[shape, scale, orientation, x, y, row, column]."""
    return render_shapes(32).reshape(*FACTOR_SIZES, 32, 32)


@pytest.fixture(scope="module")
def shapes() -> Dataset:
    return load_dataset(DataConfig("shapes"))


def test_the_whole_grid_is_split_once(shapes: Dataset) -> None:
    assert shapes.train.shape == (82_944, 1, 32, 32)
    assert shapes.test.shape == (9_216, 1, 32, 32)
    assert shapes.factors is not None
    both = np.concatenate([shapes.factors.train, shapes.factors.test])
    items = np.ravel_multi_index(tuple(both.T), FACTOR_SIZES)
    np.testing.assert_array_equal(np.sort(items), np.arange(92_160))


def test_factors_and_labels_say_what_is_drawn(shapes: Dataset, grid: NDArray[np.uint8]) -> None:
    factors = shapes.factors
    assert factors is not None
    assert factors.names == ("shape", "scale", "orientation", "x", "y")
    assert factors.sizes == FACTOR_SIZES
    assert factors.test.dtype == np.int64
    np.testing.assert_array_equal(shapes.test[:, 0], grid[tuple(factors.test.T)])
    np.testing.assert_array_equal(shapes.test_labels, factors.test[:, 0])
    assert shapes.label_names == SHAPES


def test_no_two_items_are_the_same_image(grid: NDArray[np.uint8]) -> None:
    assert len({image.tobytes() for image in grid.reshape(-1, 32, 32)}) == len(
        grid.reshape(-1, 32, 32)
    )


def test_every_position_shows_the_whole_shape(grid: NDArray[np.uint8]) -> None:
    ink = grid.astype(np.int64).sum((-2, -1))
    np.testing.assert_array_equal(ink, ink[..., :1, :1].repeat(16, 3).repeat(16, 4))


def test_x_moves_right_and_y_down_by_a_pixel(grid: NDArray[np.uint8]) -> None:
    heart = grid[2, 5, 7]
    np.testing.assert_array_equal(heart[4, 9, :, 1:], heart[3, 9, :, :-1])
    np.testing.assert_array_equal(heart[4, 9, 1:], heart[4, 8, :-1])


def test_the_area_grows_with_the_square_of_the_scale(grid: NDArray[np.uint8]) -> None:
    area = grid[:, :, :, 8, 8].mean((2, 3, 4)) * 1024 / 255
    np.testing.assert_allclose(area[:, 5] / area[:, 0], 4, rtol=0.02)
    assert (np.diff(area, axis=1) > 0).all()


@pytest.mark.parametrize(("shape", "turns"), [(0, 4), (1, 2)])
def test_orientation_ends_where_the_symmetry_begins_again(
    grid: NDArray[np.uint8], shape: int, turns: int
) -> None:
    """Half of the square's period is an eighth of a turn; half of the ellipse's is a quarter."""
    middle = grid[shape, 5, :, 8, 8, 8:25, 8:25]
    if turns == 2:
        np.testing.assert_array_equal(middle[10], np.rot90(middle[0]))
    else:
        np.testing.assert_array_equal(middle[10], np.rot90(middle[10]))
    np.testing.assert_array_equal(middle[1], middle[-1].T if turns == 4 else middle[-1][::-1])


def test_the_heart_stands_upright_and_turns_fully(grid: NDArray[np.uint8]) -> None:
    heart = grid[2, 5, :, 8, 8, 8:25, 8:25]
    np.testing.assert_array_equal(heart[0], heart[0][:, ::-1])
    np.testing.assert_array_equal(heart[10], np.rot90(heart[0], 2))
    rows = heart[0].astype(int).sum(1)
    assert rows[:8].sum() > rows[9:].sum()  # wide above, a tip below


def test_larger_images_show_the_same(grid: NDArray[np.uint8]) -> None:
    large = render_shapes(64).reshape(*FACTOR_SIZES, 64, 64)[:, :, ::5, 3, 12]
    halved = large.reshape(*large.shape[:3], 32, 2, 32, 2).mean((4, 6))
    assert abs(halved - grid[:, :, ::5, 3, 12]).max() <= 20


def test_the_seed_decides_the_order_and_nothing_else(shapes: Dataset) -> None:
    again = load_dataset(DataConfig("shapes", test_limit=50))
    other = load_dataset(DataConfig("shapes", test_limit=50, seed=1))
    np.testing.assert_array_equal(again.test, shapes.test[:50])
    assert again.factors is not None
    assert len(again.factors.test) == 50
    assert again.sha256() != other.sha256()


def test_another_size_is_refused() -> None:
    with pytest.raises(TrainingError, match="32 or 64, not 28"):
        load_dataset(DataConfig("shapes", image_size=28))
