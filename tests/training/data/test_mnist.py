import gzip
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from tests.training.data.idx import idx
from training.config import DataConfig
from training.data import load_dataset, read_idx
from training.errors import TrainingError

IMAGES = np.arange(5 * 6 * 4, dtype=np.uint8).reshape(5, 6, 4)
LABELS = np.array([3, 1, 4, 1, 5], np.uint8)


@pytest.fixture
def mnist(tmp_path: Path) -> Path:
    """A folder with the four files; 5 items to train on and 2 to test, of 6x4 pixels."""
    (tmp_path / "train-images-idx3-ubyte").write_bytes(idx(IMAGES))
    (tmp_path / "train-labels-idx1-ubyte.gz").write_bytes(gzip.compress(idx(LABELS)))
    (tmp_path / "t10k-images-idx3-ubyte.gz").write_bytes(gzip.compress(idx(255 - IMAGES[:2])))
    (tmp_path / "t10k-labels-idx1-ubyte").write_bytes(idx(LABELS[:2]))
    return tmp_path


def load_mnist(folder: Path) -> object:
    return load_dataset(DataConfig("mnist", path=str(folder)))


def test_mnist_is_read_from_plain_and_gzipped_files(mnist: Path) -> None:
    dataset = load_dataset(DataConfig("mnist", path=str(mnist)))

    np.testing.assert_array_equal(dataset.train, IMAGES[:, None])
    np.testing.assert_array_equal(dataset.test, 255 - IMAGES[:2, None])
    np.testing.assert_array_equal(dataset.train_labels, LABELS)
    np.testing.assert_array_equal(dataset.test_labels, LABELS[:2])
    assert dataset.observation_shape == (1, 6, 4)
    assert dataset.maximum == 255
    assert dataset.label_names == ("0", "1", "2", "3", "4", "5")


def test_torch_takes_the_pixels_without_a_copy_or_a_warning(mnist: Path) -> None:
    dataset = load_dataset(DataConfig("mnist", path=str(mnist)))
    pixels = torch.from_numpy(dataset.train)
    assert pixels.data_ptr() == dataset.train.ctypes.data


@pytest.mark.parametrize("field", ["train", "test", "train_labels", "test_labels"])
def test_the_digest_sees_every_array(mnist: Path, field: str) -> None:
    dataset = load_dataset(DataConfig("mnist", path=str(mnist)))
    before = dataset.sha256()
    array = getattr(dataset, field).copy()
    array.flat[-1] += 1
    assert type(dataset)(**{**vars(dataset), field: array}).sha256() != before


def test_mnist_without_a_path_is_refused() -> None:
    with pytest.raises(TrainingError, match=r"data\.path.*train-images-idx3-ubyte"):
        load_dataset(DataConfig("mnist"))


@pytest.mark.parametrize(
    "name",
    [
        "train-images-idx3-ubyte",
        "train-labels-idx1-ubyte.gz",
        "t10k-images-idx3-ubyte.gz",
        "t10k-labels-idx1-ubyte",
    ],
)
def test_a_missing_file_is_named(mnist: Path, name: str) -> None:
    (mnist / name).unlink()
    with pytest.raises(TrainingError, match=name.removesuffix(".gz")):
        load_mnist(mnist)


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        pytest.param(b"", "magic", id="empty"),
        pytest.param(b"\x00\x00\x08", "magic", id="shorter than its magic number"),
        pytest.param(b"\x00\x00\x0d" + idx(LABELS)[3:], "magic", id="floats"),
        pytest.param(b"\x01" + idx(LABELS)[1:], "magic", id="another format"),
        pytest.param(b"\x00\x00\x08\x00", "magic", id="no dimensions"),
        pytest.param(idx(IMAGES)[:9], "ends inside its header", id="truncated header"),
        pytest.param(idx(IMAGES)[:-1], "announces 120 values .* holds 119", id="truncated values"),
        pytest.param(
            idx(IMAGES) + b"\x00", "announces 120 values .* and holds more", id="too long"
        ),
        pytest.param(
            b"\x00\x00\x08\x03" + b"\xff" * 12,
            "announces .* values, which needs .* GiB of memory",
            id="absurd sizes do not overflow",
        ),
    ],
)
def test_a_damaged_file_is_named(tmp_path: Path, content: bytes, complaint: str) -> None:
    path = tmp_path / "images-idx"
    path.write_bytes(content)
    with pytest.raises(TrainingError, match=complaint) as raised:
        read_idx(path)
    assert str(path) in str(raised.value)


GZIPPED = gzip.compress(idx(IMAGES), mtime=0)


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(idx(IMAGES), id="not gzipped"),
        pytest.param(GZIPPED[:-12], id="truncated"),
        pytest.param(GZIPPED[:12] + b"\xff\xff" + GZIPPED[14:], id="changed"),
        pytest.param(GZIPPED[:-1] + b"\x01", id="wrong length at its end"),
    ],
)
def test_a_damaged_gzip_file_is_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "images-idx.gz"
    path.write_bytes(content)
    with pytest.raises(TrainingError, match="cannot read") as raised:
        read_idx(path)
    assert str(path) in str(raised.value)


@pytest.mark.parametrize(
    ("name", "array", "complaint"),
    [
        ("train-images-idx3-ubyte", IMAGES[:4], "the train files .* do not pair"),
        ("train-images-idx3-ubyte", LABELS, "the train files .* do not pair"),
        ("train-images-idx3-ubyte", IMAGES[:, :3], "differ in size"),
        ("t10k-labels-idx1-ubyte", LABELS, "the t10k files .* do not pair"),
        ("t10k-labels-idx1-ubyte", LABELS[:2, None], "the t10k files .* do not pair"),
        ("train-images-idx3-ubyte", IMAGES[:0], "the train files .* do not pair"),
    ],
)
def test_files_that_do_not_match_are_refused(
    mnist: Path, name: str, array: NDArray[np.uint8], complaint: str
) -> None:
    (mnist / name).write_bytes(idx(array))
    with pytest.raises(TrainingError, match=complaint) as raised:
        load_mnist(mnist)
    assert str(mnist) in str(raised.value)


def test_train_and_test_labels_that_were_swapped_are_refused(mnist: Path) -> None:
    train, test = mnist / "train-labels-idx1-ubyte.gz", mnist / "t10k-labels-idx1-ubyte"
    train.unlink()
    (mnist / "train-labels-idx1-ubyte").write_bytes(test.read_bytes())
    test.write_bytes(idx(LABELS))
    with pytest.raises(TrainingError, match=r"the train files .* do not pair"):
        load_mnist(mnist)


def test_images_in_the_place_of_labels_are_refused(mnist: Path) -> None:
    (mnist / "t10k-labels-idx1-ubyte").write_bytes(idx(IMAGES[:2]))
    with pytest.raises(TrainingError, match=r"the t10k files .* do not pair"):
        load_mnist(mnist)
