"""What is served as a repository changes: loads, swaps, failures, removals."""

import shutil
import threading
import weakref
from pathlib import Path

import pytest

from service.control import Control
from service.errors import LoadFailed, ModelNotFound, ModelNotReady
from service.logs import make_logger
from service.model import Model, Models
from service.model_settings import ModelSettings
from service.repository import ModelVersion, RepositoryError
from service.session import CPU, GraphError
from service.sources import DirectorySource
from tests.service.fake_model import FakeModel
from tests.service.repositories import write


class Batchers:
    """What is drained when nobody can come any more."""

    def __init__(self) -> None:
        self.drained = threading.Event()
        self.stopped = False

    def drain(self) -> None:
        self.drained.set()

    def stop(self) -> None:
        self.stopped = True


class Bench:
    """A control on a directory, with fakes for the models and what it reports."""

    def __init__(self, root: Path, policy: str = "latest 1", wanted: tuple[str, ...] | None = None):
        self.snapshots: list[Models] = []
        self.loads: list[tuple[str, int, ModelSettings]] = []
        self.batchers: dict[tuple[str, int], Batchers] = {}
        self.refused: set[int] = set()
        self.failures: list[str] = []
        self.unloaded: list[tuple[str, int]] = []
        self.sessions = 0
        self.read: weakref.ref[ModelVersion]
        self.let_go = threading.Event()
        self.control = Control(
            DirectorySource(root),
            policy,
            self.load,
            self.snapshots.append,
            self,
            make_logger("error"),
            wanted,
        )

    def load(self, version: ModelVersion, own: ModelSettings) -> Model:
        self.loads.append((version.name, version.version, own))
        self.read = weakref.ref(version)
        if version.version in self.refused:
            raise GraphError("onnxruntime cannot load the graph")
        batchers = self.batchers[version.name, version.version] = Batchers()
        fake = FakeModel(name=version.name, version=version.version).model
        return Model(fake.version, {"decoder": batchers}, CPU)  # type: ignore[dict-item]

    def model_loaded(self, model: Model, seconds: float) -> None:
        self.sessions += model.version.files

    def model_unloaded(self, name: str, version: int) -> None:
        self.unloaded.append((name, version))

    def load_failed(self, name: str) -> None:
        self.failures.append(name)

    def sessions_closed(self, name: str, count: int) -> None:
        self.sessions -= count
        self.let_go.set()

    @property
    def served(self) -> list[str]:
        return [model.resource.removeprefix("models/") for model in self.snapshots[-1].all]

    def states(self) -> list[tuple[str, int, str]]:
        return [(each.name, each.version, each.state) for each in self.control.states]

    def reason(self, version: int) -> str:
        [state] = [each for each in self.control.states if each.version == version]
        return state.reason


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def test_the_newest_version_of_every_model_is_served(bench: Bench, tmp_path: Path) -> None:
    for name, version in (("b", 2), ("b", 10), ("a", 1)):
        write(tmp_path, name, version)
    assert bench.control.follow() == []
    assert bench.served == ["a/versions/1", "b/versions/10"]
    assert bench.states() == [("a", 1, "READY"), ("b", 2, "UNAVAILABLE"), ("b", 10, "READY")]
    assert bench.reason(2) == "not loaded"


def test_a_models_own_policy_wins(bench: Bench, tmp_path: Path) -> None:
    for name, version in (("a", 1), ("a", 2), ("b", 1), ("b", 2)):
        write(tmp_path, name, version)
    (tmp_path / "b" / "settings.toml").write_text('version_policy = "all"')
    bench.control.follow()
    assert bench.served == ["a/versions/2", "b/versions/1", "b/versions/2"]
    assert bench.snapshots[-1].get("models/b").version.version == 2
    assert bench.snapshots[-1].get("models/b/versions/1").version.version == 1


def test_nothing_is_loaded_or_published_again_while_nothing_changes(
    bench: Bench, tmp_path: Path
) -> None:
    write(tmp_path)
    for _ in range(3):
        bench.control.follow()
    assert (len(bench.loads), len(bench.snapshots)) == (1, 1)


def test_a_new_version_replaces_the_old_one_in_one_step(bench: Bench, tmp_path: Path) -> None:
    write(tmp_path, version=1)
    bench.control.follow()
    write(tmp_path, version=2)
    bench.control.follow()
    served = [[model.version.version for model in each.all] for each in bench.snapshots]
    assert served == [[1], [2]]
    assert bench.unloaded == [("model", 1)]


