from dataclasses import replace

import numpy as np
import pytest

from training.config import DataConfig
from training.data import Dataset, Factors, load_dataset
from training.errors import TrainingError


@pytest.fixture
def floats() -> Dataset:
    """Three and two items of [1, 2, 2], with factors and without labels."""
    values = np.linspace(-3, 3, 20, dtype=np.float32).reshape(5, 1, 2, 2)
    numbers = np.arange(5)
    factors = Factors(("place",), (5,), numbers[:3, None], numbers[3:, None])
    zeros = np.zeros(5, np.int64)
    return Dataset(
        "floats", values[:3], values[3:], zeros[:3], zeros[3:], maximum=None, factors=factors
    )


@pytest.mark.parametrize("split", ["train", "test"])
def test_observations_are_pixels_divided_by_their_maximum(split: str) -> None:
    digits = load_dataset(DataConfig("digits", train_limit=40, test_limit=30))
    observations = digits.observations(split)
    assert observations.dtype == np.float32
    assert (observations.min(), observations.max()) == (0, 1)
    np.testing.assert_array_equal(observations * 16, getattr(digits, split))


def test_limits_take_the_first_items() -> None:
    digits = load_dataset(DataConfig("digits"))
    few = load_dataset(DataConfig("digits", train_limit=7, test_limit=3))
    np.testing.assert_array_equal(few.train, digits.train[:7])
    np.testing.assert_array_equal(few.train_labels, digits.train_labels[:7])
    np.testing.assert_array_equal(few.test, digits.test[:3])
    np.testing.assert_array_equal(few.test_labels, digits.test_labels[:3])


def test_observations_without_a_maximum_are_taken_as_they_are(floats: Dataset) -> None:
    assert floats.observations("test") is floats.test
    assert floats.label_count is None
    assert floats.log_likelihood is None


def test_limits_shorten_the_factors_too(floats: Dataset) -> None:
    factors = floats.head(2, 1).factors
    assert factors is not None
    np.testing.assert_array_equal(factors.train, [[0], [1]])
    np.testing.assert_array_equal(factors.test, [[3]])


def test_the_digest_sees_the_factors(floats: Dataset) -> None:
    factors = floats.factors
    assert factors is not None
    other = replace(floats, factors=replace(factors, test=factors.test + 1))
    assert other.sha256() != floats.sha256()


@pytest.mark.parametrize(
    ("config", "complaint"),
    [
        (DataConfig("digits", path="here"), r"digits has no use for data\.path"),
        (DataConfig("digits", image_size=8), r"digits has no use for data\.image_size"),
        (DataConfig("mnist", "here", channels=1), r"mnist has no use for data\.channels"),
        (DataConfig("shapes", channels=3), r"shapes has no use for data\.channels"),
        (DataConfig("linear-gaussian", image_size=8), r"no use for data\.image_size"),
        (DataConfig("imagefolder"), r"imagefolder needs data\.path, a directory of images"),
        (DataConfig("arrays", path=""), r"arrays needs data\.path, an \.npz, \.parquet"),
    ],
)
def test_a_setting_that_a_set_does_not_fit_is_refused(config: DataConfig, complaint: str) -> None:
    with pytest.raises(TrainingError, match=complaint):
        load_dataset(config)


@pytest.mark.parametrize(
    "settings", [{"image_size": 0}, {"channels": 2}, {"seed": -1}, {"train_limit": 0}]
)
def test_settings_out_of_range_are_refused(settings: dict[str, int]) -> None:
    with pytest.raises(TrainingError, match=f"data.{next(iter(settings))} must be"):
        DataConfig("shapes", **settings)
