from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from training.config import DataConfig
from training.data import Dataset, load_dataset, memory
from training.errors import TrainingError

RANDOM = np.random.default_rng(0)
GRAY = RANDOM.integers(0, 256, (20, 6, 5), dtype=np.uint8)
COLOR = RANDOM.integers(0, 256, (20, 4, 4, 3), dtype=np.uint8)
LABELS = np.arange(20) % 4


def load(path: Path, **settings: Any) -> Dataset:
    return load_dataset(DataConfig("arrays", path=str(path), **settings))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "set.npz"


@pytest.mark.parametrize(
    "keys",
    [
        ("train_images", "train_labels", "test_images", "test_labels"),
        ("x_train", "y_train", "x_test", "y_test"),
        ("images", "labels", "test_images", "test_labels"),
    ],
)
def test_both_splits_are_read_by_their_keys(path: Path, keys: tuple[str, ...]) -> None:
    arrays = (GRAY[:15], LABELS[:15, None], GRAY[15:], LABELS[15:])
    np.savez_compressed(path, **dict(zip(keys, arrays, strict=True)))
    dataset = load(path, train_limit=10)

    np.testing.assert_array_equal(dataset.train, GRAY[:10, None])
    np.testing.assert_array_equal(dataset.test, GRAY[15:, None])
    np.testing.assert_array_equal(dataset.train_labels, LABELS[:10])
    assert dataset.test_labels.dtype == np.int64
    assert dataset.label_names == ("0", "1", "2", "3")
    assert dataset.maximum == 255


def test_one_array_is_split_by_the_seed(path: Path) -> None:
    np.savez(path, images=GRAY, labels=LABELS)
    dataset = load(path, seed=3)
    assert (len(dataset.train), len(dataset.test)) == (18, 2)
    by_image = dict(zip((image.tobytes() for image in GRAY), LABELS, strict=True))
    assert [by_image[image.tobytes()] for image in dataset.train] == list(dataset.train_labels)
    assert dataset.sha256() == load(path, seed=3).sha256() != load(path, seed=4).sha256()


@pytest.mark.parametrize(
    ("array", "expected"),
    [
        pytest.param(GRAY[..., None], GRAY[:, None], id="N H W 1"),
        pytest.param(GRAY[:, None], GRAY[:, None], id="N 1 H W"),
        pytest.param(COLOR, np.moveaxis(COLOR, 3, 1), id="N H W 3"),
        pytest.param(np.moveaxis(COLOR, 3, 1), np.moveaxis(COLOR, 3, 1), id="N 3 H W"),
        pytest.param(COLOR[..., 0].reshape(20, 16), COLOR[:, None, :, :, 0], id="rows, gray"),
        pytest.param(
            np.moveaxis(COLOR, 3, 1).reshape(20, 48), np.moveaxis(COLOR, 3, 1), id="rows, planar"
        ),
        pytest.param(GRAY.astype(np.int64), GRAY[:, None], id="int64"),
        pytest.param(GRAY > 99, (GRAY > 99)[:, None], id="bool"),
    ],
)
def test_the_usual_layouts_are_told_apart(
    path: Path, array: NDArray[Any], expected: NDArray[Any]
) -> None:
    np.savez(path, train_images=array, test_images=array)
    dataset = load(path)
    np.testing.assert_array_equal(dataset.train, expected)
    assert dataset.train.dtype == np.uint8
    assert dataset.label_count is None


def test_a_maximum_makes_ones_white(path: Path) -> None:
    np.savez(path, images=GRAY // 128, maximum=1)
    dataset = load(path)
    assert dataset.maximum == 1
    assert dataset.observations("train").max() == 1


def test_images_are_resized_and_converted_on_demand(path: Path) -> None:
    np.savez(path, images=np.repeat(COLOR // 16, 4, axis=1).repeat(4, axis=2), maximum=15)
    dataset = load(path, image_size=8, channels=1)
    assert dataset.observation_shape == (1, 8, 8)
    assert dataset.train.max() <= 15


@pytest.mark.parametrize(
    ("arrays", "complaint"),
    [
        ({"pictures": GRAY}, "holds pictures; expected one of the arrays train_images, x_train"),
        ({}, "holds nothing; expected one of the arrays"),
        ({"images": GRAY / 255}, r"images of .* is float64; .*round\(255 \* x\) as uint8"),
        ({"images": GRAY.astype(object)}, "expected an .npz file of number arrays.*Object"),
        ({"images": GRAY.astype(int) * 2}, "goes from 0 to 510; expected 0 to 255"),
        ({"images": GRAY, "maximum": 9}, "goes from 0 to 255; expected 0 to 9"),
        ({"images": GRAY, "maximum": 0}, "maximum is 0; expected a number from 1 to 255"),
        ({"images": GRAY[:0]}, r"images of .* is empty"),
        ({"images": GRAY[:, :, :2, None].repeat(2, 3)}, r"shape \(20, 6, 2, 2\); expected"),
        ({"images": GRAY.reshape(20, 30)}, r"shape \(20, 30\); expected integers of shape"),
        ({"images": GRAY[:1]}, "holds 1 images; a split needs at least 2"),
        ({"images": GRAY, "labels": LABELS[:9]}, r"labels of .* shape \(9,\); expected 20"),
        ({"images": GRAY, "labels": LABELS / 2}, "labels of .* is float64"),
        ({"images": GRAY, "labels": LABELS - 1}, "goes from -1 to 2; expected labels from 0"),
        ({"images": GRAY, "labels": GRAY}, "labels of .* one for each image"),
        ({"x_train": GRAY, "y_train": LABELS, "x_test": GRAY}, "labels for one split only"),
        ({"x_train": GRAY, "x_test": GRAY[:, 1:]}, r"differ: \(1, 6, 5\), \(1, 5, 5\)"),
    ],
)
def test_other_arrays_are_refused(path: Path, arrays: dict[str, Any], complaint: str) -> None:
    np.savez(path, **arrays)
    with pytest.raises(TrainingError, match=complaint) as raised:
        load(path)
    assert str(path) in str(raised.value)


def test_damaged_files_are_named(path: Path) -> None:
    np.savez_compressed(path, images=GRAY)
    whole = path.read_bytes()
    damaged = whole[:120] + b"\xff" * 40 + whole[160:]
    npy = path.with_suffix(".npy")
    np.save(npy, GRAY)
    flags = whole.index(b"PK\x01\x02") + 8
    encrypted = whole[:flags] + b"\x01" + whole[flags + 1 :]
    for content in (b"", encrypted, whole[: len(whole) // 2], damaged, npy.read_bytes()):
        path.write_bytes(content)
        with pytest.raises(TrainingError, match=r"cannot read .*set\.npz: expected an \.npz file"):
            load(path)


def test_a_missing_file_is_named(path: Path) -> None:
    with pytest.raises(TrainingError, match=r"cannot read .*set\.npz"):
        load(path)


def test_a_file_that_unpacks_to_more_than_the_memory_is_refused(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    np.savez_compressed(path, images=np.zeros((500, 64, 64), np.uint8))
    assert path.stat().st_size < 100_000
    monkeypatch.setattr(memory, "available_memory", lambda: 1_000_000)
    with pytest.raises(TrainingError, match=r"reading .*set\.npz needs"):
        load(path)
