"""Streams that are answered request by request, in order, with several in work at a time."""

import threading
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any, Generic, TypeVar

from service.completion import Completion, Task
from service.errors import QueueFull, ServiceError
from service.spans import inherited
from service.transport import Response, Stream

T = TypeVar("T")
_IN_WORK = 16  # requests of one stream that are read ahead; bounds its memory


async def answer_in_order(
    stream: Stream, answer: Callable[[Any], Coroutine[Completion[Any], None, Response]]
) -> None:
    """Sends the answer to every request of stream, in their order.

    Requests are read while answers are computed and sent, so that batches fill. One that finds a
    queue full tries again when those before it are answered, as the stream may have filled it by
    itself. The first error, of a request or of the stream, ends it after the answers before.
    """
    line: _Line[tuple[Any, Completion[Response]] | None] = _Line(_IN_WORK)

    async def read() -> None:
        while True:
            try:
                request = await stream.receive()
            except ServiceError as error:  # in its place, after the answers to what came before
                failed: Completion[Response] = Completion()
                failed.settle(error=error)
                await line.put((None, failed))
                return
            if request is None:
                await line.put(None)
                return
            await line.put((request, _begin(answer(request))))

    _begin(read())
    try:
        while (item := await line.get()) is not None:
            request, answered = item
            try:
                response = await answered
            except QueueFull:
                response = await answer(request)
            await stream.send(response)
    finally:
        line.close()


def _begin(coroutine: Coroutine[Completion[Any], None, T]) -> Completion[T]:
    """Runs a coroutine beside its caller."""
    completion: Completion[T] = Completion()
    Task(inherited(coroutine), completion.settle).step()
    return completion


class _Line(Generic[T]):
    """A queue between two handlers that holds so many things; for one on each side."""

    def __init__(self, room: int) -> None:
        self._room = room
        self._things: deque[T] = deque()
        self._lock = threading.Lock()
        self._changed: Completion[None] = Completion()
        self._closed = False

    async def put(self, thing: T) -> None:
        """Waits for room and adds a thing; drops it once the line is closed."""
        while True:
            with self._lock:
                if self._closed:
                    return
                if len(self._things) < self._room:
                    self._things.append(thing)
                    changed = self._change()
                    break
                changed = self._changed
            await changed
        changed.settle()

    async def get(self) -> T:
        """Waits for a thing and takes it."""
        while True:
            with self._lock:
                if self._things:
                    thing = self._things.popleft()
                    changed = self._change()
                    break
                changed = self._changed
            await changed
        changed.settle()
        return thing

    def close(self) -> None:
        """Wakes whoever waits to put: nobody gets any more."""
        with self._lock:
            self._closed = True
            changed = self._change()
        changed.settle()

    def _change(self) -> Completion[None]:
        """The completion that tells of this change; a new one tells of the next."""
        changed, self._changed = self._changed, Completion()
        return changed
