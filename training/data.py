"""Data sets as arrays of pixels: scikit-learn's digits, and MNIST from its IDX files."""

import gzip
import hashlib
import struct
import zlib
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from training.config import DataConfig
from training.errors import TrainingError

Split = Literal["train", "test"]
_MNIST_FILES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)
_DIGITS_TEST_SIZE = 297
_CLASSES = tuple("0123456789")


@dataclass(frozen=True)
class Dataset:
    """Pixels [N, C, H, W] uint8 in 0..maximum and labels [N] int64, for both splits."""

    name: str
    train: NDArray[np.uint8]
    test: NDArray[np.uint8]
    train_labels: NDArray[np.int64]
    test_labels: NDArray[np.int64]
    maximum: int | None
    label_names: tuple[str, ...] = ()

    @property
    def label_count(self) -> int | None:
        """How many labels there are; None if the set has none."""
        return len(self.label_names) or None

    @property
    def observation_shape(self) -> tuple[int, int, int]:
        """(C, H, W)."""
        channels, height, width = self.train.shape[1:]
        return channels, height, width

    def observations(self, split: Split) -> NDArray[np.float32]:
        """Pixels divided by `maximum`: [N, C, H, W] float32 in [0, 1]."""
        pixels = self.train if split == "train" else self.test
        return pixels.astype(np.float32) / np.float32(self.maximum or 1)

    def head(self, train_limit: int | None, test_limit: int | None) -> "Dataset":
        """The first items of each split; None takes all."""
        return replace(
            self,
            train=self.train[:train_limit],
            test=self.test[:test_limit],
            train_labels=self.train_labels[:train_limit],
            test_labels=self.test_labels[:test_limit],
        )

    def sha256(self) -> str:
        """Digest over shapes, pixels and labels, in hexadecimal."""
        digest = hashlib.sha256()
        arrays: Iterable[NDArray[np.generic]] = (
            self.train,
            self.test,
            self.train_labels,
            self.test_labels,
        )
        for array in arrays:
            digest.update(repr((array.dtype.str, array.shape)).encode())
            digest.update(np.ascontiguousarray(array).tobytes())
        return digest.hexdigest()


def load_dataset(config: DataConfig) -> Dataset:
    """Read a data set. Raises TrainingError if its files are missing or damaged."""
    if config.name == "digits":
        dataset = _load_digits()
    elif config.name != "mnist":
        raise TrainingError(f"cannot read data set {config.name}")
    elif config.path is not None:
        dataset = _load_mnist(Path(config.path))
    else:
        raise TrainingError(f"mnist needs data.path, a directory with {_expected_files()}")
    return dataset.head(config.train_limit, config.test_limit)


def _load_digits() -> Dataset:
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    pixels, labels = load_digits(return_X_y=True)
    train, test, train_labels, test_labels = train_test_split(
        pixels.astype(np.uint8).reshape(-1, 1, 8, 8),
        labels.astype(np.int64),
        test_size=_DIGITS_TEST_SIZE,
        stratify=labels,
        random_state=0,
    )
    return Dataset(
        "digits", train, test, train_labels, test_labels, maximum=16, label_names=_CLASSES
    )


def _load_mnist(folder: Path) -> Dataset:
    train, train_labels, test, test_labels = (read_idx(_find(folder, f)) for f in _MNIST_FILES)
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
        label_names=_CLASSES,
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
    raise TrainingError(f"{folder} holds no {name}; mnist needs {_expected_files()}")


def _expected_files() -> str:
    return ", ".join(_MNIST_FILES) + " (each plain or .gz)"
