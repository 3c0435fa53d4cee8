"""Several processes on one port."""

import os
import signal
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path

import grpc
import pytest
from inference.inference_service_pb2 import (
    RepositoryModelLoadRequest,
    RepositoryModelUnloadRequest,
)
from inference.inference_service_pb2_grpc import GRPCInferenceServiceStub
from prometheus_client.parser import text_string_to_metric_families
from vae.v1.vae_service_pb2 import SampleRequest
from vae.v1.vae_service_pb2_grpc import VaeServiceStub

from scripts.launch import ServiceProcess
from tests.integration.publications import publish
from tests.integration.waiting import wait_until

StartService = Callable[..., AbstractContextManager[ServiceProcess]]


@pytest.fixture(scope="module", params=["http2"])  # how processes share a port is the same for both
def transport(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def counted(service: ServiceProcess, name: str, **labels: str) -> dict[str, float]:
    """A metric's samples with these labels, by process."""
    return {
        sample.labels.get("process", ""): sample.value
        for family in text_string_to_metric_families(service.scrape())
        for sample in family.samples
        if sample.name == name and labels.items() <= sample.labels.items()
    }


def sample_by_many(service: ServiceProcess, connections: int) -> list[bytes]:
    """The same samples over connections of their own, which the kernel spreads."""
    request = SampleRequest(model="models/digits", sample_count=3, seed=7)
    options = [("grpc.use_local_subchannel_pool", 1)]  # or grpc shares one connection among them
    with ExitStack() as stack:
        stubs = [
            VaeServiceStub(stack.enter_context(grpc.insecure_channel(service.target, options)))
            for _ in range(connections)
        ]
        return [stub.Sample(request, timeout=10).observations.data for stub in stubs]


def test_processes_share_a_port_and_their_metrics_add_up(start_service: StartService) -> None:
    with start_service("--processes", "2") as service:
        service.wait_for_all(2)
        answers = sample_by_many(service, 24)

        requests = counted(service, "vae_requests_total", method="vae.v1.VaeService/Sample")
        code = service.stop()

    assert set(requests) == {"0", "1"}
    assert sum(requests.values()) == 24
    assert set(answers) == {answers[0]}
    assert code == 0


def test_each_process_counts_on_its_share_of_the_cpus(start_service: StartService) -> None:
    with start_service("--processes", "2", "--cpus", "5") as service:
        events = [service.wait_for("listening") for _ in range(2)]

    assert [(event["cpus"], event["threads"]) for event in events] == [(2, 2), (2, 2)]


def test_a_process_that_dies_is_started_again_while_the_other_serves(
    start_service: StartService,
) -> None:
    with start_service("--processes", "2") as service:
        victim = service.wait_for("listening")["pid"]
        service.wait_for_all(2)
        os.kill(victim, signal.SIGKILL)

        service.wait_for("process_died")
        assert service.says("/readyz")  # the others take what comes
        assert sample_by_many(service, 4)
        service.wait_for("ready")
        restarts = counted(service, "vae_process_restarts_total")
        code = service.stop()

    assert restarts == {"": 1.0}
    assert code == 0


def children_of(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def refused(target: str) -> bool:
    host, _, port = target.rpartition(":")
    with socket.socket() as client:
        return client.connect_ex((host, int(port))) != 0


def test_processes_end_when_the_one_that_started_them_is_killed(
    start_service: StartService,
) -> None:
    with start_service("--processes", "2") as service:
        service.wait_for_all(2)
        children = children_of(service.process.pid)
        service.process.kill()
        service.process.wait(30)

        assert len(children) == 2
        wait_until(lambda: not any(Path(f"/proc/{child}").exists() for child in children))
        assert refused(service.target)


def test_a_process_that_hangs_does_not_keep_the_others_from_ending(
    start_service: StartService,
) -> None:
    with start_service("--processes", "2", "--drain-timeout", "0") as service:
        service.wait_for_all(2)
        hung, _ = children_of(service.process.pid)
        os.kill(hung, signal.SIGSTOP)

        code = service.stop()

    assert code == 128 + signal.SIGKILL


def test_processes_that_cannot_start_again_end_all_so_that_somebody_notices(
    start_service: StartService, digits_repository: Path, tmp_path: Path
) -> None:
    repository = tmp_path / "models"
    repository.symlink_to(digits_repository)
    with start_service("--processes", "2", "--repository", str(repository)) as service:
        service.wait_for_all(2)
        repository.unlink()
        for child in children_of(service.process.pid):
            os.kill(child, signal.SIGKILL)

        assert service.process.wait(60) == 2


class Callers:
    """Threads with a connection each, that call one after the other until they are told to end."""

    def __init__(self, target: str, count: int) -> None:
        self._target = target
        self._ended = threading.Event()
        self.codes: Counter[grpc.StatusCode] = Counter()
        self._threads = [threading.Thread(target=self._call) for _ in range(count)]

    def __enter__(self) -> "Callers":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        for thread in self._threads:
            thread.join()

    def _call(self) -> None:
        request = SampleRequest(model="models/digits", sample_count=2, seed=1)
        options = [("grpc.use_local_subchannel_pool", 1), ("grpc.enable_retries", 0)]
        with grpc.insecure_channel(self._target, options) as channel:
            stub = VaeServiceStub(channel)
            while not self._ended.is_set():
                try:
                    stub.Sample(request, timeout=10)
                    self.codes[grpc.StatusCode.OK] += 1
                except grpc.RpcError as error:
                    self.codes[error.code()] += 1


def test_under_load_every_answer_is_counted_once_and_a_drain_fails_none(
    start_service: StartService,
) -> None:
    with start_service("--processes", "2", "--drain-delay", "0.5") as service:
        service.wait_for_all(2)
        with Callers(service.target, 8) as callers:
            time.sleep(1)
        requests = counted(service, "vae_requests_total", method="vae.v1.VaeService/Sample")
        items = counted(service, "vae_batch_items_sum", graph="decoder")
        with Callers(service.target, 8) as drained:
            time.sleep(0.5)
            service.process.terminate()
            service.wait_for("draining")
            asked = [service.says("/livez"), service.says("/readyz")]
            code = service.process.wait(30)

    assert set(callers.codes) == {grpc.StatusCode.OK}
    assert sum(requests.values()) == callers.codes.total()
    assert sum(items.values()) == 2 * callers.codes.total()
    assert asked == [True, False]
    assert code == 0
    # gRPC's core itself cancels what arrives while it shuts down, before any handler sees it.
    unseen = drained.codes.pop(grpc.StatusCode.CANCELLED, 0)
    assert unseen <= 8  # at most one for each connection
    assert set(drained.codes) <= {grpc.StatusCode.OK, grpc.StatusCode.UNAVAILABLE}
    assert drained.codes[grpc.StatusCode.OK] > 0


def served(service: ServiceProcess, **labels: str) -> list[str]:
    """The processes that serve a version with these labels."""
    return sorted(counted(service, "vae_model_info", **labels))


def test_every_process_loads_what_one_is_asked_for(
    start_service: StartService, digits_repository: Path
) -> None:
    options = (
        "--repository",
        str(digits_repository),
        "--model-control",
        "explicit",
    )
    with start_service(*options, "--processes", "2") as service:
        service.wait_for_all(2)
        with grpc.insecure_channel(service.target) as channel:
            stub = GRPCInferenceServiceStub(channel)
            stub.RepositoryModelLoad(RepositoryModelLoadRequest(model_name="digits"), timeout=30)
            wait_until(lambda: served(service) == ["0", "1"])
            stub.RepositoryModelUnload(
                RepositoryModelUnloadRequest(model_name="digits"), timeout=30
            )
        wait_until(lambda: served(service) == [])


def test_every_process_follows_the_repository(
    start_service: StartService, digits_repository: Path, tmp_path: Path
) -> None:
    publish(digits_repository, tmp_path, 1)
    options = ("--repository", str(tmp_path), "--model-control", "poll", "--processes", "2")
    with start_service(*options, "--repository-poll-seconds", "0.1") as service:
        service.wait_for_all(2)
        publish(digits_repository, tmp_path, 2)
        wait_until(lambda: served(service, version="2") == ["0", "1"])
        wait_until(lambda: served(service, version="1") == [])


def test_a_port_in_use_is_an_error(start_service: StartService) -> None:
    with (
        start_service() as service,
        pytest.raises(RuntimeError, match="ended with 2"),
        start_service("--processes", "2", "--listen", service.target),
    ):
        pass
