"""What the tests of several packages start from: one fitted run and its model repository."""

import json
import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

if TYPE_CHECKING:
    from tests.families import Families
    from tests.object_store import ObjectStore

# Before torch is imported: on models this small its threads only wait for each other, and on a
# machine that is busy with something else for a hundred times longer than they compute.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# How long an example takes says nothing about what is tested.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")


@pytest.fixture(scope="session")
def digits_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run directory of a quick fit of digits. Read it; copy it before a change."""
    from training.__main__ import main  # brings torch, which most tests of the service do not need

    run = tmp_path_factory.mktemp("runs") / "digits"
    assert main(["fit", "digits", "--smoke", "--out", str(run)]) == 0
    return run


@pytest.fixture(scope="session")
def digits_repository(digits_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model repository that holds version 1 of "digits". Read it; copy it before a change."""
    from export.__main__ import main  # brings torch, see above

    repository = tmp_path_factory.mktemp("models")
    arguments = [str(digits_run), "--repository", str(repository), "--name", "digits"]
    assert main(arguments) == 0
    # What export recommends depends on how fast this machine was; tests count batches.
    path = repository / "digits" / "1" / "manifest.json"
    manifest = json.loads(path.read_text()) | {"batchBuckets": [1, 2, 4, 8, 16, 32, 64]}
    path.write_text(json.dumps(manifest))
    return repository


@pytest.fixture(scope="session", params=["s3", pytest.param("gs", marks=pytest.mark.gs)])
def object_store(request: pytest.FixtureRequest) -> "Iterator[ObjectStore]":
    """An object store on loopback, one of each kind for all tests."""
    from tests.object_store import running_google_store, running_s3_store  # a web framework

    with running_google_store() if request.param == "gs" else running_s3_store() as store:
        yield store


@pytest.fixture
def bucket(object_store: "ObjectStore", monkeypatch: pytest.MonkeyPatch) -> str:
    """The address of an empty bucket, which this process and its children can reach."""
    for variable, value in object_store.environment.items():
        monkeypatch.setenv(variable, value)
    return object_store.make_bucket(f"models-{secrets.token_hex(8)}")


@pytest.fixture(scope="session")
def families(tmp_path_factory: pytest.TempPathFactory) -> "Families":
    """A tiny model of each family, its run and its version. Read them."""
    from tests.families import Families  # brings torch, see above

    return Families(tmp_path_factory.mktemp("families"))
