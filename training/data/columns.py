"""The two columns of an Arrow table that matter here, as arrays."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from training.data.images import Encoded
from training.data.labels import checked_labels
from training.errors import TrainingError


@dataclass(frozen=True)
class Table:
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
            if not content:
                raise TrainingError(
                    f"row {index} of {self.path} holds no bytes in column {self.images}; expected "
                    "an encoded image, not only its path"
                )
            yield f"row {index} of {self.path}", content


def is_encoded(table: Table) -> bool:
    """Whether images are PNG, JPEG, ... rather than numbers. Raises TrainingError for neither."""
    from pyarrow import types

    kind = table.rows.schema.field(table.images).type
    if types.is_struct(kind) and any(field.name == "bytes" for field in kind.fields):
        return True
    return bool(types.is_binary(kind) or types.is_large_binary(kind))


def _pieces(column: Any) -> Iterator[Any]:
    """Each row's bytes, of a struct the field of that name, as scalars."""
    from pyarrow import compute, types

    for chunk in column.chunks:
        yield from compute.struct_field(chunk, "bytes") if types.is_struct(chunk.type) else chunk


def read_numbers(table: Table) -> NDArray[np.generic]:
    """A column of tensors or nested lists as one array [N, ...].

    Raises TrainingError for lists of several lengths, missing values and what is no number.
    """
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


def read_labels(table: Table, names: tuple[str, ...]) -> NDArray[np.int64]:
    """[N]. Raises TrainingError for a missing value and a label that `names` has no name for."""
    column = table.rows.column(table.labels)
    what = f"column {table.labels} of {table.path}"
    if column.null_count:
        raise TrainingError(
            f"{what} misses {column.null_count} values; expected a label in each row"
        )
    return checked_labels(column.to_numpy(), len(column), what, names)


def label_names(table: Table) -> tuple[str, ...]:
    """The names of Hugging Face's ClassLabel, which lie in the schema's metadata."""
    metadata = (table.rows.schema.metadata or {}).get(b"huggingface", b"")
    try:
        names = json.loads(metadata)["info"]["features"][table.labels]["names"]
    except (KeyError, TypeError, ValueError):
        return ()
    return tuple(map(str, names)) if isinstance(names, list) else ()
