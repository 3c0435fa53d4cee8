"""A repository in an object store, on loopback."""

import os
import threading
from pathlib import Path
from typing import Any

import fsspec
import pytest
from vae.manifest.v1 import manifest_pb2

from service.object_source import ObjectSource
from service.repository import RepositoryError, read_version
from tests.service.repositories import Change, write


def files(address: str) -> tuple[Any, str]:
    return fsspec.core.url_to_fs(address, skip_instance_cache=True, use_listings_cache=False)


def upload(
    bucket: str,
    scratch: Path,
    version: int,
    change: Change = lambda manifest: None,
    *,
    published: bool = True,
) -> None:
    """Puts a version into the bucket, its manifest last, or not at all."""
    folder = write(scratch, "model", version, change)
    store, root = files(f"{bucket}/models")
    for file in sorted(folder.iterdir(), key=lambda file: file.name == "manifest.json"):
        if published or file.name != "manifest.json":
            store.pipe_file(f"{root}/model/{version}/{file.name}", file.read_bytes())


@pytest.fixture
def source(bucket: str, tmp_path: Path) -> ObjectSource:
    return ObjectSource(f"{bucket}/models/", tmp_path / "cache")


def versions(source: ObjectSource) -> dict[str, list[int]]:
    return {name: sorted(model.versions) for name, model in source.list().items()}


def test_a_version_is_there_once_its_manifest_is(
    source: ObjectSource, bucket: str, tmp_path: Path
) -> None:
    assert versions(source) == {}
    upload(bucket, tmp_path / "scratch", 1)
    upload(bucket, tmp_path / "scratch", 2, published=False)
    assert versions(source) == {"model": [1]}


def test_a_version_is_downloaded_once_and_read_from_the_cache(
    source: ObjectSource, bucket: str, tmp_path: Path
) -> None:
    upload(bucket, tmp_path / "scratch", 1)
    root = source.fetch("model", 1)
    assert read_version(root, "model", 1).graphs["encoder"].content == b"encoder"
    store, path = files(f"{bucket}/models/model/1/encoder.onnx")
    store.rm_file(path)
    assert source.fetch("model", 1) == root
    assert [each.name for each in root.parent.iterdir()] == [root.name]


def test_a_version_whose_objects_change_is_seen_as_another(
    source: ObjectSource, bucket: str, tmp_path: Path
) -> None:
    upload(bucket, tmp_path / "scratch", 1)
    first, again = (source.list()["model"].versions[1] for _ in range(2))
    assert first == again
    store, path = files(f"{bucket}/models/model/1/encoder.onnx")
    store.pipe_file(path, b"encodes")
    assert source.list()["model"].versions[1] != first


def test_a_models_settings_come_with_the_listing(
    source: ObjectSource, bucket: str, tmp_path: Path
) -> None:
    upload(bucket, tmp_path / "scratch", 1)
    assert source.list()["model"].settings == b""
    store, path = files(f"{bucket}/models/model/settings.toml")
    store.pipe_file(path, b"instances = 2")
    assert source.list()["model"].settings == b"instances = 2"


def test_a_damaged_object_is_refused_and_not_cached(
    source: ObjectSource, bucket: str, tmp_path: Path
) -> None:
    upload(bucket, tmp_path / "scratch", 1)
    store, path = files(f"{bucket}/models/model/1/encoder.onnx")
    store.pipe_file(path, b"damaged")
    with pytest.raises(RepositoryError) as caught:
        source.fetch("model", 1)
    place = f"{bucket}/models/model/1/encoder.onnx"
    assert str(caught.value) == f"{place} does not have the manifest's SHA-256"
    assert list((tmp_path / "cache").iterdir()) == []
    store.pipe_file(path, b"encoder")
    assert source.fetch("model", 1).is_dir()


