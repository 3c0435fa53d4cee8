"""Connections that share the calls of one load."""

import select
from collections.abc import Sequence

from benchmarks.http2 import Connection, Method


class Pool:
    """Spreads calls over connections; one that the server retires is replaced."""

    def __init__(self, target: str, method: Method, connections: int) -> None:
        host, _, port = target.rpartition(":")
        self._address = host.strip("[]"), int(port)
        self._method = method
        self._connections = [self._open() for _ in range(connections)]
        self._retired: list[Connection] = []

    def submit(self, token: float) -> None:
        """Queue a call on the connection with the fewest."""
        connections = self._connections
        best = connections[0]
        if len(connections) > 1:
            best = min(connections, key=lambda one: one.outstanding)
        best.submit(token)

    def poll(self, timeout: float) -> list[tuple[float, str]]:
        """Send what was queued, wait at most timeout seconds, and collect the calls that ended."""
        everyone = self._connections + self._retired if self._retired else self._connections
        for connection in everyone:
            connection.flush()
        ended: list[tuple[float, str]] = []
        for connection in _readable(everyone, max(timeout, 0.0)):
            ended += connection.receive()
            if connection.going_away:
                self._replace(connection)
        return ended

    def close(self) -> None:
        """Close every connection; calls that have not ended are lost."""
        for connection in self._connections + self._retired:
            connection.close()

    def _open(self) -> Connection:
        return Connection(*self._address, self._method)

    def _replace(self, connection: Connection) -> None:
        if connection in self._connections:
            self._connections[self._connections.index(connection)] = self._open()
            self._retired.append(connection)
        if not connection.outstanding:
            self._retired.remove(connection)
            connection.close()


def _readable(connections: Sequence[Connection], timeout: float) -> list[Connection]:
    """`select` waits to the microsecond, where epoll rounds up to milliseconds."""
    by_socket = {connection.socket: connection for connection in connections}
    blocked = [connection.socket for connection in connections if connection.blocked]
    readable, _, _ = select.select(list(by_socket), blocked, (), timeout)
    return [by_socket[socket] for socket in readable]
