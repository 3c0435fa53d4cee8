"""A user's own directory of images, with labels from the names of its folders."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from training.config import DataConfig
from training.data.dataset import Dataset
from training.data.images import SUFFIXES, choose_shape, read_images
from training.data.splits import TEST_NAMES, split_indices
from training.errors import TrainingError

_EXPECTED = (
    f"expected images ({', '.join(SUFFIXES)}) in train/CLASS and test/CLASS, in CLASS, or in the "
    "directory itself"
)
# Such as cameras and browsers write; to pass over them would be to lose a part of the set.
_UNREAD = (".avif", ".gif", ".heic", ".heif", ".jp2", ".jxl", ".tif", ".tiff")


@dataclass(frozen=True)
class _Images:
    """Files in the order of their names, label [N] of each, and the labels' names, if any."""

    files: list[Path]
    labels: NDArray[np.int64]
    names: tuple[str, ...]

    def take(self, indices: NDArray[np.int64]) -> "_Images":
        files = [self.files[index] for index in indices]
        return _Images(files, self.labels[indices], self.names)


def load_imagefolder(folder: Path, config: DataConfig) -> Dataset:
    """Read `folder`/train/CLASS/* and `folder`/test/CLASS/*, or `folder`/CLASS/*, or `folder`/*.

    Without a folder for testing, a seeded split of all images is made. Both splits are shuffled by
    the seed, so that limits take some of each class. Raises TrainingError for images that cannot
    be read and for a directory of another layout.
    """
    train, test = _splits(folder, config.seed)
    encoded = [(str(file), file) for file in train.files]
    shape = choose_shape(encoded, config.image_size, config.channels)
    train = train.take(np.arange(len(train.files))[: config.train_limit])
    test = test.take(np.arange(len(test.files))[: config.test_limit])
    files = [(str(file), file) for file in train.files + test.files]
    pixels = read_images(files, len(files), shape, str(folder))
    return Dataset(
        "imagefolder",
        pixels[: len(train.files)],
        pixels[len(train.files) :],
        train.labels,
        test.labels,
        maximum=255,
        label_names=train.names,
    )


def _splits(folder: Path, seed: int) -> tuple[_Images, _Images]:
    if not folder.is_dir():
        raise TrainingError(f"{folder} is no directory; {_EXPECTED}")
    names = {entry.name for entry in _folders(folder)}
    if not names or names - {"train", *TEST_NAMES}:  # a class may be called train, too
        images = _find(folder)
        train, test = split_indices(len(images.files), seed, str(folder))
        return images.take(train), images.take(test)
    if "train" not in names:
        raise TrainingError(f"{folder} holds {', '.join(sorted(names))} but no train; {_EXPECTED}")
    images = _find(folder / "train")
    test_name = next((name for name in TEST_NAMES if name in names), None)
    if test_name is None:
        train, test = split_indices(len(images.files), seed, str(folder / "train"))
        return images.take(train), images.take(test)
    tested = _relabeled(_find(folder / test_name), images.names, folder / test_name)
    generator = np.random.default_rng(seed)
    return (
        images.take(generator.permutation(len(images.files))),
        tested.take(generator.permutation(len(tested.files))),
    )


def _relabeled(images: _Images, names: tuple[str, ...], folder: Path) -> _Images:
    """The same images with labels that index `names`, those of the split to train on."""
    if unknown := sorted(set(images.names) - set(names)):
        raise TrainingError(f"{folder / unknown[0]} is a class that train has no folder for")
    if names and not images.names:
        raise TrainingError(f"{folder} holds images without classes; expected {', '.join(names)}")
    places = np.array([names.index(name) for name in images.names] or [0], np.int64)
    return _Images(images.files, places[images.labels], names)


def _find(folder: Path) -> _Images:
    files = _files(folder)
    folders = _folders(folder)
    if files and folders:
        raise TrainingError(
            f"{folder} holds images ({files[0].name}) beside folders ({folders[0].name}); "
            "expected one or the other"
        )
    if files:
        return _Images(files, np.zeros(len(files), np.int64), ())
    by_class = [_files(entry) for entry in folders]
    for entry, found in zip(folders, by_class, strict=True):
        if not found:
            raise TrainingError(f"{entry} holds no images; expected {', '.join(SUFFIXES)} files")
    if not folders:
        raise TrainingError(f"{folder} holds no images; {_EXPECTED}")
    labels = np.repeat(np.arange(len(folders)), [len(found) for found in by_class])
    names = tuple(entry.name for entry in folders)
    return _Images([file for found in by_class for file in found], labels, names)


def _files(folder: Path) -> list[Path]:
    """The images. Raises TrainingError if there are some of formats that are not read."""
    entries = _entries(folder)
    if unread := [entry for entry in entries if entry.suffix.lower() in _UNREAD]:
        raise TrainingError(
            f"{folder} holds images of formats that are not read: {len(unread)}, the first is "
            f"{unread[0].name}; convert them, or leave them out"
        )
    return [entry for entry in entries if entry.suffix.lower() in SUFFIXES]


def _folders(folder: Path) -> list[Path]:
    return [entry for entry in _entries(folder) if entry.is_dir()]


def _entries(folder: Path) -> list[Path]:
    """In the order of their names, the same on every system; hidden ones are left out."""
    try:
        entries = [entry for entry in folder.iterdir() if not entry.name.startswith(".")]
    except OSError as error:
        raise TrainingError(f"cannot read {folder}: {error.strerror}") from error
    return sorted(entries, key=lambda entry: entry.name)
