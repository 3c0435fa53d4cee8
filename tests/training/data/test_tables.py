import io
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image
from pyarrow import ipc, parquet

from training.config import DataConfig
from training.data import Dataset, load_dataset, memory
from training.errors import TrainingError

RANDOM = np.random.default_rng(0)
GRAY = RANDOM.integers(0, 256, (20, 6, 6), dtype=np.uint8)
COLOR = RANDOM.integers(0, 256, (20, 6, 5, 3), dtype=np.uint8)
LABELS = np.arange(20) % 3


def png(pixels: Any) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def hugging_face(pixels: Any, labels: Any = LABELS) -> pa.Table:
    """A table as `datasets.Dataset.to_parquet` writes it, with the names of three labels."""
    images = [{"bytes": png(image), "path": f"{i}.png"} for i, image in enumerate(pixels)]
    names = {"names": ["ant", "bee", "cow"], "_type": "ClassLabel"}
    info = {"info": {"features": {"image": {"_type": "Image"}, "label": names}}}
    table = pa.table({"image": images, "label": labels[: len(pixels)]})
    return table.replace_schema_metadata({"huggingface": json.dumps(info)})


def load(path: Path, **settings: Any) -> Dataset:
    return load_dataset(DataConfig("arrays", path=str(path), **settings))


def contents(pixels: Any) -> set[bytes]:
    return {image.tobytes() for image in pixels}


@pytest.mark.parametrize("pixels", [GRAY, COLOR], ids=["gray", "RGB"])
def test_a_directory_of_hugging_face_files_is_read(tmp_path: Path, pixels: Any) -> None:
    for begin in (0, 8):
        name = f"train-0000{begin // 8}-of-00002.parquet"
        parquet.write_table(
            hugging_face(pixels[begin : begin + 8], LABELS[begin:]), tmp_path / name
        )
    parquet.write_table(hugging_face(pixels[16:], LABELS[16:]), tmp_path / "test-0.parquet")
    dataset = load(tmp_path, train_limit=12)

    expected = pixels[:, None] if pixels.ndim == 3 else np.moveaxis(pixels, 3, 1)
    np.testing.assert_array_equal(dataset.train, expected[:12])
    np.testing.assert_array_equal(dataset.test, expected[16:])
    np.testing.assert_array_equal(dataset.train_labels, LABELS[:12])
    np.testing.assert_array_equal(dataset.test_labels, LABELS[16:])
    assert dataset.label_names == ("ant", "bee", "cow")


