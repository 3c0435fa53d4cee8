"""Data sets: one module for each kind, all of which give a `Dataset`."""

from pathlib import Path

from training.config import DataConfig
from training.data.arrays import load_arrays
from training.data.dataset import Dataset, Factors, Observations, Split
from training.data.density import LinearGaussian
from training.data.digits import load_digits
from training.data.imagefolder import load_imagefolder
from training.data.linear_gaussian import load_linear_gaussian
from training.data.mnist import load_mnist, read_idx
from training.data.shapes import load_shapes
from training.errors import TrainingError

__all__ = [
    "Dataset",
    "Factors",
    "LinearGaussian",
    "Observations",
    "Split",
    "load_dataset",
    "read_idx",
]

# What each kind of set reads from, where it reads anything, and which settings it has a use for.
_SOURCES = {
    "mnist": "a directory with train-images-idx3-ubyte and the three other IDX files",
    "imagefolder": "a directory of images",
    "arrays": "an .npz, .parquet or .arrow file, or a directory of .parquet or .arrow files",
}
_USES_SIZE = ("imagefolder", "arrays", "shapes")
_USES_CHANNELS = ("imagefolder", "arrays")


def load_dataset(config: DataConfig) -> Dataset:
    """Read or draw a data set; the same configuration and files give the same arrays.

    Raises TrainingError, with the file and what was expected of it, if a file is missing or
    damaged; if the set needs more memory than there is; and for a setting that it has no use for.
    """
    _check_settings(config)
    path = Path(config.path or "")
    match config.name:
        case "digits":
            dataset = load_digits()
        case "mnist":
            dataset = load_mnist(path)
        case "imagefolder":
            dataset = load_imagefolder(path, config)
        case "arrays":
            dataset = load_arrays(path, config)
        case "shapes":
            dataset = load_shapes(config.image_size, config.seed)
        case "linear-gaussian":
            dataset = load_linear_gaussian(config.seed)
    return dataset.head(config.train_limit, config.test_limit)


def _check_settings(config: DataConfig) -> None:
    source = _SOURCES.get(config.name)
    if source is not None and not config.path:
        raise TrainingError(f"{config.name} needs data.path, {source}")
    unused = {
        "path": config.path is not None and source is None,
        "image_size": config.image_size is not None and config.name not in _USES_SIZE,
        "channels": config.channels is not None and config.name not in _USES_CHANNELS,
    }
    for setting, given in unused.items():
        if given:
            raise TrainingError(f"{config.name} has no use for data.{setting}; remove it")
