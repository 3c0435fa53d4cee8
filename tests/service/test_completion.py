"""What a handler awaits, and who drives it."""

import threading
from typing import Any

import pytest

from service.completion import Completion, Task, run
from service.errors import Cancelled

Ends = list[tuple[Any, BaseException | None]]


async def await_both(first: Completion[int], second: Completion[int]) -> int:
    return await first + await second


def started(*completions: Completion[int]) -> tuple[Task[int], Ends]:
    ends: Ends = []
    task = Task(await_both(*completions), lambda value, error: ends.append((value, error)))
    task.step()
    return task, ends


def test_a_handler_goes_on_when_what_it_awaits_is_settled() -> None:
    first, second = Completion[int](), Completion[int]()
    _, ends = started(first, second)

    first.settle(1)
    assert ends == []
    second.settle(2)

    assert ends == [(3, None)]


def test_a_handler_does_not_stop_for_what_is_settled_already() -> None:
    first, second = Completion[int](), Completion[int]()
    first.settle(1)
    second.settle(2)

    _, ends = started(first, second)

    assert ends == [(3, None)]


def test_an_error_is_raised_where_it_is_awaited() -> None:
    first, second = Completion[int](), Completion[int]()
    _, ends = started(first, second)
    error = ValueError("no")

    first.settle(error=error)

    assert ends == [(None, error)]


def test_the_first_settlement_counts() -> None:
    first, second = Completion[int](), Completion[int]()
    _, ends = started(first, second)

    first.settle(1)
    first.settle(error=ValueError("late"))
    second.settle(1)

    assert ends == [(2, None)]


def test_cancelling_ends_a_handler_where_it_waits() -> None:
    task, ends = started(Completion[int](), Completion[int]())

    task.cancel()

    [(value, error)] = ends
    assert value is None
    assert isinstance(error, Cancelled)


def test_a_handler_that_is_cancelled_while_it_runs_ends_at_its_next_await() -> None:
    first = Completion[int]()
    ends: Ends = []

    async def handler() -> int:
        await first
        task.cancel()
        return await Completion[int]()

    task = Task(handler(), lambda value, error: ends.append((value, error)))
    task.step()
    first.settle(1)

    assert isinstance(ends[0][1], Cancelled)


def test_a_handler_may_clean_up_when_it_is_cancelled() -> None:
    cleaned: list[bool] = []

    async def handler() -> None:
        try:
            await Completion[None]()
        finally:
            cleaned.append(True)

    task = Task(handler(), lambda value, error: None)
    task.step()
    task.cancel()

    assert cleaned == [True]


def test_run_waits_for_what_another_thread_settles() -> None:
    first, second = Completion[int](), Completion[int]()
    threads = [
        threading.Thread(target=first.settle, args=(1,)),
        threading.Thread(target=second.settle, args=(2,)),
    ]
    for thread in threads:
        thread.start()

    assert run(await_both(first, second)) == 3


def test_run_raises_what_the_handler_raises() -> None:
    async def handler() -> None:
        raise KeyError("x")

    with pytest.raises(KeyError):
        run(handler())


def test_settling_and_waiting_at_the_same_time_wakes_exactly_once() -> None:
    for _ in range(300):
        completion = Completion[int]()
        calls: list[bool] = []
        barrier = threading.Barrier(3)

        def settle(completion: Completion[int] = completion, barrier: Any = barrier) -> None:
            barrier.wait()
            completion.settle(1)

        def wait(
            completion: Completion[int] = completion, barrier: Any = barrier, calls: Any = calls
        ) -> None:
            barrier.wait()
            completion.when_done(lambda: calls.append(True))

        threads = [threading.Thread(target=target) for target in (settle, settle, wait)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert calls == [True]
