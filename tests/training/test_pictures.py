import io

import matplotlib.image
import numpy as np
import pytest
from numpy.typing import NDArray

from training.config import FitConfig
from training.data import Dataset
from training.fit import initial_model
from training.pictures import draw_pictures, latent_space, reconstructions, samples

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"


def pixels(png: bytes) -> NDArray[np.float32]:
    """[H, W] brightness in [0, 1]."""
    assert png.startswith(PNG_SIGNATURE)
    return matplotlib.image.imread(io.BytesIO(png))[..., :3].mean(-1)


def blank(value: float, items: int, channels: int = 1) -> NDArray[np.float32]:
    return np.full((items, channels, 4, 4), value, np.float32)


@pytest.fixture(scope="module")
def drawn(tiny_config: FitConfig, tiny_dataset: Dataset) -> dict[str, bytes]:
    """The pictures of a model with three latents."""
    return draw_pictures(initial_model(tiny_config, tiny_dataset), tiny_dataset)


def test_a_model_gets_three_pictures_that_are_not_blank(drawn: dict[str, bytes]) -> None:
    assert sorted(drawn) == ["latent_space.png", "reconstructions.png", "samples.png"]
    for png in drawn.values():
        assert pixels(png).std() > 0.05


def test_the_pictures_of_a_model_are_always_the_same(
    drawn: dict[str, bytes], tiny_config: FitConfig, tiny_dataset: Dataset
) -> None:
    assert draw_pictures(initial_model(tiny_config, tiny_dataset), tiny_dataset) == drawn


@pytest.mark.parametrize("latent_size", [1, 2])
def test_a_latent_space_of_few_dims_is_drawn(latent_size: int) -> None:
    means = np.random.default_rng(0).normal(size=(40, latent_size)).astype(np.float32)
    assert pixels(latent_space(means, np.arange(40) % 3)).std() > 0.05


def test_a_test_split_of_one_item_is_drawn(tiny_config: FitConfig, tiny_dataset: Dataset) -> None:
    model = initial_model(tiny_config, tiny_dataset)
    pictures = draw_pictures(model, tiny_dataset.head(None, 1))
    assert pixels(pictures["latent_space.png"]).std() > 0.01


def test_samples_fill_a_square_grid_row_by_row() -> None:
    observations = np.concatenate([blank(0, 2), blank(1, 2)])
    image = pixels(samples(observations))
    half = len(image) // 2
    assert image[:half].mean() < 0.1
    assert image[half:].mean() > 0.9


def test_samples_are_shown_on_an_absolute_scale() -> None:
    """A gray sample is gray, not stretched to black or white."""
    image = pixels(samples(blank(0.5, 1)))
    assert np.median(image) == pytest.approx(0.5, abs=0.01)


def test_samples_may_have_colours() -> None:
    red = blank(0, 1, channels=3)
    red[:, 0] = 1
    image = matplotlib.image.imread(io.BytesIO(samples(red)))
    assert np.median(image, axis=(0, 1))[:3].tolist() == [1, 0, 0]


def test_reconstructions_are_below_their_observations() -> None:
    image = pixels(reconstructions(blank(0, 8), blank(0.5, 8)))
    middle = len(image) // 2
    assert np.median(image[middle - 20]) == 0
    assert np.median(image[-20]) == pytest.approx(0.5, abs=0.01)


def test_the_latent_space_shows_each_label_in_its_colour() -> None:
    means = np.random.default_rng(0).normal(size=(40, 2)).astype(np.float32)
    labels = np.arange(40) % 2
    both, one = (
        matplotlib.image.imread(io.BytesIO(latent_space(means, chosen)))[..., :3]
        for chosen in (labels, np.zeros_like(labels))
    )
    assert is_orange(both).sum() > 500
    assert is_orange(one).sum() == 0


def is_orange(image: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Where an image [H, W, 3] has the second colour of matplotlib, more or less transparent."""
    red, green, blue = np.moveaxis(image, -1, 0)
    return (red > 0.95) & (green < 0.8) & (blue < green)
