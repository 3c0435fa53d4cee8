"""Listening sockets, and the connections that come in by them."""

import contextlib
import errno
import itertools
import socket
import ssl
from collections.abc import Iterator
from typing import Final

from service.reread import Reread

_BACKLOG: Final = 1024
_ACCEPTED: Final = 64  # connections at a time, between reads
_GONE: Final = {errno.ECONNABORTED, errno.EPROTO}  # the client left before it was accepted


def listen(address: str, *, reuse_port: bool) -> list[socket.socket]:
    """Sockets for "HOST:PORT" or "[IPV6]:PORT", one for each address of the host.

    "[::]" is every address, of IPv4 too, on a machine without IPv6 of IPv4 alone. Port 0 takes a
    free one. Raises OSError if the address cannot be had.
    """
    host, _, text = address.rpartition(":")
    host, port = host.removeprefix("[").removesuffix("]"), int(text)
    sockets: list[socket.socket] = []
    try:
        if host == "::" and not socket.has_dualstack_ipv6():
            host = "0.0.0.0"  # noqa: S104 - what was asked for
        for family, _, _, _, name in socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        ):
            sockets.append(
                socket.create_server(
                    (name[0], port),
                    family=family,
                    backlog=_BACKLOG,
                    reuse_port=reuse_port,
                    dualstack_ipv6=host == "::",
                )
            )
            port = sockets[0].getsockname()[1]
    except (OSError, OverflowError) as error:
        for each in sockets:
            each.close()
        in_use = isinstance(error, OSError) and error.errno == errno.EADDRINUSE
        reason = "the port is in use" if in_use else str(error)
        raise OSError(f"cannot listen on {address}: {reason}") from error
    for each in sockets:
        each.setblocking(False)
    return sockets


def accept(
    listener: socket.socket, certificates: Reread[ssl.SSLContext] | None
) -> Iterator[socket.socket]:
    """Those who wait, a number of them. Raises OSError if no more files can be opened."""
    for _ in itertools.repeat(None, _ACCEPTED):
        try:
            sock, _ = listener.accept()
        except BlockingIOError:
            return
        except OSError as error:
            if error.errno in _GONE:
                continue
            raise
        sock.setblocking(False)
        with contextlib.suppress(OSError):  # it is gone, which reading will tell
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if certificates is None:
            yield sock
            continue
        context = certificates.content()
        try:
            yield context.wrap_socket(sock, server_side=True, do_handshake_on_connect=False)
        except OSError:  # it is gone already
            sock.close()
