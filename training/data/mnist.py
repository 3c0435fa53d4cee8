"""MNIST, and any set of its form, from IDX files."""

import gzip
import struct
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from training.data.dataset import Dataset
from training.data.labels import label_names
from training.errors import TrainingError

_FILES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)
EXPECTED_FILES = ", ".join(_FILES) + " (each plain or .gz)"


def load_mnist(folder: Path) -> Dataset:
    """Read the four files. Raises TrainingError, naming the file, if one is missing or damaged."""
    train, train_labels, test, test_labels = (read_idx(_find(folder, f)) for f in _FILES)
    for name, pixels, labels in (("train", train, train_labels), ("t10k", test, test_labels)):
        if pixels.ndim != 3 or labels.ndim != 1 or len(pixels) != len(labels) or not len(pixels):
            raise TrainingError(f"the {name} files in {folder} do not pair [N,H,W] with [N] labels")
    if train.shape[1:] != test.shape[1:]:
        raise TrainingError(f"the train and t10k images in {folder} differ in size")
    return Dataset(
        "mnist",
        train[:, None],
        test[:, None],
        train_labels.astype(np.int64),
        test_labels.astype(np.int64),
        maximum=255,
        label_names=label_names(train_labels, test_labels),
    )


def read_idx(path: Path) -> NDArray[np.uint8]:
    """Read an IDX file of unsigned bytes, gzipped if its name ends in .gz.

    The format: two zero bytes, the type code 8, the number of dimensions, each dimension as a
    big-endian uint32, then the values. Raises TrainingError for anything else.
    """
    try:
        content = path.read_bytes()
        if path.suffix == ".gz":
            content = gzip.decompress(content)
    except (OSError, EOFError, zlib.error) as error:
        raise TrainingError(f"cannot read {path}: {error}") from error
    if len(content) < 4 or content[:3] != b"\x00\x00\x08" or content[3] not in (1, 2, 3, 4):
        raise TrainingError(f"{path} is no IDX file of unsigned bytes: bad magic number")
    header = 4 + 4 * content[3]
    if len(content) < header:
        raise TrainingError(f"{path} ends inside its header")
    shape = struct.unpack(f">{content[3]}I", content[4:header])
    expected = int(np.prod(shape, dtype=object))
    if len(content) - header != expected:
        raise TrainingError(
            f"{path} announces {expected} values of shape {shape} and holds {len(content) - header}"
        )
    return np.frombuffer(content, np.uint8, offset=header).reshape(shape)


def _find(folder: Path, name: str) -> Path:
    for candidate in (folder / name, folder / f"{name}.gz"):
        if candidate.is_file():
            return candidate
    raise TrainingError(f"{folder} holds no {name}; mnist needs {EXPECTED_FILES}")
