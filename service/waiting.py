"""What waits in a batcher, in the order in which it runs. No threads, no clock, no metrics."""

import math
from bisect import bisect_right
from collections import Counter, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from service.errors import ServiceError

Arrays = Mapping[str, NDArray[np.generic]]


@dataclass(eq=False, slots=True)
class Entry:
    """One request in the queue, and its completion. level: 1 is the most urgent.

    `on_done` is called exactly once, on any thread, when `outputs` or `error` is set; after
    cancel() it may not be called at all. It must not raise. Then `started` is when its first item
    was taken into a batch, `seconds` what its batches ran, and `batch_items` the items, without
    padding, of the largest of them.
    """

    inputs: Arrays
    items: int
    deadline: float | None
    on_done: Callable[["Entry"], None]
    admitted: float
    level: int = 1
    started: float | None = None
    outputs: Arrays | None = None
    error: ServiceError | None = None
    cancelled: bool = False
    seconds: float = 0.0
    batch_items: int = 0
    taken: int = 0
    answered: int = 0
    parts: list[tuple[int, Arrays]] = field(default_factory=list)

    def cancel(self) -> None:
        """Gives up: the caller is gone. The items leave when a batch is cut (see `Queue.take`)."""
        self.cancelled = True


class Part(NamedTuple):
    """The items start to stop of an entry, in one batch."""

    entry: Entry
    start: int
    stop: int


class Queue:
    """Entries, the most urgent level first and first in, first out within a level.

    Whoever calls it sees to it that nobody else does. capacity: items. As long as all entries are
    of one level, levels cost a comparison for each.
    """

    def __init__(self, capacity: int) -> None:
        self.items = 0  # that wait for a batch
        self._capacity = capacity
        self._entries: deque[Entry] = deque()
        self._next_deadline = math.inf  # nobody's is earlier; it may be that of one who has left

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def oldest(self) -> float:
        """When the first of those that wait was admitted."""
        first = self._entries[0]
        if first.level == self._entries[-1].level:
            return first.admitted
        return min(entry.admitted for entry in self._entries)

    def by_level(self) -> Mapping[int, int]:
        """Items that wait, by level. From any thread."""
        waiting: Counter[int] = Counter()
        for entry in list(self._entries):
            waiting[entry.level] += entry.items - entry.taken
        return waiting

    def has_room(self, items: int) -> bool:
        """Whether items fit; an empty queue takes any number, which otherwise could never run."""
        return not self._entries or self.items + items <= self._capacity

    def make_room(self, items: int, level: int) -> list[Entry]:
        """Takes less urgent entries out until items of a level fit, and returns them.

        The youngest of the least urgent go first; what has started stays. None goes, and so none is
        returned, where the items would not fit even then.
        """
        excess = self.items + min(items, self._capacity) - self._capacity
        leaving: list[int] = []
        for index in reversed(range(len(self._entries))):
            entry = self._entries[index]
            if excess <= 0 or entry.level <= level:
                break
            if not entry.taken:
                leaving.append(index)
                excess -= entry.items
        if excess > 0:
            return []
        entries = [self._entries[index] for index in leaving]
        for index in leaving:  # from the end on, so that the others stay where they are
            del self._entries[index]
        self.items -= sum(entry.items for entry in entries)
        return entries

    def add(self, entry: Entry) -> None:
        """Puts an entry behind those of its level."""
        entries = self._entries
        if not entries or entries[-1].level <= entry.level:
            entries.append(entry)
        else:
            entries.insert(bisect_right(entries, entry.level, key=_level), entry)
        self.items += entry.items
        if entry.deadline is not None and entry.deadline < self._next_deadline:
            self._next_deadline = entry.deadline

    def take(self, room: int, now: float) -> tuple[list[Part], list[Entry], int]:
        """The parts of a batch of at most room items, the entries that expired, and how many
        cancelled ones left.

        Expired entries leave wherever they are, so that one does whose turn never comes; cancelled
        ones when their turn comes or they expire.
        """
        expired, cancelled = self._sweep(now) if now >= self._next_deadline else ([], 0)
        parts: list[Part] = []
        entries = self._entries
        while entries and room:
            entry = entries[0]
            left = entry.items - entry.taken
            if entry.cancelled or entry.error is not None:
                cancelled += entry.cancelled
                entries.popleft()
                self.items -= left
                continue
            if not entry.taken:
                entry.started = now
            count = min(left, room)
            parts.append(Part(entry, entry.taken, entry.taken + count))
            entry.taken += count
            room -= count
            self.items -= count
            if count == left:
                entries.popleft()
        return parts, expired, cancelled

    def clear(self) -> list[Entry]:
        """Takes everything out."""
        entries = list(self._entries)
        self._entries.clear()
        self.items = 0
        return entries

    def _sweep(self, now: float) -> tuple[list[Entry], int]:
        """Takes out whose deadline has passed: those that wait for an answer, and how many have
        been cancelled."""
        expired: list[Entry] = []
        cancelled = 0
        staying: deque[Entry] = deque()
        self._next_deadline = math.inf
        for entry in self._entries:
            deadline = math.inf if entry.deadline is None else entry.deadline
            if deadline > now:
                staying.append(entry)
                self._next_deadline = min(self._next_deadline, deadline)
                continue
            self.items -= entry.items - entry.taken
            if entry.cancelled:
                cancelled += 1
            elif entry.error is None:
                expired.append(entry)
        self._entries = staying
        return expired, cancelled


def _level(entry: Entry) -> int:
    return entry.level
