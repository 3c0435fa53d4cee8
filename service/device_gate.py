"""Who may use the device while a CUDA graph is captured on it: no other thread of the process."""

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager


class DeviceGate:
    """Shared by whatever uses the device; held alone by a capture.

    onnxruntime captures in CUDA's global mode, in which another thread's allocation, copy or
    synchronization fails, and spoils the capture. A thread that is inside may enter again: the
    garbage collector ends sessions on any thread, at any moment.
    """

    def __init__(self) -> None:
        self._condition = threading.Condition()
        self._inside: Counter[int] = Counter()  # entries by thread
        self._claimant: int | None = None  # the thread that is alone, or waits for it

    @contextmanager
    def shared(self) -> Iterator[None]:
        """Waits until no other thread is alone or waits for it, so that none waits for ever."""
        me = threading.get_ident()
        with self._condition:
            while me not in self._inside and self._claimant not in (None, me):
                self._condition.wait()
            self._inside[me] += 1
        try:
            yield
        finally:
            with self._condition:
                self._inside[me] -= 1
                if not self._inside[me]:
                    del self._inside[me]
                    self._condition.notify_all()

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Waits until no other thread is inside. The caller must not be inside itself."""
        me = threading.get_ident()
        with self._condition:
            while self._claimant is not None:
                self._condition.wait()
            self._claimant = me
            while self._inside:
                self._condition.wait()
        try:
            yield
        finally:
            with self._condition:
                self._claimant = None
                self._condition.notify_all()
