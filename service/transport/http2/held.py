"""Bytes of requests and answers that are in memory, of all clients of a transport."""

import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from service.transport.http2.rpc import Rpc


class Held:
    """Counts them, by RPC and connection, until their streams are gone. From any thread."""

    def __init__(self, most: int) -> None:
        self.bytes = 0
        self._most = most
        self._lock = threading.Lock()

    @property
    def full(self) -> bool:
        """Whether there are more than may be."""
        return self.bytes > self._most

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
        self.bytes += size
