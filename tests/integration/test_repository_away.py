"""A repository that goes away under a running service, and comes back."""

import shutil
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import grpc
import pytest
from inference import inference_service_pb2 as inference_pb
from inference.inference_service_pb2_grpc import GRPCInferenceServiceStub

from scripts.launch import ServiceProcess
from tests.integration.publications import publish
from tests.integration.scraped import metric
from tests.integration.waiting import wait_until
from vae_client import VaeClient

StartService = Callable[..., AbstractContextManager[ServiceProcess]]
POLL = ("--model-control", "poll", "--repository-poll-seconds", "0.1")
MANY_LOOKS = 10


@pytest.fixture
def root(digits_repository: Path, tmp_path: Path) -> Path:
    """A repository of its own with version 1 of digits."""
    root = tmp_path / "models"
    publish(digits_repository, root, 1)
    return root


def moved_away(root: Path) -> None:
    """Nothing is at its place."""


def not_mounted(root: Path) -> None:
    root.mkdir()


def stale(root: Path) -> None:
    """To look there is an error of the system, as on the mount of a file server that has gone."""
    root.symlink_to("x" * 300)


def readable(service: ServiceProcess) -> float:
    return metric(service, "vae_repository_readable")


@pytest.mark.parametrize("leave", [moved_away, not_mounted, stale])
def test_a_repository_that_goes_and_comes_back_harms_no_call(
    start_service: StartService,
    root: Path,
    digits_repository: Path,
    leave: Callable[[Path], None],
) -> None:
    lines: list[str] = []
    away = root.with_name("away")
    with (
        start_service("--repository", str(root), *POLL, echo=lines.append) as service,
        VaeClient(service.target) as client,
    ):
        service.wait_for("ready")
        assert readable(service) == 1
        root.rename(away)
        leave(root)
        reason = service.wait_for("repository_unreadable")
        for _ in range(MANY_LOOKS):
            assert client.sample("digits", 1).model == "models/digits/versions/1"
            assert readable(service) == 0
        assert service.says("/readyz")

        if root.is_symlink():
            root.unlink()
        elif root.is_dir():
            root.rmdir()
        publish(digits_repository, away, 2)
        away.rename(root)
        service.wait_for("repository_readable")
        wait_until(lambda: client.sample("digits", 1).model == "models/digits/versions/2")
        assert readable(service) == 1
        assert service.stop() == 0

    assert str(root) in reason["reason"]
    assert reason["kept"] == 1
    assert sum("repository_unreadable" in line for line in lines) == 1


def test_what_is_asked_for_meanwhile_is_answered_and_nothing_internal_is_told(
    start_service: StartService, root: Path, tmp_path: Path
) -> None:
    wanted = ("--wanted-file", str(tmp_path / "wanted.json"))
    options = ("--model-control", "explicit", "--load-models", "digits", *wanted)
    with (
        start_service("--repository", str(root), *options) as service,
        grpc.insecure_channel(service.target) as channel,
    ):
        stub = GRPCInferenceServiceStub(channel)
        shutil.rmtree(root)
        with pytest.raises(grpc.RpcError) as caught:
            stub.RepositoryModelLoad(
                inference_pb.RepositoryModelLoadRequest(model_name="digits"), timeout=10
            )
        logged = service.wait_for("repository_unreadable")
        ready = inference_pb.ModelReadyRequest(name="digits.decoder")
        assert stub.ModelReady(ready, timeout=10).ready
        stub.RepositoryModelUnload(
            inference_pb.RepositoryModelUnloadRequest(model_name="digits"), timeout=10
        )
        assert not stub.RepositoryIndex(inference_pb.RepositoryIndexRequest(), timeout=10).models

    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    assert str(tmp_path) not in (caught.value.details() or "")
    assert str(root) in logged["reason"]
