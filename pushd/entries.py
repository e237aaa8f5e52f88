"""Entries of one channel that follow each other, in memory."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Generator

from pushd.event import Entry

__all__ = ["FEW", "Entries", "Later", "at_once", "freeing"]

FEW = 250
"""How many entries are dropped one by one, which takes about 0.1 ms; more are left to `freeing`."""

_FREED_IN_STEP = 50

Later = Callable[[Generator[None, None, None]], object]
"""Does a work in steps, now or later: `at_once`, or `pushd.steps.Steps.run`."""


def at_once(work: Generator[None, None, None]) -> None:
    """Do all steps of a work now."""
    for _ in work:
        pass


def freeing(gone: list[Entry], forget: Callable[[Entry], None] | None = None) -> Generator[None, None, None]:
    """Free entries that nobody has any more, the oldest first, in steps, and have `forget` told of each before."""
    gone.reverse()
    while gone:
        if forget is not None:
            for entry in gone[: -_FREED_IN_STEP - 1 : -1]:
                forget(entry)
        del gone[-_FREED_IN_STEP:]
        yield


class Entries:
    """Entries of one channel, oldest first, their offsets without holes.

    It is a list with a moving head, so that an entry is found by its offset at once, and by its place in the
    log by bisection. There is nothing before the head once there is nothing behind it.
    """

    __slots__ = ("_entries", "_head")

    def __init__(self) -> None:
        self._entries: list[Entry] = []
        self._head = 0

    def __len__(self) -> int:
        return len(self._entries) - self._head

    @property
    def oldest(self) -> Entry | None:
        """The first entry, if there is one."""
        return self._entries[self._head] if self._entries else None

    @property
    def latest(self) -> Entry | None:
        """The last entry, if there is one."""
        return self._entries[-1] if self._entries else None

    def extend(self, entries: list[Entry]) -> None:
        """Add the next entries; their offsets must follow the latest one's."""
        self._entries += entries

    def drop_until(self, offset: int) -> list[Entry]:
        """Take away the entries before `offset`; return them if they are many, for `freeing`."""
        oldest = self.oldest
        if oldest is None or oldest.offset >= offset:
            return []
        count = min(offset - oldest.offset, len(self))
        if count > FEW:
            return self.take(count)
        del self._entries[: self._head + count]
        self._head = 0
        return []

    def take(self, count: int) -> list[Entry]:
        """Take away the first `count` entries, of which there must be as many, and return them."""
        end = self._head + count
        if end < len(self._entries) or self._head:
            gone = self._entries[self._head : end]
            del self._entries[:end]
        else:
            gone, self._entries = self._entries, []
        self._head = 0
        return gone

    def after(self, sequence: int) -> Entry | None:
        """Answer the first entry whose event came after `sequence` in the log."""
        index = bisect_right(self._entries, sequence, lo=self._head, key=_sequence)
        return self._entries[index] if index < len(self._entries) else None

    def run(self, first: int, count: int) -> list[Entry]:
        """Answer up to `count` entries from the offset `first` on, none if that one is not here."""
        oldest = self.oldest
        if oldest is None or first < oldest.offset:
            return []
        place = self._head + first - oldest.offset
        return self._entries[place : place + count]

    def at(self, offset: int) -> Entry | None:
        """Answer the entry at `offset`, if it is here."""
        oldest = self.oldest
        if oldest is None or not oldest.offset <= offset < oldest.offset + len(self):
            return None
        return self._entries[self._head + offset - oldest.offset]


def _sequence(entry: Entry) -> int:
    return entry.event.sequence
