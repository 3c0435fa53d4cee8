"""Parquet and Arrow files through pyarrow, with images as Hugging Face's data sets store them."""

from pathlib import Path
from typing import Any

import numpy as np

from training.config import DataConfig
from training.data.columns import Table, is_encoded, label_names, read_labels, read_numbers
from training.data.images import LOOKED_AT, choose_shape, read_images
from training.data.memory import require_memory
from training.data.pixels import as_pixels
from training.data.splits import TEST_NAMES, Part
from training.errors import TrainingError

_SUFFIXES = (".parquet", ".arrow")
_IMAGES = ("image", "img", "images", "pixels")
_LABELS = ("label", "labels")
_EXPECTED = "expected an .npz, .parquet or .arrow file, or a directory of .parquet or .arrow files"


def read_tables(path: Path, config: DataConfig) -> tuple[Part, Part | None]:
    """What to train and to test on; None where the file names tell no split.

    In a directory, files whose name begins with "train" are trained on, and those with "test",
    else "val", tested on. Raises TrainingError, naming file and column.
    """
    train_files, test_files = _files(path)
    train_limit = config.train_limit if test_files else None  # a split is drawn from all
    tables = [_open(file) for file in train_files]
    shape = None
    if is_encoded(tables[0]):
        first = [encoded for encoded, _ in zip(tables[0].encoded(), range(LOOKED_AT), strict=False)]
        if not first:
            raise TrainingError(f"{tables[0].path} holds no rows; expected at least one image")
        shape = choose_shape(first, config.image_size, config.channels)
    train = _read(tables, train_limit, shape, config, path)
    if not test_files:
        return train, None
    tested = [_open(file) for file in test_files]
    return train, _read(tested, config.test_limit, shape, config, path)


def _files(path: Path) -> tuple[list[Path], list[Path]]:
    if path.is_file() and path.suffix in _SUFFIXES:
        return [path], []
    found = sorted(entry for suffix in _SUFFIXES for entry in path.glob(f"*{suffix}"))
    if not found:
        raise TrainingError(f"{path} is none and holds none: {_EXPECTED}")
    train = [file for file in found if file.name.startswith("train")]
    if not train:
        if len(found) > 1 and any(file.name.startswith(TEST_NAMES) for file in found):
            raise TrainingError(f"{path} holds {found[0].name} but no file called train*")
        return found, []
    for name in TEST_NAMES:
        if test := [file for file in found if file.name.startswith(name)]:
            return train, test
    return train, []


def _open(path: Path) -> Table:
    try:
        import pyarrow
        from pyarrow import ipc, parquet
    except ImportError as error:
        raise TrainingError(
            f"reading {path} needs pyarrow, which the extra `parquet` brings"
        ) from error
    try:
        if path.suffix == ".parquet":
            file = parquet.ParquetFile(path)
            schema = file.schema_arrow
            images, labels = _columns(path, schema)
            require_memory(_decoded_size(file.metadata), f"reading {path}")
            rows = file.read(columns=[name for name in (images, labels) if name])
        else:
            source = pyarrow.memory_map(str(path))
            try:
                rows = ipc.open_file(source).read_all()
            except pyarrow.ArrowInvalid:  # Hugging Face's cache holds streams
                rows = ipc.open_stream(source).read_all()
            images, labels = _columns(path, rows.schema)
        rows.validate(full=True)
        [str(kind) for kind in rows.schema.types]  # decodes the names within
    except TrainingError:
        raise
    except (pyarrow.ArrowException, OSError, ValueError) as error:  # ValueError: names not in UTF-8
        raise TrainingError(
            f"cannot read {path}: expected a whole {path.suffix[1:].capitalize()} file: {error}"
        ) from error
    return Table(path, images, labels, rows)


def _decoded_size(metadata: Any) -> int:
    """Bytes, at most about: repeated values take next to nothing in a file, but not decoded."""
    columns = (
        metadata.row_group(group).column(column)
        for group in range(metadata.num_row_groups)
        for column in range(metadata.num_columns)
    )
    return sum(max(8 * column.num_values, column.total_uncompressed_size) for column in columns)


def _columns(path: Path, schema: Any) -> tuple[str, str | None]:
    images = next((name for name in _IMAGES if name in schema.names), None)
    if images is None:
        raise TrainingError(
            f"{path} has the columns {', '.join(schema.names) or '(none)'}; expected images in "
            f"{', '.join(_IMAGES)} and labels, if any, in {' or '.join(_LABELS)}"
        )
    return images, next((name for name in _LABELS if name in schema.names), None)


def _read(
    tables: list[Table],
    limit: int | None,
    shape: tuple[int, int, int] | None,
    config: DataConfig,
    path: Path,
) -> Part:
    if (
        len({(table.labels, str(table.rows.schema.field(table.images).type)) for table in tables})
        > 1
    ):
        raise TrainingError(
            f"the files of {path} differ in their columns; expected the same in all"
        )
    counts = [len(table.rows) for table in tables]
    count = min(sum(counts), limit or sum(counts))
    if shape is not None:
        if not all(map(is_encoded, tables)):
            raise TrainingError(f"{tables[0].path} holds no encoded images as those to train on")
        encoded = (item for table in tables for item in table.encoded())
        limited = (item for item, _ in zip(encoded, range(count), strict=False))
        pixels = read_images(limited, count, shape, str(path))
    else:
        pixels = np.concatenate(
            [
                as_pixels(read_numbers(table), table.what, config.image_size, config.channels)
                for table in tables
            ]
        )[:count]
    if tables[0].labels is None:
        return Part(pixels, None)
    names = label_names(tables[0])
    labels = [read_labels(table, names) for table in tables]
    return Part(pixels, np.concatenate(labels)[:count], names)
