"""Parquet and Arrow files through pyarrow, with images as Hugging Face's data sets store them."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from training.config import DataConfig
from training.data.images import LOOKED_AT, Encoded, choose_shape, read_images
from training.data.labels import checked_labels
from training.data.memory import require_memory
from training.data.pixels import as_pixels
from training.data.splits import TEST_NAMES, Part
from training.errors import TrainingError

_SUFFIXES = (".parquet", ".arrow")
_IMAGES = ("image", "img", "images", "pixels")
_LABELS = ("label", "labels")
_EXPECTED = "expected an .npz, .parquet or .arrow file, or a directory of .parquet or .arrow files"


@dataclass(frozen=True)
class _Table:
    """One file: the names of its two columns, and its rows as an Arrow table of them."""

    path: Path
    images: str
    labels: str | None
    rows: Any

    @property
    def what(self) -> str:
        return f"column {self.images} of {self.path}"

    def encoded(self) -> Iterator[Encoded]:
        """Each image as bytes. Raises TrainingError for a row without."""
        for index, value in enumerate(_pieces(self.rows.column(self.images))):
            content = value.as_py()
            if isinstance(content, dict):
                content = content["bytes"]
            if not content:
                raise TrainingError(
                    f"row {index} of {self.path} holds no bytes in column {self.images}; expected "
                    "an encoded image, not only its path"
                )
            yield f"row {index} of {self.path}", content


def read_tables(path: Path, config: DataConfig) -> tuple[Part, Part | None]:
    """What to train and to test on; None where the file names tell no split.

    In a directory, files whose name begins with "train" are trained on, and those with "test",
    else "val", tested on. Raises TrainingError, naming file and column.
    """
    train_files, test_files = _files(path)
    train_limit = config.train_limit if test_files else None  # a split is drawn from all
    tables = [_open(file) for file in train_files]
    shape = None
    if _is_encoded(tables[0]):
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


def _open(path: Path) -> _Table:
    try:
        import pyarrow
        from pyarrow import ipc, parquet
    except ImportError as error:
        raise TrainingError(
            f"reading {path} needs pyarrow: pip install 'vae-serving[parquet]'"
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
    except (pyarrow.ArrowException, OSError) as error:
        raise TrainingError(
            f"cannot read {path}: expected a whole {path.suffix[1:].capitalize()} file: {error}"
        ) from error
    return _Table(path, images, labels, rows)


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
    tables: list[_Table],
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
        if not all(map(_is_encoded, tables)):
            raise TrainingError(f"{tables[0].path} holds no encoded images as those to train on")
        encoded = (item for table in tables for item in table.encoded())
        limited = (item for item, _ in zip(encoded, range(count), strict=False))
        pixels = read_images(limited, count, shape, str(path))
    else:
        pixels = np.concatenate(
            [
                as_pixels(_numbers(table), table.what, config.image_size, config.channels)
                for table in tables
            ]
        )[:count]
    if tables[0].labels is None:
        return Part(pixels, None)
    names = _label_names(tables[0])
    labels = [_labels(table, names) for table in tables]
    return Part(pixels, np.concatenate(labels)[:count], names)


def _is_encoded(table: _Table) -> bool:
    """Whether images are PNG, JPEG, ... rather than numbers. Raises TrainingError for neither."""
    from pyarrow import types

    kind = table.rows.schema.field(table.images).type
    if types.is_struct(kind) and any(field.name == "bytes" for field in kind.fields):
        return True
    return bool(types.is_binary(kind) or types.is_large_binary(kind))


def _pieces(column: Any) -> Iterator[Any]:
    for chunk in column.chunks:
        yield from chunk


def _numbers(table: _Table) -> NDArray[np.generic]:
    """A column of tensors or nested lists as one array [N, ...]."""
    import pyarrow
    from pyarrow import types

    values = table.rows.column(table.images).combine_chunks()
    if isinstance(values, pyarrow.ChunkedArray):
        values = pyarrow.concat_arrays(values.chunks)
    if isinstance(values, pyarrow.FixedShapeTensorArray):
        return np.asarray(values.to_numpy_ndarray())
    kind, dims = values.type, [len(values)]
    while (
        types.is_list(values.type)
        or types.is_large_list(values.type)
        or types.is_fixed_size_list(values.type)
    ):
        lengths = values.value_lengths().unique().to_pylist()
        if len(lengths) != 1 or lengths[0] is None:
            raise TrainingError(f"{table.what} holds lists of {len(lengths)} lengths; expected one")
        dims.append(lengths[0])
        values = values.flatten()
    if values.null_count or not (types.is_integer(values.type) or types.is_floating(values.type)):
        raise TrainingError(
            f"{table.what} is {kind} with {values.null_count} missing values; expected encoded "
            "images (bytes, or a struct with a field bytes), lists or tensors of integers"
        )
    return np.asarray(values.to_numpy(zero_copy_only=False)).reshape(dims)


def _labels(table: _Table, names: tuple[str, ...]) -> NDArray[np.int64]:
    column = table.rows.column(table.labels)
    what = f"column {table.labels} of {table.path}"
    if column.null_count:
        raise TrainingError(
            f"{what} misses {column.null_count} values; expected a label in each row"
        )
    return checked_labels(column.to_numpy(), len(column), what, names)


def _label_names(table: _Table) -> tuple[str, ...]:
    """The names of Hugging Face's ClassLabel, which lie in the schema's metadata."""
    metadata = (table.rows.schema.metadata or {}).get(b"huggingface", b"")
    try:
        names = json.loads(metadata)["info"]["features"][table.labels]["names"]
    except (KeyError, TypeError, ValueError):
        return ()
    return tuple(map(str, names)) if isinstance(names, list) else ()
