import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from training.config import DataConfig
from training.data import Dataset, load_dataset, memory
from training.errors import TrainingError

RANDOM = np.random.default_rng(0)
GRAY = RANDOM.integers(0, 256, (24, 6, 5), dtype=np.uint8)
COLOR = RANDOM.integers(0, 256, (24, 6, 5, 3), dtype=np.uint8)


def write(pixels: NDArray[Any], folder: Path) -> None:
    """Each image as 00.png, 01.png, ..."""
    folder.mkdir(parents=True)
    for index, image in enumerate(pixels):
        Image.fromarray(image).save(folder / f"{index:02}.png")


def load(folder: Path, **settings: Any) -> Dataset:
    return load_dataset(DataConfig("imagefolder", path=str(folder), **settings))


def contents(pixels: NDArray[Any]) -> set[bytes]:
    return {image.tobytes() for image in pixels}


@pytest.fixture
def split(tmp_path: Path) -> Path:
    """Gray images of 6x5 pixels: 8 of each of two classes to train on, 2 and 6 to test on."""
    write(GRAY[:8], tmp_path / "train" / "cat")
    write(GRAY[8:16], tmp_path / "train" / "dog")
    write(GRAY[16:18], tmp_path / "test" / "cat")
    write(GRAY[18:], tmp_path / "test" / "dog")
    return tmp_path


def test_train_and_test_folders_are_the_splits(split: Path) -> None:
    dataset = load(split)

    assert dataset.train.shape == (16, 1, 6, 5)
    assert dataset.maximum == 255
    assert dataset.label_names == ("cat", "dog")
    for pixels, labels, cats, dogs in (
        (dataset.train, dataset.train_labels, GRAY[:8], GRAY[8:16]),
        (dataset.test, dataset.test_labels, GRAY[16:18], GRAY[18:]),
    ):
        assert contents(pixels[labels == 0]) == contents(cats)
        assert contents(pixels[labels == 1]) == contents(dogs)


def test_a_limit_takes_some_of_each_class(split: Path) -> None:
    dataset = load(split, train_limit=8)
    assert set(dataset.train_labels) == {0, 1}
    np.testing.assert_array_equal(dataset.train, load(split).train[:8])


def test_a_class_that_is_not_tested_keeps_the_labels(split: Path) -> None:
    for file in (split / "test" / "cat").iterdir():
        file.unlink()
    (split / "test" / "cat").rmdir()
    dataset = load(split)
    assert set(dataset.test_labels) == {1}
    assert dataset.label_names == ("cat", "dog")


def test_a_folder_for_validation_serves_as_test(split: Path) -> None:
    (split / "test").rename(split / "val")
    assert len(load(split).test) == 8


@pytest.mark.parametrize("folder", [".", "train"])
def test_classes_alone_are_split_by_the_seed(tmp_path: Path, folder: str) -> None:
    write(GRAY[:12], tmp_path / folder / "cat")
    write(GRAY[12:], tmp_path / folder / "train")
    dataset, same, other = (load(tmp_path, seed=seed) for seed in (0, 0, 1))

    assert (len(dataset.train), len(dataset.test)) == (22, 2)
    assert contents(dataset.train) | contents(dataset.test) == contents(GRAY)
    assert dataset.sha256() == same.sha256()
    assert contents(dataset.test) != contents(other.test)
    assert dataset.label_names == ("cat", "train")


def test_images_without_folders_have_no_labels(tmp_path: Path) -> None:
    write(COLOR, tmp_path / "images")
    (tmp_path / "images" / ".hidden.png").write_bytes(b"not an image")
    (tmp_path / "images" / "README.txt").write_text("not an image")
    dataset = load(tmp_path / "images")

    assert dataset.observation_shape == (3, 6, 5)
    assert contents(dataset.train) | contents(dataset.test) == contents(np.moveaxis(COLOR, 3, 1))
    assert dataset.label_count is None


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [
        pytest.param([(48, 64)] * 3, (48, 64), id="one size, small enough, is kept"),
        pytest.param([(480, 640)] * 3, (64, 64), id="one size, too large"),
        pytest.param([(40, 90), (50, 45), (300, 33)], (32, 32), id="several sizes"),
        pytest.param([(9, 8), (7, 9), (9, 7)], (16, 16), id="tiny images are enlarged"),
    ],
)
def test_the_size_comes_from_the_first_images(
    tmp_path: Path, sizes: list[tuple[int, int]], expected: tuple[int, int]
) -> None:
    for index, size in enumerate(sizes):
        Image.new("L", size[::-1], 100 + index).save(tmp_path / f"{index}.png")
    dataset = load(tmp_path)
    assert dataset.observation_shape == (1, *expected)
    assert {int(image.min()) for image in dataset.train} <= {100, 101, 102}


