"""MNIST, and any set of its form, from IDX files."""

import gzip
import math
import struct
import zlib
from io import BufferedIOBase
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from training.data.dataset import Dataset
from training.data.labels import label_names
from training.data.memory import require_memory
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
    opened = gzip.open if path.suffix == ".gz" else open
    try:
        with opened(path, "rb") as file:
            shape = _read_header(file, path)
            expected = math.prod(shape)
            require_memory(expected, f"{path} announces {expected} values, which")
            values = file.read(expected + 1)  # reaching the end is what checks a gzip file
    except (OSError, EOFError, zlib.error) as error:
        raise TrainingError(f"cannot read {path}: expected an IDX file: {error}") from error
    if len(values) != expected:
        held = len(values) if len(values) < expected else "more"
        raise TrainingError(f"{path} announces {expected} values of shape {shape} and holds {held}")
    return np.frombuffer(values, np.uint8).reshape(shape).copy()  # torch wants to write


def _read_header(file: BufferedIOBase, path: Path) -> tuple[int, ...]:
    magic = file.read(4)
    if len(magic) < 4 or magic[:3] != b"\x00\x00\x08" or magic[3] not in (1, 2, 3, 4):
        raise TrainingError(f"{path} is no IDX file of unsigned bytes: bad magic number")
    dims = file.read(4 * magic[3])
    if len(dims) < 4 * magic[3]:
        raise TrainingError(f"{path} ends inside its header")
    return struct.unpack(f">{magic[3]}I", dims)


def _find(folder: Path, name: str) -> Path:
    for candidate in (folder / name, folder / f"{name}.gz"):
        if candidate.is_file():
            return candidate
    raise TrainingError(f"{folder} holds no {name}; mnist needs {EXPECTED_FILES}")
