"""What the process that starts the others decides."""

import errno
import signal
import socket

import pytest

from service import processes
from service.processes import exit_code, reserved, restart_delay


def test_a_process_that_keeps_dying_is_started_later_each_time() -> None:
    delays = [0.0]
    for _ in range(7):
        delays.append(restart_delay(delays[-1], lived=2.0))

    assert delays[1:] == [1, 2, 4, 8, 16, 30, 30]


def test_a_process_that_lived_for_a_minute_is_started_again_at_once() -> None:
    assert restart_delay(30.0, lived=61.0) == 1.0


@pytest.mark.parametrize(
    ("code", "expected"), [(0, 0), (2, 2), (-signal.SIGKILL, 137), (-signal.SIGTERM, 0)]
)
def test_exit_codes_are_those_of_a_shell_and_sigterm_is_no_failure(
    code: int, expected: int
) -> None:
    assert exit_code(code) == expected


def test_an_address_that_is_held_can_be_shared_but_not_taken() -> None:
    with reserved("127.0.0.1:0") as port:
        with reserved(f"127.0.0.1:{port}") as again:
            assert again == port
        with socket.socket() as other, pytest.raises(OSError, match="in use"):
            other.bind(("127.0.0.1", port))


@pytest.fixture(params=[errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL])
def without_ipv6(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine whose kernel has no IPv6, or has it switched off."""
    bound = processes._bound

    def refuse(family: socket.AddressFamily, host: str, port: int) -> socket.socket:
        if family is socket.AF_INET6:
            raise OSError(request.param, "no IPv6 here")
        return bound(family, host, port)

    monkeypatch.setattr(processes, "_bound", refuse)


@pytest.mark.usefixtures("without_ipv6")
def test_without_ipv6_every_address_is_every_address_of_ipv4() -> None:
    with reserved("[::]:0") as port:
        assert port > 0


@pytest.mark.usefixtures("without_ipv6")
def test_without_ipv6_an_address_of_it_is_an_error_that_names_it() -> None:
    with (
        pytest.raises(OSError, match=r"cannot listen on \[::1\]:0: no IPv6 here"),
        reserved("[::1]:0"),
    ):
        pass
