"""A real service process, called over a real socket."""

import functools
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import grpc
import pytest
from inference.inference_service_pb2_grpc import GRPCInferenceServiceStub

from scripts.launch import ServiceProcess, running_service
from vae_client import VaeClient


@pytest.fixture(scope="session", params=["http2", "public"])
def transport(request: pytest.FixtureRequest) -> str:
    """The transports: one suite for both."""
    return str(request.param)


@pytest.fixture
def start_service(
    digits_repository: Path, transport: str
) -> Callable[..., AbstractContextManager[ServiceProcess]]:
    """Starts another service, with options of its own."""
    return functools.partial(running_service, digits_repository, "--transport", transport)


@pytest.fixture(scope="session")
def service(digits_repository: Path, transport: str) -> Iterator[ServiceProcess]:
    with running_service(digits_repository, "--transport", transport) as process:
        yield process


@pytest.fixture(scope="session")
def client(service: ServiceProcess) -> Iterator[VaeClient]:
    with VaeClient(service.target) as connected:
        yield connected


@pytest.fixture(scope="session")
def channel(service: ServiceProcess) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(service.target) as connected:
        yield connected


@pytest.fixture(scope="session")
def stub(channel: grpc.Channel) -> GRPCInferenceServiceStub:
    """Calls the Open Inference Protocol."""
    return GRPCInferenceServiceStub(channel)