def test_resizing_keeps_the_middle(tmp_path: Path) -> None:
    wide = np.zeros((2, 10, 30), np.uint8)
    wide[:, :, 10:20] = 200
    write(wide, tmp_path / "images")
    dataset = load(tmp_path / "images", image_size=10)
    np.testing.assert_array_equal(dataset.train, np.full((1, 1, 10, 10), 200))


def test_channels_can_be_chosen(tmp_path: Path) -> None:
    write(GRAY[:2], tmp_path / "gray")
    write(COLOR[:2], tmp_path / "color")
    color, gray = load(tmp_path / "gray", channels=3), load(tmp_path / "color", channels=1)
    np.testing.assert_array_equal(color.train[0], np.repeat(load(tmp_path / "gray").train[0], 3, 0))
    assert gray.observation_shape == (1, 6, 5)


def test_transparent_pixels_are_black_and_cameras_are_held_upright(tmp_path: Path) -> None:
    image = Image.new("RGBA", (4, 4), (250, 90, 10, 0))
    image.putpixel((3, 0), (250, 90, 10, 255))
    turned = Image.Exif()
    turned[0x0112] = 6  # to be turned by a quarter, clockwise
    image.save(tmp_path / "0.png", exif=turned)
    image.save(tmp_path / "1.png", exif=turned)
    pixels = load(tmp_path).train[0]
    np.testing.assert_array_equal(pixels[:, 3, 3], [250, 90, 10])
    assert pixels.astype(int).sum() == 350


def test_jpeg_webp_and_bmp_are_read(tmp_path: Path) -> None:
    for index, suffix in enumerate(("jpg", "JPEG", "jfif", "webp", "bmp")):
        Image.new("RGB", (8, 8), (10 * index, 0, 0)).save(tmp_path / f"{index}.{suffix}")
    dataset = load(tmp_path)
    assert dataset.observation_shape == (3, 8, 8)
    assert len(dataset.train) + len(dataset.test) == 5


def test_a_large_jpeg_is_what_its_whole_pixels_are_resampled_to(tmp_path: Path) -> None:
    x, y = np.meshgrid(np.arange(640), np.arange(480))
    photograph = np.stack([x / 640, y / 480, np.sin(x / 40) / 2 + 0.5], 2)
    for name, suffix, quality in (("jpeg", "jpg", 98), ("whole", "png", None)):
        (tmp_path / name).mkdir()
        for number in "01":
            image = Image.fromarray(np.rint(255 * photograph).astype(np.uint8))
            options = {} if quality is None else {"quality": quality}
            image.save(tmp_path / name / f"{number}.{suffix}", **options)
    found, wanted = (load(tmp_path / name).train.astype(int) for name in ("jpeg", "whole"))
    assert found.shape == (1, 3, 64, 64)
    assert abs(found - wanted).max() <= 3


def test_a_cameras_jpeg_of_two_pictures_is_the_first(tmp_path: Path) -> None:
    """Phones write such files, a preview or a depth map behind the photograph."""
    for name in "ab":
        first, second = (Image.new("RGB", (8, 8), colour) for colour in ("#c80000", "#0000c8"))
        first.save(tmp_path / f"{name}.mpo", save_all=True, append_images=[second])
        (tmp_path / f"{name}.mpo").rename(tmp_path / f"{name}.jpg")
    pixels = load(tmp_path).train[0]
    assert pixels[0].min() > 150
    assert pixels[2].max() < 50


def test_an_image_of_inks_becomes_one_of_colours(tmp_path: Path) -> None:
    for name in "ab":
        Image.new("CMYK", (8, 8), (255, 0, 0, 0)).save(tmp_path / f"{name}.jpg", quality=95)
    red, green, blue = (int(channel.mean()) for channel in load(tmp_path).train[0])
    assert red < 50 < 150 < min(green, blue)


