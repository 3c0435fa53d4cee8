"""The 1797 handwritten digits of 8x8 pixels that come with scikit-learn."""

import numpy as np

from training.data.dataset import Dataset

_TEST_SIZE = 297


def load_digits() -> Dataset:
    """1500 and 297 digits, as many of each class in both splits; pixels reach 16."""
    from sklearn import datasets
    from sklearn.model_selection import train_test_split

    pixels, labels = datasets.load_digits(return_X_y=True)
    train, test, train_labels, test_labels = train_test_split(
        pixels.astype(np.uint8).reshape(-1, 1, 8, 8),
        labels.astype(np.int64),
        test_size=_TEST_SIZE,
        stratify=labels,
        random_state=0,
    )
    names = tuple("0123456789")
    return Dataset("digits", train, test, train_labels, test_labels, 16, names)
