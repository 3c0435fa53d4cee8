"""Versions come and go under a running service, seen from real clients."""

import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import fsspec
import grpc
import numpy as np
import pytest
from inference import inference_service_pb2 as inference_pb
from inference.inference_service_pb2_grpc import GRPCInferenceServiceStub
from vae.v1.vae_service_pb2 import SampleRequest, SampleStreamRequest
from vae.v1.vae_service_pb2_grpc import VaeServiceStub

from scripts.launch import ServiceProcess
from tests.integration.publications import publish, replace_graph
from tests.integration.scraped import metric
from tests.integration.waiting import wait_until
from vae_client import VaeClient, VaeError

StartService = Callable[..., AbstractContextManager[ServiceProcess]]
POLL = ("--model-control", "poll", "--repository-poll-seconds", "0.1")
EXPLICIT = ("--model-control", "explicit")
SWAPS = 20
SERVED = (("digits", 2), ("digits", 3), ("listed", 1), ("listed", 3))


@pytest.fixture
def root(digits_repository: Path, tmp_path: Path) -> Path:
    """A repository of its own with version 1 of digits."""
    root = tmp_path / "models"
    publish(digits_repository, root, 1)
    return root


def index(service: ServiceProcess, *, ready: bool = False) -> list[tuple[str, str, str]]:
    with grpc.insecure_channel(service.target) as channel:
        request = inference_pb.RepositoryIndexRequest(ready=ready)
        answer = GRPCInferenceServiceStub(channel).RepositoryIndex(request, timeout=10)
    return [(each.version, each.state, each.reason) for each in answer.models]


class Callers:
    """Clients that call, each in its way and one call after the other, and never try again."""

    def __init__(self, target: str) -> None:
        self._target = target
        self._ended = threading.Event()
        self.errors: list[grpc.RpcError] = []
        self.versions: list[list[int]] = []
        ways = (self._sample, self._stream, self._infer, self._sample)
        self._threads = [threading.Thread(target=self._call, args=(way,)) for way in ways]

    def __enter__(self) -> "Callers":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        for thread in self._threads:
            thread.join()

    def _call(self, way: Callable[[grpc.Channel], str]) -> None:
        versions: list[int] = []
        self.versions.append(versions)
        options = [("grpc.use_local_subchannel_pool", 1), ("grpc.enable_retries", 0)]
        with grpc.insecure_channel(self._target, options) as channel:
            while not self._ended.wait(0.002):
                try:
                    versions.append(int(way(channel)))
                except grpc.RpcError as error:
                    self.errors.append(error)

    def _sample(self, channel: grpc.Channel) -> str:
        request = SampleRequest(model="models/digits", sample_count=2, seed=1)
        answer = VaeServiceStub(channel).Sample(request, timeout=10)
        return answer.model.rpartition("/")[2]

    def _stream(self, channel: grpc.Channel) -> str:
        request = SampleRequest(model="models/digits", sample_count=50, seed=1)
        message = SampleStreamRequest(request=request, chunk_items=10)
        answers = list(VaeServiceStub(channel).SampleStream(message, timeout=10))
        [name] = {answer.response.model for answer in answers}  # one version from end to end
        assert len(answers) == 5
        return name.rpartition("/")[2]

    def _infer(self, channel: grpc.Channel) -> str:
        request = inference_pb.ModelInferRequest(model_name="digits.decoder")
        request.inputs.add(name="latents", datatype="FP32", shape=(1, 8))
        request.raw_input_contents.append(np.zeros((1, 8), np.float32).tobytes())
        answer = GRPCInferenceServiceStub(channel).ModelInfer(request, timeout=10)
        return answer.model_version


def test_no_request_fails_while_versions_are_swapped(
    start_service: StartService, root: Path, digits_repository: Path
) -> None:
    with start_service("--repository", str(root), *POLL) as service:
        service.wait_for("ready")
        sessions = metric(service, "vae_sessions")
        with Callers(service.target) as callers:
            for version in range(2, SWAPS + 2):
                publish(digits_repository, root, version)
                assert service.wait_for("model_loaded")["model"].endswith(f"/{version}")
            wait_until(lambda: all(seen and seen[-1] == SWAPS + 1 for seen in callers.versions))
        # What was swapped out is let go, with its sessions and its time series.
        wait_until(lambda: metric(service, "vae_sessions") == sessions)
        served = metric(service, "vae_model_info")

    assert callers.errors == []
    for seen in callers.versions:
        assert seen == sorted(seen)
        assert set(seen) <= set(range(1, SWAPS + 2))
    assert len(set().union(*callers.versions)) > SWAPS // 2
    assert served == 1


