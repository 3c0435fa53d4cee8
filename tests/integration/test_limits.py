"""The settings that bound what clients may take, on a service with small ones."""

from collections.abc import Iterator
from pathlib import Path

import grpc
import numpy as np
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from vae.v1 import vae_service_pb2_grpc
from vae.v1.vae_service_pb2 import SampleRequest

from scripts.launch import ServiceProcess, running_service
from service.transport.http2 import frames
from tests.integration.scraped import metric
from tests.integration.waiting import wait_until
from tests.service.transport.raw_client import RawClient
from vae_client import VaeClient
from vae_client.errors import error_of

LIMITS = ("--max-concurrent-streams", "3", "--max-connections", "1")
MEMORY = ("--max-message-mib", "1", "--max-held-mib", "2")


@pytest.fixture(scope="module")
def process(digits_repository: Path) -> Iterator[ServiceProcess]:
    with running_service(digits_repository, "--transport", "http2", *LIMITS, *MEMORY) as process:
        yield process


@pytest.fixture
def small(process: ServiceProcess) -> ServiceProcess:
    """With room for its one connection: clients close theirs some time after they say so."""
    wait_until(lambda: metric(process, "vae_connections") == 0)
    return process


def test_beyond_the_limit_of_connections_only_health_is_answered(small: ServiceProcess) -> None:
    refused = metric(small, "vae_connections_refused_total")
    with VaeClient(small.target) as client:
        client.sample("digits", 1)
        with grpc.insecure_channel(small.target) as channel:
            health = health_pb2_grpc.HealthStub(channel).Check
            alive = health(health_pb2.HealthCheckRequest(service="vae.v1.VaeService"), timeout=10)
            with pytest.raises(grpc.RpcError) as caught:
                vae_service_pb2_grpc.VaeServiceStub(channel).Sample(
                    SampleRequest(model="models/digits", sample_count=1), timeout=10
                )
        client.sample("digits", 1)

    assert alive.status == health_pb2.HealthCheckResponse.SERVING
    error = error_of(caught.value)
    assert (error.code, error.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "OVERLOADED")
    assert error.retry_delay == 1.0
    # More than one where the channel had to connect again: what is beyond the limit ends soon.
    assert metric(small, "vae_connections_refused_total") > refused


def test_a_connection_is_told_how_many_calls_it_may_have(small: ServiceProcess) -> None:
    client = RawClient(int(small.target.rpartition(":")[2]))
    first = client.read()
    client.close()
    assert first is not None
    assert frames.read_settings(first.payload)[frames.Setting.MAX_CONCURRENT_STREAMS] == 3


def test_what_has_been_answered_is_not_held(small: ServiceProcess) -> None:
    with VaeClient(small.target) as client:
        for _ in range(20):  # 1.3 MB in all
            client.decode("digits", np.zeros((2000, 8)))
    wait_until(lambda: metric(small, "vae_held_bytes") == 0)
