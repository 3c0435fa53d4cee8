"""/livez and /readyz over a real socket."""

import asyncio
import contextlib
import socket
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator

import pytest
from prometheus_client import CollectorRegistry, Gauge

from service.merged import all_say_yes
from service.probes import Probe, runs, serve_probes
from tests.integration.waiting import wait_until


@contextlib.contextmanager
def serving(alive: Probe, ready: Probe, host: str = "127.0.0.1") -> Iterator[int]:
    """The port of a server of probes and of one metric."""
    registry = CollectorRegistry()
    Gauge("answer", "Of everything.", registry=registry).set(42)
    server, port = serve_probes(host, 0, registry, alive, ready)
    try:
        yield port
    finally:
        server.shutdown()
        server.server_close()


def yes() -> bool:
    return True


def no() -> bool:
    return False


def get(port: int, path: str, host: str = "127.0.0.1") -> tuple[int, str]:
    """Status and body."""
    try:
        with urllib.request.urlopen(f"http://{host}:{port}{path}", timeout=10) as response:
            return response.status, response.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


@pytest.mark.parametrize(
    ("path", "alive", "ready", "expected"),
    [
        ("/livez", yes, no, (200, "yes\n")),
        ("/livez", no, yes, (503, "no\n")),
        ("/readyz", no, yes, (200, "yes\n")),
        ("/readyz", yes, no, (503, "no\n")),
        ("/readyz?verbose", yes, no, (503, "no\n")),
    ],
)
def test_a_probe_is_answered_by_its_status(
    path: str, alive: Probe, ready: Probe, expected: tuple[int, str]
) -> None:
    with serving(alive, ready) as port:
        assert get(port, path) == expected


def test_metrics_have_one_path_and_other_paths_say_which_there_are() -> None:
    with serving(yes, yes) as port:
        assert "answer 42.0" in get(port, "/metrics")[1]
        code, text = get(port, "/ready")
    assert code == 404
    assert "/readyz" in text


def test_probes_can_be_served_on_an_address_of_ipv6() -> None:
    with serving(yes, no, "::1") as port:
        assert get(port, "/livez", "[::1]")[0] == 200


def test_who_connects_and_says_nothing_keeps_no_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.probes._PATIENCE", 0.05)
    with serving(yes, yes) as port:
        before = threading.active_count()
        silent = [socket.create_connection(("127.0.0.1", port), timeout=10) for _ in range(5)]
        silent[0].sendall(b"GET /livez HTTP/1.1\r\n")
        for each in silent:
            assert each.recv(1) == b""  # closed
            each.close()
        assert get(port, "/livez")[0] == 200
        wait_until(lambda: threading.active_count() <= before)


def sends_until_closed(client: socket.socket) -> None:
    """A byte now and then, of a request that never ends."""
    client.settimeout(0.02)
    with contextlib.suppress(ConnectionError):
        while True:
            client.sendall(b"x")
            with contextlib.suppress(TimeoutError):
                if client.recv(1) == b"":
                    return


def test_who_sends_a_byte_now_and_then_keeps_no_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.probes._PATIENCE", 0.2)
    with serving(yes, yes) as port:
        before = threading.active_count()
        with socket.create_connection(("127.0.0.1", port)) as client:
            client.sendall(b"GET /livez HTTP/1.1\r\nX: ")
            sends_until_closed(client)
        wait_until(lambda: threading.active_count() <= before)


def test_slow_clients_make_room_for_a_probe(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.probes._MOST", 3)
    with serving(yes, yes) as port, contextlib.ExitStack() as stack:
        silent = [
            stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=10))
            for _ in range(4)
        ]
        for each in silent:
            each.sendall(b"GET /livez HTTP/1.1\r\n")
        assert get(port, "/livez")[0] == 200
        assert [each.recv(1) for each in silent[:2]] == [b"", b""]
        silent[3].sendall(b"\r\n")
        assert silent[3].recv(15) == b"HTTP/1.0 200 OK"


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ([b"X: " + b"a" * 2**16], b"431"),
        ([b"X-%d: a" % index for index in range(10_000)], b"431"),
        ([b"X: a\0b", b"Y: \xff\xfe", b"no colon"], b"200"),
    ],
    ids=["long", "many", "odd"],
)
def test_headers_without_measure_harm_nobody(headers: list[bytes], status: bytes) -> None:
    with serving(yes, yes) as port:
        with socket.create_connection(("127.0.0.1", port), timeout=10) as client:
            with contextlib.suppress(ConnectionError):  # it is closed before all is read
                client.sendall(b"\r\n".join((b"GET /livez HTTP/1.1", *headers, b"", b"")))
            assert client.recv(12) == b"HTTP/1.0 " + status
        assert get(port, "/livez")[0] == 200


def test_an_address_in_use_is_an_error() -> None:
    with (
        serving(yes, yes) as port,
        pytest.raises(OSError, match=f"^cannot listen on 127.0.0.1:{port} for metrics: .* in use$"),
    ):
        serve_probes("127.0.0.1", port, CollectorRegistry(), yes, yes)


def test_a_loop_that_runs_is_told_from_one_that_hangs_and_one_that_is_closed() -> None:
    loop = asyncio.new_event_loop()
    alive = runs(loop, 0.01)
    assert not alive()  # it does not run: nothing is answered
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    assert runs(loop)()
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()
    assert not alive()


@pytest.mark.parametrize(
    ("processes", "expected"), [((), True), ((yes,), True), ((yes, yes), True), ((yes, no), False)]
)
def test_processes_say_yes_when_each_of_those_that_listen_does(
    processes: tuple[Callable[[], bool], ...], expected: bool
) -> None:
    with contextlib.ExitStack() as stack:
        ports = [stack.enter_context(serving(yes, ready)) for ready in processes]
        assert all_say_yes(lambda: dict(enumerate(ports)), "/readyz") is expected


def test_a_process_that_has_gone_does_not_say_yes() -> None:
    with serving(yes, yes) as port:
        pass
    assert not all_say_yes(lambda: {0: port}, "/livez")