def chunk(kind: bytes, content: bytes) -> bytes:
    checksum = struct.pack(">I", zlib.crc32(kind + content))
    return struct.pack(">I", len(content)) + kind + content + checksum


def bomb(side: int) -> bytes:
    """A small PNG file that announces side x side pixels."""
    header = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    content = zlib.compress(b"\0" * 10_000)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", content)


@pytest.mark.parametrize(
    ("damage", "complaint"),
    [
        pytest.param(lambda content: content[: len(content) // 2], "truncated|cut", id="half"),
        pytest.param(lambda content: b"", "none of them", id="empty"),
        pytest.param(lambda content: b"GIF89a" + content, "none of them", id="another format"),
        pytest.param(
            lambda content: content[:40] + b"\xff" * 9 + content[49:], "cannot read", id="changed"
        ),
        pytest.param(lambda content: bomb(10_000), "decompression bomb", id="a hundred megapixels"),
        pytest.param(lambda content: bomb(60_000), "decompression bomb", id="a bomb"),
    ],
)
def test_a_damaged_image_is_named(split: Path, damage: Any, complaint: str) -> None:
    path = split / "train" / "dog" / "03.png"
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(TrainingError, match=complaint) as raised:
        load(split)
    assert str(path) in str(raised.value)
    assert "BMP, JPEG, PNG, WEBP" in str(raised.value)


def test_all_damaged_images_of_both_splits_are_named_at_once(split: Path) -> None:
    for name in ("train/cat/01.png", "train/dog/03.png", "test/dog/00.png"):
        (split / name).write_bytes(b"")
    with pytest.raises(TrainingError, match=r"3 of 24 images of .* cannot be read") as raised:
        load(split)
    assert all(name in str(raised.value) for name in ("cat/01.png", "dog/03.png", "dog/00.png"))
    for file in split.glob("*/*/*.png"):
        file.write_bytes(b"")
    with pytest.raises(TrainingError, match=r"16 of 16 images .*\n(.*\n){10}  and 6 more$"):
        load(split)


def test_an_image_of_16_bits_is_named(split: Path) -> None:
    Image.fromarray(np.zeros((6, 5), np.uint16)).save(split / "train" / "cat" / "deep.png")
    with pytest.raises(TrainingError, match=r"deep\.png has more than 8 bits"):
        load(split)


def test_an_image_that_is_a_folder_is_named(split: Path) -> None:
    (split / "train" / "cat" / "album.png").mkdir()
    with pytest.raises(TrainingError, match=r"album\.png"):
        load(split)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda folder: (folder / "train" / "eel").mkdir(), "eel holds no images; expected .bmp"),
        (lambda folder: write(GRAY[:1], folder / "test" / "eel"), "eel is a class that train has"),
        (lambda folder: (folder / "train").rename(folder / "val"), "holds test, val but no train"),
        (lambda folder: write(GRAY[:1], folder / "eel"), "test holds no images"),
        (
            lambda folder: (folder / "train" / "cat" / "IMG_0001.HEIC").write_bytes(b"ftypheic"),
            r"cat holds images of formats that are not read: 1, the first is IMG_0001\.HEIC",
        ),
        (
            lambda folder: Image.new("L", (5, 6)).save(folder / "train" / "stray.png"),
            r"holds images \(stray.png\) beside folders \(cat\)",
        ),
    ],
)
def test_another_layout_is_refused(split: Path, change: Any, complaint: str) -> None:
    change(split)
    with pytest.raises(TrainingError, match=complaint):
        load(split)


def test_a_directory_that_is_none_or_empty_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"nowhere is no directory; expected images \(\.bmp"):
        load(tmp_path / "nowhere")
    with pytest.raises(TrainingError, match="holds no images; expected images"):
        load(tmp_path)
    write(GRAY[:1], tmp_path / "one")
    with pytest.raises(TrainingError, match="holds 1 images; a split needs at least 2"):
        load(tmp_path / "one")


def test_images_that_do_not_fit_in_memory_are_refused(
    split: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "available_memory", lambda: 400)
    with pytest.raises(TrainingError, match=r"24 images of .* needs .* GiB"):
        load(split)
    load(split, train_limit=4, test_limit=4)
