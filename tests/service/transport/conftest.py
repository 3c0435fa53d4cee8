"""Servers and clients for a test, ended with it."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from service.transport.http2 import frames
from tests.service.transport.raw_client import RawClient
from tests.service.transport.served import Server


@pytest.fixture
def serve() -> Iterator[Callable[..., Server]]:
    """Starts transports, with options of their own."""
    servers: list[Server] = []

    def start(**options: Any) -> Server:
        servers.append(Server(**options))
        return servers[-1]

    yield start
    for server in servers:
        server.close()


@pytest.fixture
def server(serve: Callable[..., Server]) -> Iterator[Server]:
    started = serve()
    yield started
    assert started.records.errors == []


@pytest.fixture
def connect(server: Server) -> Iterator[Callable[..., RawClient]]:
    """Connects clients, which have exchanged settings unless settings is None."""
    clients: list[RawClient] = []

    def start(settings: dict[frames.Setting, int] | None = None, to: Server = server) -> RawClient:
        client = RawClient(to.transport.port, {} if settings is None else settings)
        clients.append(client)
        return client

    yield start
    for client in clients:
        client.close()
