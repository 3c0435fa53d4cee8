"""A host of its own for a replica: a network namespace, and a cable to it that can be cut."""

import contextlib
import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass

_NETWORK = "203.0.113.0/24"  # for documentation (RFC 5737): nobody's
_OURS, _THEIRS = "203.0.113.1", "203.0.113.2"
_NOBODY = "02:00:00:00:00:01"  # a hardware address that no device has


class NotAllowedError(Exception):
    """This machine lets us make no namespaces."""


@dataclass(frozen=True)
class Host:
    """name: of the namespace, and of our end of the cable to it."""

    name: str
    address: str = _THEIRS

    @property
    def command(self) -> tuple[str, ...]:
        """Runs on this host what follows."""
        return ("ip", "netns", "exec", self.name)

    def cut(self) -> None:
        """From now on nothing arrives at either end, and neither is told."""
        _ip("neighbour", "replace", _THEIRS, "lladdr", _NOBODY, "dev", self.name)
        _ip("-n", self.name, "neighbour", "replace", _OURS, "lladdr", _NOBODY, "dev", "eth0")

    def mend(self) -> None:
        """Both ends reach each other again."""
        _ip("neighbour", "delete", _THEIRS, "dev", self.name)
        _ip("-n", self.name, "neighbour", "delete", _OURS, "dev", "eth0")


@contextlib.contextmanager
def another_host() -> Iterator[Host]:
    """A host that this one alone can reach. Raises NotAllowedError with the reason."""
    name = f"vae{os.getpid()}"
    with contextlib.ExitStack() as stack:
        # Without the cable nothing may take the way out of this machine instead.
        _ip("route", "replace", "unreachable", _NETWORK)
        stack.callback(_ip, "route", "delete", "unreachable", _NETWORK)
        _ip("netns", "add", name)
        stack.callback(_ip, "netns", "delete", name)  # and the cable with it
        _ip("link", "add", name, "type", "veth", "peer", "name", "eth0", "netns", name)
        _ip("address", "add", f"{_OURS}/30", "dev", name)
        _ip("link", "set", name, "up")
        _ip("-n", name, "address", "add", f"{_THEIRS}/30", "dev", "eth0")
        for device in ("lo", "eth0"):
            _ip("-n", name, "link", "set", device, "up")
        yield Host(name)


def _ip(*arguments: str) -> None:
    try:
        subprocess.run(["ip", *arguments], check=True, capture_output=True, text=True)
    except FileNotFoundError as error:
        raise NotAllowedError("there is no program `ip` (Debian's package iproute2)") from error
    except subprocess.CalledProcessError as error:
        raise NotAllowedError(f"ip {' '.join(arguments)}: {error.stderr.strip()}") from error
