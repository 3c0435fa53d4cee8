"""A real service process, called over a real socket."""

from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

from scripts.launch import ServiceProcess, running_service
from vae_client import VaeClient


@pytest.fixture(scope="session")
def service(digits_repository: Path) -> Iterator[ServiceProcess]:
    with running_service(digits_repository) as process:
        yield process


@pytest.fixture(scope="session")
def client(service: ServiceProcess) -> Iterator[VaeClient]:
    with VaeClient(service.target) as connected:
        yield connected


@pytest.fixture(scope="session")
def channel(service: ServiceProcess) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(service.target) as connected:
        yield connected