def test_the_old_version_is_drained_only_when_no_request_holds_it(
    bench: Bench, tmp_path: Path
) -> None:
    write(tmp_path, version=1)
    bench.control.follow()
    request = bench.snapshots[-1].get("models/model")  # a handler that has not submitted yet
    write(tmp_path, version=2)
    bench.control.follow()
    bench.snapshots.clear()
    drained = bench.batchers["model", 1].drained
    assert not drained.wait(0.05)
    assert request.version.version == 1
    del request
    assert drained.wait(10)
    assert not bench.batchers["model", 2].drained.is_set()


def test_a_failed_load_keeps_the_old_version_and_says_why(bench: Bench, tmp_path: Path) -> None:
    write(tmp_path, version=1)
    bench.control.follow()
    (write(tmp_path, version=2) / "encoder.onnx").write_bytes(b"damaged")
    [error] = bench.control.follow()
    assert isinstance(error, RepositoryError)
    assert bench.served == ["model/versions/1"]
    assert bench.states() == [("model", 1, "READY"), ("model", 2, "UNAVAILABLE")]
    assert bench.reason(2) == "model/2/encoder.onnx does not have the manifest's SHA-256"
    assert bench.failures == ["model"]


def test_a_graph_that_onnxruntime_refuses_keeps_the_old_version(
    bench: Bench, tmp_path: Path
) -> None:
    write(tmp_path, version=1)
    bench.control.follow()
    bench.refused = {2}
    write(tmp_path, version=2)
    bench.control.follow()
    assert bench.served == ["model/versions/1"]
    assert bench.reason(2) == "onnxruntime cannot load the graph"


def test_what_was_read_of_a_version_that_failed_is_given_back(bench: Bench, tmp_path: Path) -> None:
    bench.refused = {1}
    write(tmp_path, version=1)
    bench.control.follow()
    assert bench.reason(1) == "onnxruntime cannot load the graph"
    assert bench.read() is None


def test_what_failed_is_tried_again_once_its_files_change(bench: Bench, tmp_path: Path) -> None:
    encoder = write(tmp_path, version=1) / "encoder.onnx"
    encoder.write_bytes(b"damaged")
    for _ in range(3):
        bench.control.follow()
    assert bench.failures == ["model"]
    encoder.write_bytes(b"encoder")
    assert bench.control.follow() == []
    assert bench.served == ["model/versions/1"]


def test_a_model_that_could_not_be_loaded_is_not_ready_rather_than_unknown(
    bench: Bench, tmp_path: Path
) -> None:
    write(tmp_path, "good")
    bench.control.follow()
    (write(tmp_path, "bad") / "encoder.onnx").write_bytes(b"damaged")
    bench.control.follow()
    with pytest.raises(ModelNotReady):
        bench.snapshots[-1].get("models/bad")
    with pytest.raises(ModelNotFound):
        bench.snapshots[-1].get("models/worse")
    assert bench.control.unserved()


def test_removing_a_version_unloads_it_and_serves_the_one_before(
    bench: Bench, tmp_path: Path
) -> None:
    write(tmp_path, version=1)
    write(tmp_path, version=2)
    bench.control.follow()
    shutil.rmtree(tmp_path / "model" / "2")
    bench.control.follow()
    assert bench.served == ["model/versions/1"]
    shutil.rmtree(tmp_path / "model" / "1")
    bench.control.follow()
    assert bench.served == []


def test_a_version_of_a_list_that_is_missing_is_an_error(tmp_path: Path) -> None:
    bench = Bench(tmp_path, "1,3")
    write(tmp_path, version=1)
    [error] = bench.control.follow()
    assert str(error) == "model/3 is not in the repository"
    assert bench.served == ["model/versions/1"]


def test_changed_settings_load_the_version_again(bench: Bench, tmp_path: Path) -> None:
    write(tmp_path)
    bench.control.follow()
    (tmp_path / "model" / "settings.toml").write_text("instances = 2")
    bench.control.follow()
    assert [own.instances for _, _, own in bench.loads] == [1, 2]
    assert bench.unloaded == []