@pytest.mark.parametrize("kind", ["file", "stream"])
def test_arrow_files_and_streams_are_read_and_split(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "set.arrow"
    table = hugging_face(GRAY)
    new = ipc.new_file if kind == "file" else ipc.new_stream
    with new(str(path), table.schema) as writer:
        writer.write_table(table, max_chunksize=7)
    dataset = load(path)

    assert (len(dataset.train), len(dataset.test)) == (18, 2)
    assert contents(dataset.train) | contents(dataset.test) == contents(GRAY)


def fixed_shape() -> pa.Array:
    return pa.FixedShapeTensorArray.from_numpy_ndarray(np.ascontiguousarray(GRAY))


@pytest.mark.parametrize(
    ("column", "expected"),
    [
        pytest.param(
            pa.FixedSizeListArray.from_arrays(pa.array(GRAY.ravel()), 36), GRAY, id="fixed lists"
        ),
        pytest.param(pa.array(list(GRAY.reshape(20, 36))), GRAY, id="lists"),
        pytest.param(pa.array(GRAY.tolist()), GRAY, id="nested lists of int64"),
        pytest.param(pa.array(COLOR.tolist(), pa.list_(pa.list_(pa.list_(pa.uint8())))), COLOR),
        pytest.param(fixed_shape(), GRAY, id="tensors"),
        pytest.param(pa.array([png(image) for image in GRAY]), GRAY, id="bytes"),
    ],
)
def test_columns_of_every_kind_are_read(tmp_path: Path, column: pa.Array, expected: Any) -> None:
    table = pa.table({"pixels": column})
    parquet.write_table(table, tmp_path / "train.parquet", row_group_size=7)
    parquet.write_table(table.slice(15), tmp_path / "validation.parquet")
    dataset = load(tmp_path)
    expected = expected[:, None] if expected.ndim == 3 else np.moveaxis(expected, 3, 1)
    np.testing.assert_array_equal(dataset.train, expected)
    np.testing.assert_array_equal(dataset.test, expected[15:])
    assert dataset.label_count is None


def test_size_and_channels_can_be_chosen(tmp_path: Path) -> None:
    parquet.write_table(hugging_face(COLOR), tmp_path / "set.parquet")
    assert load(tmp_path, image_size=4, channels=1).observation_shape == (1, 4, 4)


IMAGES = [{"bytes": png(image), "path": None} for image in GRAY[:4]]


@pytest.mark.parametrize(
    ("columns", "complaint"),
    [
        ({"picture": IMAGES}, "has the columns picture; expected images in image, img"),
        (
            {"image": [*IMAGES[:3], {"bytes": None, "path": "3.png"}]},
            "row 3 of .* holds no bytes in column image",
        ),
        (
            {"image": [*IMAGES[:3], {"bytes": IMAGES[0]["bytes"][:60], "path": ""}]},
            "cannot read row 3 of ",
        ),
        ({"image": [*IMAGES[:2], None]}, "row 2 of .* holds no bytes in column image"),
        ({"image": ["a.png", "b.png"]}, "column image of .* is string with 0 missing values"),
        ({"image": [[1] * 9, [1] * 4]}, "column image of .* lists of 2 lengths"),
        ({"image": [[1.0] * 9, [0.5] * 9]}, "column image of .* is float64"),
        ({"image": [[1] * 9, None]}, "column image of .* lists of 2 lengths"),
        ({"image": [[1, 2, 3, None], [1] * 4]}, "with 1 missing values"),
        ({"image": IMAGES, "label": [0, 1, 2, None]}, "column label of .* misses 1 values"),
        ({"image": IMAGES, "label": list("abca")}, "column label of .*; expected 4 integers"),
        ({"image": IMAGES[:1]}, "holds 1 images; a split needs at least 2"),
        ({"image": IMAGES[:0]}, "no rows|has 0 rows|is null"),
    ],
)
def test_other_columns_are_refused(tmp_path: Path, columns: dict[str, Any], complaint: str) -> None:
    path = tmp_path / "set.parquet"
    parquet.write_table(pa.table(columns), path)
    with pytest.raises(TrainingError, match=complaint) as raised:
        load(path)
    assert str(path) in str(raised.value)


def test_a_label_without_a_name_is_refused(tmp_path: Path) -> None:
    parquet.write_table(hugging_face(GRAY, LABELS + 1), tmp_path / "set.parquet")
    with pytest.raises(TrainingError, match="goes from 1 to 3; expected labels from 0 to 2"):
        load(tmp_path)


@pytest.mark.parametrize("suffix", [".parquet", ".arrow"])
def test_damaged_files_are_named(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"set{suffix}"
    table = hugging_face(GRAY)
    if suffix == ".parquet":
        parquet.write_table(table, path)
    else:
        with ipc.new_file(str(path), table.schema) as writer:
            writer.write_table(table)
    whole = path.read_bytes()
    for content in (b"", whole[: len(whole) // 2], b"PAR1" + whole[9:-9]):
        path.write_bytes(content)
        with pytest.raises(TrainingError, match=r"cannot read .*set.*: expected a whole"):
            load(path)


@pytest.mark.parametrize(
    ("names", "complaint"),
    [
        ([], "is none and holds none: expected an .npz, .parquet or .arrow file"),
        (["other-0.parquet", "test-0.parquet"], "holds other-0.parquet but no file called train"),
    ],
)
def test_other_directories_are_refused(tmp_path: Path, names: list[str], complaint: str) -> None:
    for name in names:
        parquet.write_table(hugging_face(GRAY), tmp_path / name)
    with pytest.raises(TrainingError, match=complaint) as raised:
        load(tmp_path)
    assert str(tmp_path) in str(raised.value)


def test_files_with_other_columns_than_the_first_are_refused(tmp_path: Path) -> None:
    parquet.write_table(hugging_face(GRAY), tmp_path / "train-0.parquet")
    parquet.write_table(hugging_face(GRAY).drop(["label"]), tmp_path / "train-1.parquet")
    with pytest.raises(TrainingError, match="differ in their columns"):
        load(tmp_path)


def test_without_pyarrow_the_extra_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parquet.write_table(hugging_face(GRAY), tmp_path / "set.parquet")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(TrainingError, match="needs pyarrow, which the extra `parquet` brings"):
        load(tmp_path)


def test_a_file_larger_than_the_memory_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parquet.write_table(pa.table({"pixels": [[0] * 4096] * 500}), tmp_path / "set.parquet")
    monkeypatch.setattr(memory, "available_memory", lambda: 1_000)
    with pytest.raises(TrainingError, match=r"reading .*set\.parquet needs"):
        load(tmp_path)
