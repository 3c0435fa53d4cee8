"""Bytes that clients make a transport hold.

Those of messages are counted as they come and go. What costs no less to count than to have (calls
that are open, bytes that wait for a socket) is looked at now and then instead, by connection.
"""

import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from service.transport.http2.connection import Connection
    from service.transport.http2.rpc import Rpc


class Held:
    """Counts them, by RPC and connection, until their streams are gone. From any thread, but for
    `weigh`."""

    def __init__(self, most: int) -> None:
        self._messages = 0
        self._beside = 0  # of messages: what connections take besides, when last looked at
        self._most = most
        self._lock = threading.Lock()

    @property
    def bytes(self) -> int:
        """All of them."""
        return self._messages + self._beside

    @property
    def full(self) -> bool:
        """Whether there are more than may be."""
        return self._messages + self._beside > self._most

    def weigh(self, connection: "Connection") -> int:
        """Looks at what a connection takes besides messages; returns what it holds in all."""
        beside = connection.overhead()
        self._beside += beside - connection.weighed
        connection.weighed = beside
        return connection.held + beside

    def add(self, rpc: "Rpc", size: int) -> None:
        """Counts bytes for an RPC; negative ones are given back. Not if its stream is gone."""
        with self._lock:
            if rpc.stream in rpc.connection.rpcs:
                self._count(rpc, size)

    def release(self, rpc: "Rpc") -> None:
        """Gives back what an RPC held whose stream is gone."""
        with self._lock:
            self._count(rpc, -rpc.held)

    def _count(self, rpc: "Rpc", size: int) -> None:
        rpc.held += size
        rpc.connection.held += size
        self._messages += size
