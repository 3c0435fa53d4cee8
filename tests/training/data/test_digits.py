import numpy as np

from training.config import DataConfig
from training.data import load_dataset

# Runs store this digest: another split would make every run of digits unusable.
DIGITS_SHA256 = "bdb16808ed35f9db0c28cceae236317bc70c29fc5628a7d720cdcc030379f4bd"


def test_digits_have_their_documented_shapes_types_and_ranges() -> None:
    digits = load_dataset(DataConfig("digits"))

    assert digits.train.shape == (1500, 1, 8, 8)
    assert digits.test.shape == (297, 1, 8, 8)
    assert digits.train.dtype == digits.test.dtype == np.uint8
    assert (digits.train.min(), digits.train.max(), digits.maximum) == (0, 16, 16)
    assert digits.observation_shape == (1, 8, 8)
    assert digits.train_labels.shape == (1500,)
    assert digits.test_labels.dtype == np.int64
    assert set(digits.test_labels) == set(range(10))
    assert digits.label_count == 10


def test_the_split_of_digits_never_changes() -> None:
    assert load_dataset(DataConfig("digits")).sha256() == DIGITS_SHA256
