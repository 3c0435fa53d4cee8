"""Who may use the device while a graph is captured on it."""

import threading
from collections.abc import Callable

import pytest

from service.device_gate import DeviceGate

SECONDS = 10.0


def start(target: Callable[[], None]) -> threading.Thread:
    thread = threading.Thread(target=target, daemon=True)
    thread.start()
    return thread


def test_several_threads_share_it_at_once() -> None:
    gate, both = DeviceGate(), threading.Barrier(2)

    def share() -> None:
        with gate.shared():
            both.wait(SECONDS)  # broken, which join() would not tell, if one waited for the other

    thread = start(share)
    share()
    thread.join(SECONDS)
    assert not both.broken


def told_to_wait(gate: DeviceGate) -> threading.Semaphore:
    """Is released whenever a thread finds that it has to wait at the gate."""
    waits, wait = threading.Semaphore(0), gate._condition.wait

    def tell(timeout: float | None = None) -> bool:
        waits.release()
        return wait(timeout)

    gate._condition.wait = tell  # type: ignore[method-assign]
    return waits


def test_who_is_alone_waits_for_those_inside_and_nobody_enters_meanwhile() -> None:
    gate, seen = DeviceGate(), list[str]()
    waits = told_to_wait(gate)

    def capture() -> None:
        with gate.alone():
            seen.append("captures")
            sharing.append(start(share))
            assert waits.acquire(timeout=SECONDS)
            seen.append("has captured")

    def share() -> None:
        with gate.shared():
            seen.append("runs")

    sharing: list[threading.Thread] = []
    with gate.shared():
        capturing = start(capture)
        assert waits.acquire(timeout=SECONDS)
        seen.append("leaves")
    capturing.join(SECONDS)
    sharing[0].join(SECONDS)
    assert seen == ["leaves", "captures", "has captured", "runs"]


def test_who_waits_to_be_alone_goes_before_those_who_come_later() -> None:
    gate, seen = DeviceGate(), list[str]()
    waits = told_to_wait(gate)

    def capture() -> None:
        with gate.alone():
            seen.append("captures")

    def share() -> None:
        with gate.shared():
            seen.append("runs")

    with gate.shared():
        threads = [start(capture)]
        assert waits.acquire(timeout=SECONDS)
        threads.append(start(share))
        assert waits.acquire(timeout=SECONDS)
    for thread in threads:
        thread.join(SECONDS)
    assert seen == ["captures", "runs"]


def test_a_thread_inside_may_enter_again_though_another_waits_to_be_alone() -> None:
    gate, alone = DeviceGate(), threading.Event()
    waits = told_to_wait(gate)

    def capture() -> None:
        with gate.alone():
            alone.set()

    with gate.shared():
        thread = start(capture)
        assert waits.acquire(timeout=SECONDS)
        with gate.shared():
            assert not alone.is_set()
    thread.join(SECONDS)
    assert alone.is_set()


def test_who_is_alone_may_share() -> None:
    gate = DeviceGate()
    with gate.alone(), gate.shared():
        pass
    with gate.alone():
        pass


def test_it_is_free_again_after_an_error() -> None:
    gate = DeviceGate()
    for enter in (gate.shared, gate.alone):
        with pytest.raises(RuntimeError), enter():
            raise RuntimeError
    with gate.alone():
        pass


def test_one_capture_waits_for_another() -> None:
    gate, inside, most = DeviceGate(), 0, 0

    def capture() -> None:
        nonlocal inside, most
        for _ in range(200):
            with gate.alone():
                inside += 1
                most = max(most, inside)
                inside -= 1

    threads = [start(capture) for _ in range(3)]
    for thread in threads:
        thread.join(SECONDS)
    assert (inside, most) == (0, 1)