def test_a_damaged_version_leaves_the_old_one_and_says_why_everywhere(
    start_service: StartService, root: Path, digits_repository: Path
) -> None:
    with (
        start_service("--repository", str(root), *POLL) as service,
        VaeClient(service.target) as client,
    ):
        service.wait_for("ready")
        damaged = publish(
            digits_repository, root, 2, change=lambda v: (v / "decoder.onnx").write_bytes(b"")
        )
        event = service.wait_for("model_load_failed")
        answered = client.sample("digits", 1).model
        states = index(service)
        failures = metric(service, "vae_model_load_failures_total", model="digits")

        shutil.copy(root / "digits" / "1" / "decoder.onnx", damaged)
        service.wait_for("model_loaded")

    assert event["reason"].endswith("2/decoder.onnx does not have the manifest's SHA-256")
    assert event["kept"] == [1]
    assert answered == "models/digits/versions/1"
    assert states == [
        ("1", "READY", ""),
        ("2", "UNAVAILABLE", "digits/2/decoder.onnx does not have the manifest's SHA-256"),
    ]
    assert failures >= 1


def test_a_service_whose_only_version_is_damaged_is_not_ready_until_it_is_replaced(
    digits_repository: Path, transport: str, tmp_path: Path
) -> None:
    damaged = publish(
        digits_repository, tmp_path, 1, change=lambda v: (v / "decoder.onnx").write_bytes(b"")
    )
    command = [sys.executable, "-m", "service", "--repository", str(tmp_path), *POLL]
    command += ["--listen", "127.0.0.1:0", "--metrics-port", "0", "--transport", transport]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        service = ServiceProcess(process, lambda line: None, "127.0.0.1")
        try:
            service.wait_for("model_load_failed")
            [state] = index(service)
            with VaeClient(service.target) as client, pytest.raises(VaeError) as caught:
                client.sample("digits", 1)
            asked = [service.says("/livez"), service.says("/readyz")]
            shutil.copy(digits_repository / "digits" / "1" / "decoder.onnx", damaged)
            service.wait_until_ready()
            asked.append(service.says("/readyz"))
            code = service.stop()
        finally:
            process.kill()
            service.join()

    assert state[:2] == ("1", "UNAVAILABLE")
    assert asked == [True, False, True]
    assert (caught.value.code, caught.value.reason) == (
        grpc.StatusCode.UNAVAILABLE,
        "MODEL_NOT_READY",
    )
    assert code == 0


def test_a_graph_that_onnxruntime_refuses_leaves_the_old_version(
    start_service: StartService, root: Path, digits_repository: Path
) -> None:
    with (
        start_service("--repository", str(root), *POLL) as service,
        VaeClient(service.target) as client,
    ):
        publish(
            digits_repository,
            root,
            2,
            change=lambda v: replace_graph(v, "decoder.onnx", b"no graph"),
        )
        service.wait_for("model_load_failed")
        answered = client.sample("digits", 1).model
        [reason] = [reason for version, _, reason in index(service) if version == "2"]

    assert answered == "models/digits/versions/1"
    assert "cannot load the graph" in reason
    assert str(root) not in reason


def test_a_policy_and_the_settings_of_a_model_say_what_is_served_and_how(
    start_service: StartService, root: Path, digits_repository: Path
) -> None:
    for version in (1, 2, 3):
        publish(digits_repository, root, version, name="listed")
    for version in (2, 3):
        publish(digits_repository, root, version)
    settings = 'version_policy = "1,3"\nbuckets = [1, 4]\ninstances = 2\nmax_queue_items = 8\n'
    (root / "listed" / "settings.toml").write_text(settings)
    options = ("--repository", str(root), "--version-policy", "latest 2", "--processes", "1")
    with start_service(*options) as service, VaeClient(service.target) as client:
        service.wait_for("ready")
        served = [model.name.removeprefix("models/") for model in client.models()]
        model = client.model("listed")
        with grpc.insecure_channel(service.target) as channel:
            stub = VaeServiceStub(channel)
            sizes = [
                stub.Sample(SampleRequest(model=f"models/{name}", sample_count=10)).execution
                for name in ("listed", "digits")
            ]
            inference = GRPCInferenceServiceStub(channel)
            request = inference_pb.ModelConfigRequest(name="listed.decoder")
            config = inference.ModelConfig(request).config

    assert served == [f"{name}/versions/{n}" for name, n in SERVED]
    assert (model.name, model.max_batch_size) == ("models/listed/versions/3", 4)
    assert [execution.batch_size for execution in sizes] == [4, 10]
    assert config.max_batch_size == 4