def test_an_emptied_address_cannot_be_read_while_something_of_it_is_served(
    source: ObjectSource, bucket: str, tmp_path: Path
) -> None:
    assert versions(source) == {}
    upload(bucket, tmp_path / "scratch", 1)
    source.keep({"a digest"})
    assert versions(source) == {"model": [1]}
    store, root = files(f"{bucket}/models")
    store.rm(root, recursive=True)
    with pytest.raises(RepositoryError) as caught:
        source.list()
    assert str(caught.value) == f"{bucket}/models is empty, which it was not"
    store.pipe_file(f"{root}/kept", b"")
    assert versions(source) == {}
    store.rm_file(f"{root}/kept")
    source.keep(())
    assert versions(source) == {}


@pytest.mark.parametrize("file", ["../../outside", "/etc/hostname", "..", "manifest.json"])
def test_a_file_name_that_leads_out_of_the_version_is_refused(
    source: ObjectSource, bucket: str, tmp_path: Path, file: str
) -> None:
    def change(manifest: manifest_pb2.Manifest) -> None:
        manifest.graphs[0].file = file

    upload(bucket, tmp_path / "scratch", 1, change)
    with pytest.raises(RepositoryError, match="leads out of the version"):
        source.fetch("model", 1)


def test_processes_that_download_at_once_share_the_cache(
    source: ObjectSource, bucket: str, tmp_path: Path
) -> None:
    upload(bucket, tmp_path / "scratch", 1)
    other = ObjectSource(f"{bucket}/models", tmp_path / "cache")
    roots: list[Path] = []
    threads = [
        threading.Thread(target=lambda each=each: roots.append(each.fetch("model", 1)))
        for each in (source, other)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(roots) == 2
    assert len(set(roots)) == 1
    assert len(list((tmp_path / "cache").iterdir())) == 1


def age(path: Path) -> Path:
    """Makes something look as if nobody had used it for a day."""
    os.utime(path, (1, 1))
    return path


def test_what_a_killed_download_left_is_removed_after_a_day_and_nothing_of_others(
    bucket: str, tmp_path: Path
) -> None:
    cache = tmp_path / "cache"
    for name in (".partial-old", ".partial-new", "others"):
        (cache / name).mkdir(parents=True)
    age(cache / ".partial-old"), age(cache / "others")
    ObjectSource(bucket, cache).keep(())
    assert {each.name for each in cache.iterdir()} == {".partial-new", "others"}


def test_what_nobody_has_used_for_a_day_leaves_the_cache(
    source: ObjectSource, bucket: str, tmp_path: Path
) -> None:
    for version in (1, 2, 3):
        upload(bucket, tmp_path / "scratch", version)
    served, unused, fetched = (age(source.fetch("model", version)) for version in (1, 2, 3))
    other = ObjectSource(f"{bucket}/models", tmp_path / "cache")  # of another process
    other.fetch("model", 3)
    other.keep([served.name])
    source.keep(())
    assert {each.name for each in (tmp_path / "cache").iterdir()} == {served.name, fetched.name}
    assert source.fetch("model", 2) == unused


def test_a_killed_removal_leaves_no_version_in_part(
    source: ObjectSource, bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    upload(bucket, tmp_path / "scratch", 1)
    root = age(source.fetch("model", 1))
    with monkeypatch.context() as killed:
        killed.setattr("shutil.rmtree", lambda *_, **__: None)
        source.keep(())
    assert not root.exists()
    source.keep(())
    assert list((tmp_path / "cache").iterdir()) == []
    assert read_version(source.fetch("model", 1), "model", 1).version == 1


def test_a_bucket_that_is_not_there_is_an_error(bucket: str, tmp_path: Path) -> None:
    address = f"{bucket}-not-here/models"
    with pytest.raises(RepositoryError, match=address):
        ObjectSource(address, tmp_path / "cache").list()


def test_a_store_that_nothing_knows_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(RepositoryError, match="nowhere://x"):
        ObjectSource("nowhere://x", tmp_path / "cache")
