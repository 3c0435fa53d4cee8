"""Sets that lie in arrays: NumPy's .npz here, Parquet and Arrow in `training.data.tables`."""

import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from training.config import DataConfig
from training.data.dataset import Dataset
from training.data.labels import checked_labels, label_names
from training.data.memory import require_memory
from training.data.pixels import as_pixels
from training.data.splits import Part, split_indices
from training.data.tables import read_tables
from training.errors import TrainingError

# Images and labels to train on, then those to test on.
_KEYS = (
    ("train_images", "train_labels", "test_images", "test_labels"),
    ("x_train", "y_train", "x_test", "y_test"),
    ("images", "labels", "test_images", "test_labels"),
)
_EXPECTED = "expected one of the arrays " + ", ".join(keys[0] for keys in _KEYS)
_DAMAGES = (
    EOFError,
    MemoryError,
    OSError,
    RuntimeError,  # encrypted, or packed in another way
    SyntaxError,
    ValueError,  # arrays of objects, too
    zipfile.BadZipFile,
    zlib.error,
)


def load_arrays(path: Path, config: DataConfig) -> Dataset:
    """Read an .npz file, or Parquet or Arrow. docs/data.md names their keys and columns.

    Without arrays or files for testing, a seeded split is made. Raises TrainingError for a file
    that is missing, damaged or does not hold what was expected.
    """
    maximum = 255
    if path.suffix == ".npz":
        train, test, maximum = _read_npz(path, config)
    else:
        train, test = read_tables(path, config)
    if test is None:
        indices = split_indices(len(train.pixels), config.seed, str(path))
        train, test = (train.take(chosen) for chosen in indices)
    return _dataset(path, train, test, maximum)


def _dataset(path: Path, train: Part, test: Part, maximum: int) -> Dataset:
    shapes = train.pixels.shape[1:], test.pixels.shape[1:]
    if shapes[0] != shapes[1]:
        raise TrainingError(f"{path}: images to train and test on differ: {shapes[0]}, {shapes[1]}")
    if (train.labels is None) != (test.labels is None):
        raise TrainingError(f"{path} has labels for one split only; expected both or neither")
    if train.labels is None or test.labels is None:
        return Dataset(
            "arrays",
            train.pixels,
            test.pixels,
            np.zeros(len(train.pixels), np.int64),
            np.zeros(len(test.pixels), np.int64),
            maximum,
        )
    return Dataset(
        "arrays",
        train.pixels,
        test.pixels,
        train.labels,
        test.labels,
        maximum,
        label_names(train.labels, test.labels, train.names),
    )


def _read_npz(path: Path, config: DataConfig) -> tuple[Part, Part | None, int]:
    try:
        with zipfile.ZipFile(path) as archive:
            size = sum(member.file_size for member in archive.infolist())
        require_memory(2 * size, f"reading {path}")
        with np.load(path, allow_pickle=False) as file:
            keys = next((keys for keys in _KEYS if keys[0] in file), None)
            if keys is None:
                raise TrainingError(f"{path} holds {', '.join(file) or 'nothing'}; {_EXPECTED}")
            maximum = np.asarray(file.get("maximum", 255))
            found = {key: file[key] for key in keys if key in file}
    except TrainingError:
        raise
    except _DAMAGES as error:
        raise TrainingError(
            f"cannot read {path}: expected an .npz file of number arrays: {error}"
        ) from error
    if maximum.shape or maximum.dtype.kind not in "iu" or not 1 <= maximum <= 255:
        raise TrainingError(f"{path}: maximum is {maximum}; expected a number from 1 to 255")
    limit = int(maximum)
    train = _part(found, keys[:2], path, config, limit)
    test = _part(found, keys[2:], path, config, limit) if keys[2] in found else None
    return train, test, limit


def _part(
    arrays: dict[str, NDArray[np.generic]],
    keys: Sequence[str],
    path: Path,
    config: DataConfig,
    maximum: int,
) -> Part:
    images, labels = keys
    pixels = as_pixels(
        arrays[images], f"{images} of {path}", config.image_size, config.channels, maximum
    )
    if labels not in arrays:
        return Part(pixels, None)
    return Part(pixels, checked_labels(arrays[labels], len(pixels), f"{labels} of {path}"))
