"""How old connections become, on a clock that the test moves."""

import contextlib
import socket
from collections.abc import Callable
from typing import Any

from service.transport import ConnectionLifetimes
from service.transport.http2 import frames
from service.transport.http2.connection import Connection

AGE = 300.0
CONNECTIONS = 64


class Owner:
    """A transport without calls, at its connections' beck and call."""

    max_streams = 1

    def clock(self) -> float:
        return 0.0

    def call_soon(self, callback: Callable[[], object]) -> None:
        callback()

    def on_thread(self) -> bool:
        return True

    def open(self, *_: Any) -> Any:
        raise AssertionError("nobody calls")

    def unsent(self, connection: Connection) -> None:
        connection.outgoing.flush()

    def watch(self, connection: Connection, *, writable: bool) -> None:
        pass

    def closed(self, connection: Connection) -> None:
        pass


def asked_to_go(client: socket.socket) -> bool:
    """Whether what has arrived has a GOAWAY."""
    sent = b""
    with contextlib.suppress(BlockingIOError):
        sent = client.recv(2**16, socket.MSG_DONTWAIT)
    while sent:
        size, kind = int.from_bytes(sent[:3], "big"), sent[3]
        if kind == frames.GOAWAY:
            return True
        sent = sent[9 + size :]
    return False


def test_clients_that_came_together_go_at_different_times_within_a_tenth_of_the_age() -> None:
    lifetimes = ConnectionLifetimes(max_connection_age=AGE, keepalive_time=10 * AGE)
    pairs = [socket.socketpair() for _ in range(CONNECTIONS)]
    connections = []
    for ours, theirs in pairs:
        theirs.sendall(frames.PREFACE + frames.settings({}))
        connections.append(Connection(ours, Owner(), lifetimes, 0.0))
        connections[-1].readable(0.0)

    going = [0]
    for share in (0.89, 0.95, 1.0, 1.05, 1.11):
        for connection in connections:
            connection.keep(share * AGE)
        going.append(going[-1] + sum(asked_to_go(theirs) for _, theirs in pairs))
    for pair in pairs:
        for end in pair:
            end.close()

    assert going[1] == 0
    assert going[1] < going[2] < going[3] < going[4] < going[5]
    assert going[5] == CONNECTIONS
