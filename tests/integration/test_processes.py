"""Several processes on one port."""

import os
import signal
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack

import grpc
import pytest
from prometheus_client.parser import text_string_to_metric_families
from vae.v1.vae_service_pb2 import SampleRequest
from vae.v1.vae_service_pb2_grpc import VaeServiceStub

from scripts.launch import ServiceProcess

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


def test_a_process_that_dies_is_started_again_while_the_other_serves(
    start_service: StartService,
) -> None:
    with start_service("--processes", "2") as service:
        victim = service.wait_for("listening")["pid"]
        service.wait_for_all(2)
        os.kill(victim, signal.SIGKILL)

        service.wait_for("process_died")
        assert sample_by_many(service, 4)
        service.wait_for("ready")
        restarts = counted(service, "vae_process_restarts_total")
        code = service.stop()

    assert restarts == {"": 1.0}
    assert code == 0


def test_a_port_in_use_is_an_error(start_service: StartService) -> None:
    with (
        start_service() as service,
        pytest.raises(RuntimeError, match="ended with 2"),
        start_service("--processes", "2", "--listen", service.target),
    ):
        pass
