"""The RPC that a handler works for, known to what it calls while it runs.

Only where an RPC is traced: a handler that is not is driven as it is, and pays nothing.
"""

import time
from collections.abc import Callable, Coroutine, Generator
from contextvars import ContextVar
from typing import Any, Generic, Protocol, TypeVar

from service.batching import Entry
from service.completion import Completion

T = TypeVar("T")


class Recorder(Protocol):
    """What a traced RPC is told. Times are seconds of time.monotonic. From any thread."""

    def queued(self, graph: str, started: float, ended: float) -> None:
        """Items waited for a batch."""
        ...

    def computed(self, graph: str, started: float, ended: float, items: int) -> None:
        """Items ran, in one batch or several."""
        ...


_current: ContextVar[Recorder | None] = ContextVar("recorder", default=None)


class Within(Generic[T]):
    """Awaits a handler, on whichever threads it runs, as the work of an RPC."""

    def __init__(self, recorder: Recorder, handler: Coroutine[Completion[Any], None, T]) -> None:
        self._recorder = recorder
        self._handler = handler

    def __await__(self) -> Generator[Completion[Any], None, T]:
        while True:
            token = _current.set(self._recorder)
            try:
                waiting = self._handler.send(None)
            except StopIteration as stop:
                return stop.value  # type: ignore[no-any-return]  # the handler's, so a T
            finally:
                _current.reset(token)
            yield waiting


def inherited(handler: Coroutine[Completion[Any], None, T]) -> Coroutine[Completion[Any], None, T]:
    """A handler that runs beside its caller, as the work of the same RPC."""
    recorder = _current.get()
    if recorder is None:
        return handler

    async def within() -> T:
        return await Within(recorder, handler)

    return within()


def follow(graph: str) -> Callable[[Entry], None]:
    """For `Batcher`: tells the RPC that submits an entry how long it waits and runs."""

    def admitted(entry: Entry) -> None:
        recorder = _current.get()
        if recorder is None:
            return
        on_done = entry.on_done

        def done(ended: Entry) -> None:
            now = time.monotonic()
            started = now if ended.started is None else ended.started
            recorder.queued(graph, ended.admitted, started)
            if ended.started is not None:
                recorder.computed(graph, ended.started, now, ended.items)
            on_done(ended)

        entry.on_done = done

    return admitted