def test_a_version_that_is_removed_is_unloaded(
    start_service: StartService, root: Path, digits_repository: Path
) -> None:
    publish(digits_repository, root, 2)
    options = ("--repository", str(root), "--version-policy", "all", *POLL)
    with start_service(*options) as service, VaeClient(service.target) as client:
        both = [
            client.sample("digits", 1).model,
            client.sample("models/digits/versions/1", 1).model,
        ]
        shutil.rmtree(root / "digits" / "1")
        service.wait_for("model_unloaded")
        with pytest.raises(VaeError) as caught:
            client.sample("models/digits/versions/1", 1)
        left = client.sample("digits", 1).model

    assert both == ["models/digits/versions/2", "models/digits/versions/1"]
    assert caught.value.code is grpc.StatusCode.NOT_FOUND
    assert left == "models/digits/versions/2"


def load(service: ServiceProcess, name: str) -> None:
    with grpc.insecure_channel(service.target) as channel:
        request = inference_pb.RepositoryModelLoadRequest(model_name=name)
        GRPCInferenceServiceStub(channel).RepositoryModelLoad(request, timeout=30)


def unload(service: ServiceProcess, name: str) -> None:
    with grpc.insecure_channel(service.target) as channel:
        request = inference_pb.RepositoryModelUnloadRequest(model_name=name)
        GRPCInferenceServiceStub(channel).RepositoryModelUnload(request, timeout=30)


def test_models_are_loaded_and_unloaded_on_request(
    start_service: StartService, root: Path, digits_repository: Path
) -> None:
    publish(digits_repository, root, 1, name="other")
    options = ("--repository", str(root), "--load-models", "other", *EXPLICIT)
    with start_service(*options) as service, VaeClient(service.target) as client:
        first = {model.name for model in client.models()}
        load(service, "digits")
        publish(digits_repository, root, 2)
        load(service, "digits")
        newest = client.sample("digits", 1).model
        unload(service, "other")
        with pytest.raises(VaeError) as gone:
            client.sample("other", 1)
        with pytest.raises(grpc.RpcError) as unknown:
            load(service, "nope")
        ready = index(service, ready=True)

    assert first == {"models/other/versions/1"}
    assert newest == "models/digits/versions/2"
    assert gone.value.code is grpc.StatusCode.NOT_FOUND
    assert unknown.value.code() is grpc.StatusCode.NOT_FOUND
    assert ready == [("2", "READY", "")]


def test_loading_on_request_is_off_unless_it_is_asked_for(
    service: ServiceProcess, client: VaeClient
) -> None:
    for change in (load, unload):
        with pytest.raises(grpc.RpcError) as caught:
            change(service, "digits")
        assert caught.value.code() is grpc.StatusCode.FAILED_PRECONDITION

    assert index(service) == [("1", "READY", "")]
    assert client.sample("digits", 1).observations.shape == (1, 1, 8, 8)


def test_a_repository_in_an_object_store_is_followed(
    start_service: StartService, digits_repository: Path, bucket: str, tmp_path: Path
) -> None:
    store, root = fsspec.core.url_to_fs(bucket, skip_instance_cache=True)
    options = ("--repository", bucket, "--cache", str(tmp_path / "cache"), *POLL)

    def upload(version: int) -> None:
        folder = publish(digits_repository, tmp_path / "scratch", version)
        for file in sorted(folder.iterdir(), key=lambda file: file.name == "manifest.json"):
            store.pipe_file(f"{root}/digits/{version}/{file.name}", file.read_bytes())

    upload(1)
    with start_service(*options) as service, VaeClient(service.target) as client:
        service.wait_for("ready")
        upload(2)
        service.wait_for("model_loaded")
        wait_until(lambda: client.sample("digits", 1).model == "models/digits/versions/2")
        states = index(service)
        for path in sorted(store.find(root), key=lambda path: path.endswith("/2/manifest.json")):
            store.rm_file(path)  # what is served is there until nothing is
        service.wait_for("repository_unreadable")
        left = client.sample("digits", 1).model
        upload(3)
        service.wait_for("repository_readable")
        wait_until(lambda: client.sample("digits", 1).model == "models/digits/versions/3")

    assert states == [("1", "UNAVAILABLE", "not loaded"), ("2", "READY", "")]
    assert left == "models/digits/versions/2"