def test_settings_that_cannot_be_read_leave_what_is_served(bench: Bench, tmp_path: Path) -> None:
    write(tmp_path)
    bench.control.follow()
    settings = tmp_path / "model" / "settings.toml"
    settings.write_text("instance = 2")
    for _ in range(2):
        bench.control.follow()
    assert bench.served == ["model/versions/1"]
    assert "the nearest is 'instances'" in bench.reason(1)
    assert bench.failures == ["model"]
    settings.write_text("instances = 2")
    assert bench.control.follow() == []
    assert bench.reason(1) == ""


def test_a_repository_that_cannot_be_read_leaves_what_is_served(
    bench: Bench, tmp_path: Path
) -> None:
    root = tmp_path / "models"
    bench = Bench(root)
    write(root)
    bench.control.follow()
    root.rename(tmp_path / "away")
    with pytest.raises(RepositoryError):
        bench.control.follow()
    assert bench.served == ["model/versions/1"]
    (tmp_path / "away").rename(root)
    assert bench.control.follow() == []
    assert len(bench.loads) == 1


class TestExplicitControl:
    def test_serves_nothing_until_it_is_asked_for(self, tmp_path: Path) -> None:
        bench = Bench(tmp_path, wanted=())
        write(tmp_path, "a")
        write(tmp_path, "b")
        bench.control.follow()
        assert bench.served == []
        assert not bench.control.unserved()
        bench.control.load("b")
        assert bench.served == ["b/versions/1"]
        assert bench.states() == [("a", 1, "UNAVAILABLE"), ("b", 1, "READY")]

    def test_loads_a_newer_version_when_it_is_asked_again(self, tmp_path: Path) -> None:
        bench = Bench(tmp_path, wanted=())
        write(tmp_path, version=1)
        bench.control.load("model")
        write(tmp_path, version=2)
        bench.control.load("model")
        assert bench.served == ["model/versions/2"]

    def test_tries_again_what_failed(self, tmp_path: Path) -> None:
        bench = Bench(tmp_path, wanted=())
        write(tmp_path)
        bench.refused = {1}
        for _ in range(2):
            with pytest.raises(LoadFailed, match="onnxruntime cannot load the graph"):
                bench.control.load("model")
        bench.refused = set()
        bench.control.load("model")
        assert bench.served == ["model/versions/1"]

    def test_unloads_a_model_of_a_repository_that_cannot_be_read(self, tmp_path: Path) -> None:
        root = tmp_path / "models"
        bench = Bench(root, wanted=("a", "b"))
        for name in ("a", "b"):
            write(root, name)
        bench.control.follow()
        root.rename(tmp_path / "away")
        with pytest.raises(RepositoryError):
            bench.control.load("a")
        bench.control.unload("a")
        assert bench.served == ["b/versions/1"]
        assert bench.states() == [("b", 1, "READY")]

    def test_unloads_a_model(self, tmp_path: Path) -> None:
        bench = Bench(tmp_path, wanted=())
        write(tmp_path)
        bench.control.load("model")
        bench.control.unload("model")
        assert bench.served == []
        with pytest.raises(ModelNotFound):
            bench.control.unload("model")

    def test_knows_no_model_that_the_repository_has_not(self, tmp_path: Path) -> None:
        bench = Bench(tmp_path, wanted=())
        with pytest.raises(ModelNotFound):
            bench.control.load("../model")


def test_sessions_are_counted_until_they_are_let_go(bench: Bench, tmp_path: Path) -> None:
    write(tmp_path, version=1)
    bench.control.follow()
    assert bench.sessions == 1
    write(tmp_path, version=2)
    bench.control.follow()
    bench.snapshots.clear()
    assert bench.let_go.wait(10)
    assert bench.sessions == 1


def test_closing_stops_what_is_served(bench: Bench, tmp_path: Path) -> None:
    write(tmp_path)
    bench.control.follow()
    bench.control.close()
    assert bench.batchers["model", 1].stopped


def test_the_source_is_told_at_every_look_what_is_served(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept: list[set[str]] = []
    monkeypatch.setattr(DirectorySource, "keep", lambda source, digests: kept.append(digests))
    write(tmp_path)
    bench.control.follow()
    bench.control.follow()
    shutil.rmtree(tmp_path / "model")
    bench.control.follow()
    assert kept == [{"digest"}, {"digest"}, set()]  # the fake's
