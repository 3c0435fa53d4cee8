"""What a handler awaits, and who drives a handler: no event loop is needed, and any will do.

A handler is a coroutine that awaits `Completion`s only. A `Task` runs it on the thread that starts
it until it awaits, and then on whatever thread settles what it awaits. So the same handler runs
under grpc's asyncio server and under a loop of our own, and costs two calls for each await.
"""

import threading
from collections.abc import Callable, Coroutine, Generator
from concurrent.futures import Executor
from typing import Any, Generic, TypeVar

from service.errors import Cancelled

T = TypeVar("T")


class Completion(Generic[T]):
    """A value or an error that comes later; settled once, from any thread.

    The first of several settlements counts. Popping from a list is atomic under the GIL, which
    makes both promises without a lock: one pop wins the settlement, one pop wins the callback.
    """

    __slots__ = ("_callback", "_error", "_open", "_value", "done")

    def __init__(self) -> None:
        self.done = False
        self._open = [True]
        self._callback: list[Callable[[], object]] = []
        self._value: T | None = None
        self._error: BaseException | None = None

    def settle(self, value: T | None = None, error: BaseException | None = None) -> None:
        """Sets the value or the error, and wakes whoever waits, on this thread."""
        try:
            self._open.pop()
        except IndexError:
            return
        self._value = value
        self._error = error
        self.done = True
        self._call_back()

    def cancel(self) -> None:
        """Settles with Cancelled: nobody waits for the value any more."""
        self.settle(error=Cancelled("the caller is gone"))

    def when_done(self, callback: Callable[[], object]) -> None:
        """Calls back once it is settled, at once if it is; for one caller."""
        self._callback.append(callback)
        if self.done:
            self._call_back()

    def __await__(self) -> Generator["Completion[T]", None, T]:
        if not self.done:
            yield self
        if self._error is not None:
            raise self._error
        return self._value  # type: ignore[return-value]  # settled without an error

    def _call_back(self) -> None:
        try:
            callback = self._callback.pop()
        except IndexError:
            return
        callback()


class Task(Generic[T]):
    """A running handler. `finish` gets its value or its error, once, on the thread that ends it."""

    __slots__ = ("_cancelled", "_coroutine", "_finish", "_waiting")

    def __init__(
        self,
        coroutine: Coroutine[Completion[Any], None, T],
        finish: Callable[[T | None, BaseException | None], object],
    ) -> None:
        self._coroutine = coroutine
        self._finish = finish
        self._waiting: Completion[Any] | None = None
        self._cancelled = False

    def step(self) -> None:
        """Runs the handler until it awaits or ends."""
        try:
            waiting = self._coroutine.send(None)
        except StopIteration as stop:
            self._finish(stop.value, None)
        except Cancelled as error:
            # Its traceback leads to who cancelled, who has what waited, which has the error: a
            # cycle, and with it all that the handler had, until the collector comes by.
            self._finish(None, error.with_traceback(None))
        except Exception as error:  # noqa: BLE001 - the boundary of a handler: finish decides
            self._finish(None, error)
        else:
            self._waiting = waiting
            if self._cancelled:
                waiting.cancel()
            waiting.when_done(self.step)

    def cancel(self) -> None:
        """Raises Cancelled where the handler awaits now, or will await next. From any thread."""
        self._cancelled = True
        if self._waiting is not None:
            self._waiting.cancel()


def run_on(executor: Executor, work: Callable[[], T]) -> Completion[T]:
    """Does blocking work on a thread of executor; settled with what it returns or raises."""
    completion: Completion[T] = Completion()

    def do() -> None:
        try:
            completion.settle(work())
        except Exception as error:  # noqa: BLE001 - whoever waits gets it
            completion.settle(error=error)

    executor.submit(do)
    return completion


def run(coroutine: Coroutine[Completion[Any], None, T]) -> T:
    """Drives a handler to its end and blocks meanwhile; for tests and tools."""
    ended = threading.Event()
    outcome: list[tuple[T | None, BaseException | None]] = []

    def finish(value: T | None, error: BaseException | None) -> None:
        outcome.append((value, error))
        ended.set()

    Task(coroutine, finish).step()
    ended.wait()
    value, error = outcome[0]
    if error is not None:
        raise error
    return value  # type: ignore[return-value]  # ended without an error
