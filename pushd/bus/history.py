"""The history of one channel: the latest entries, limited by count, size and age."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Container, Generator, Sequence
from typing import Any, Protocol, cast

from pushd.bus.event import Entry
from pushd.bus.partitioned_dict import PARTS
from pushd.bus.sizes import GIVEN_OBJECT_BYTES, size_of

__all__ = ["FEW", "Entries", "FreeLater", "History", "MemoryHistory", "RetentionLimits", "at_once", "freeing"]

FEW = 250
"""The number of entries dropped one by one, in about 0.1 ms; larger numbers are left to `freeing`."""


_FREED_IN_STEP = 50


FreeLater = Callable[[Generator[None, None, None]], object]
"""Runs work in steps, now or later: `at_once`, or `pushd.sessions.long_work.LongWork.run`."""


def at_once(work: Generator[None, None, None]) -> None:
    """Run all steps of `work` now."""
    for _ in work:
        pass


def freeing(gone: list[Entry], forget: Callable[[Entry], None] | None = None) -> Generator[None, None, None]:
    """Free the dropped entries `gone`, oldest first, in steps; call `forget` for each before it is freed."""
    gone.reverse()
    while gone:
        if forget is not None:
            for entry in gone[: -_FREED_IN_STEP - 1 : -1]:
                forget(entry)
        del gone[-_FREED_IN_STEP:]
        yield


class Entries:
    """Entries of one channel, oldest first, with offsets without gaps.

    The entries are in a list with a moving head: a lookup by offset takes constant time, a lookup by sequence is a
    bisection. Once no entry is left, the list is empty, also before the head.
    """

    __slots__ = ("_entries", "_head")

    def __init__(self) -> None:
        self._entries: list[Entry] = []
        self._head = 0

    def __len__(self) -> int:
        return len(self._entries) - self._head

    @property
    def oldest(self) -> Entry | None:
        """The oldest entry, None if there is none."""
        return self._entries[self._head] if self._entries else None

    @property
    def latest(self) -> Entry | None:
        """The latest entry, None if there is none."""
        return self._entries[-1] if self._entries else None

    def extend(self, entries: list[Entry]) -> None:
        """Append entries; their offsets must follow the offset of the latest entry."""
        self._entries += entries

    def drop_until(self, offset: int) -> list[Entry]:
        """Remove the entries before `offset`; return the entries, for `freeing`, if more than `FEW`."""
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
        """Remove and return the first `count` entries, which must exist."""
        end = self._head + count
        if end < len(self._entries) or self._head:
            gone = self._entries[self._head : end]
            del self._entries[:end]
        else:
            gone, self._entries = self._entries, []
        self._head = 0
        return gone

    def after(self, sequence: int) -> Entry | None:
        """Return the first entry after `sequence` in the log, None if there is none."""
        index = bisect_right(self._entries, sequence, lo=self._head, key=_sequence)
        return self._entries[index] if index < len(self._entries) else None

    def run(self, first: int, count: int) -> list[Entry]:
        """Return up to `count` entries from the offset `first`; none if the entry at `first` is missing."""
        oldest = self.oldest
        if oldest is None or first < oldest.offset:
            return []
        place = self._head + first - oldest.offset
        return self._entries[place : place + count]

    def at(self, offset: int) -> Entry | None:
        """Return the entry at `offset`, None if it is missing."""
        oldest = self.oldest
        if oldest is None or not oldest.offset <= offset < oldest.offset + len(self):
            return None
        return self._entries[self._head + offset - oldest.offset]


def _sequence(entry: Entry) -> int:
    return entry.event.sequence


class RetentionLimits(Protocol):
    """The retention limits of a channel."""

    @property
    def history_size(self) -> int:
        """The maximum number of events."""

    @property
    def history_age_s(self) -> float:
        """The maximum age of an event, in seconds."""

    @property
    def history_bytes(self) -> int:
        """The maximum size of all events, in bytes as counted by `History.size_bytes`."""


class History(Protocol):
    """The retained entries of a channel, oldest first, with offsets without gaps.

    `oldest`, `latest`, `after`, `at` and `run` raise `pushd.bus.work.NotInMemory`, without any change, if what they
    would return is to be fetched first.
    """

    settings: Any
    """The limits: a `RetentionLimits`, or an object with more settings."""

    @property
    def dropped(self) -> int:
        """The sequence of the latest event that was dropped."""

    @property
    def sequence(self) -> int:
        """The sequence of the latest event, retained or dropped."""

    @property
    def base_bytes(self) -> int:
        """The approximate size of the channel besides its entries, in bytes."""

    @property
    def size_bytes(self) -> int:
        """The approximate size of the entries, in bytes."""

    @property
    def oldest(self) -> Entry | None:
        """The oldest entry, None if there is none."""

    @property
    def latest(self) -> Entry | None:
        """The latest entry, None if there is none."""

    @property
    def last(self) -> int:
        """The offset of the latest entry, which must exist."""

    @property
    def expires_s(self) -> float:
        """The expiry time of the oldest entry, which must exist, in seconds of the monotonic clock."""

    @property
    def oldest_sequence(self) -> int:
        """The sequence of the oldest entry, which must exist."""

    def __hash__(self) -> int:
        """Return a hash: histories are compared by identity."""

    def __len__(self) -> int:
        """Return the number of entries."""

    def extend(self, entries: list[Entry]) -> None:
        """Append one or more entries; their offsets must follow the offset of the latest entry."""

    def trim(self, seconds: float) -> bool:
        """Drop the oldest entries over the limits of count, size or age; return whether any entry is left."""

    def drop(self) -> object:
        """Drop the oldest entry, which must exist."""

    def clear(self) -> None:
        """Drop all entries."""

    def after(self, sequence: int) -> Entry | None:
        """Return the first entry after `sequence` in the log, None if there is none."""

    def bound(self, sequence: int) -> int:
        """Return a lower bound of the sequence of the first entry after `sequence`; it is always in memory."""

    def at(self, offset: int) -> Entry | None:
        """Return the entry at `offset`, None if the channel does not have it."""

    def run(self, first: int, count: int) -> list[Entry]:
        """Return up to `count` entries from the offset `first`; none if the entry at `first` is missing."""

    def holds(self, offset: int) -> bool:
        """Return whether the channel has the entry at `offset`."""


_MOST_DROPPED = 20_000
"""The maximum number of entries dropped at once by count or size: summing their sizes takes about 2 ms."""


_NONE_GIVEN: Sequence[Container[str]] = (frozenset[str](),) * PARTS


class MemoryHistory(Entries):
    """A `History` in memory, lost when the process ends."""

    __slots__ = ("_event_bytes", "_forget", "_free", "_given", "base_bytes", "dropped", "settings", "size_bytes")

    def __init__(
        self,
        settings: RetentionLimits,
        dropped: int,
        given: Sequence[Container[str]] = _NONE_GIVEN,
        forget: Callable[[Entry], None] = lambda entry: None,
        *,
        free: Callable[[list[Entry]], object] | None = None,
        base_bytes: int = 0,
        event_bytes: int = 0,
    ) -> None:
        """Start without entries; `forget` is called for each dropped entry whose id is in `given`.

        The ids in `given` are divided as in a `PartitionedDict`. If many entries are dropped at once, and `free` is
        set, `free` is called with all of them, and `forget` is not called.
        Each entry takes `event_bytes` more than in the store, the channel itself `base_bytes`.
        """
        super().__init__()
        self.settings = settings
        """The retention limits."""
        self._given = given
        self._forget = forget
        self._free = free
        self._event_bytes = event_bytes
        self.base_bytes = base_bytes
        self.dropped = dropped
        self.size_bytes = 0

    @property
    def sequence(self) -> int:
        """The sequence of the latest event, retained or dropped."""
        latest = self.latest
        return self.dropped if latest is None else latest.event.sequence

    @property
    def last(self) -> int:
        """The offset of the latest entry, which must exist."""
        return self._entries[-1].offset

    @property
    def expires_s(self) -> float:
        """The expiry time of the oldest entry, which must exist."""
        return self._entries[self._head].expires_s

    @property
    def oldest_sequence(self) -> int:
        """The sequence of the oldest entry, which must exist."""
        return self._entries[self._head].event.sequence

    def extend(self, entries: list[Entry]) -> None:
        """Append entries; their offsets must follow the offset of the latest entry."""
        self._entries += entries
        for entry in entries:
            event = entry.event
            self.size_bytes += self._event_bytes + (_given_size(entry) if event.counts_name else event.size)

    def trim(self, seconds: float) -> bool:
        """Drop the oldest entries over the limits of count, size or age; return whether any entry is left.

        Unexpired entries over the limits of count or size may be left to the next call. The slow path, for many
        entries, is `_drop_many`.
        """
        entries, retention = self._entries, self.settings
        size, max_bytes = retention.history_size, retention.history_bytes
        count = len(entries) - self._head
        few = count - FEW
        while count and (count > size or entries[self._head].expires_s <= seconds or self.size_bytes > max_bytes):
            if count <= few and self._free is not None:
                self._drop_many(seconds, self._free)
                return bool(self._entries)
            self.drop()
            count -= 1
        return count > 0

    def _drop_many(self, seconds: float, free: Callable[[list[Entry]], object]) -> None:
        """Do the work of `trim` for many entries, which `free` frees later."""
        entries, retention = self._entries, self.settings
        count, left, size_bytes = 0, len(self), self.size_bytes
        size, max_bytes = retention.history_size, retention.history_bytes
        while count < left:
            entry = entries[self._head + count]
            if entry.expires_s > seconds and (
                count >= _MOST_DROPPED or (left - count <= size and size_bytes <= max_bytes)
            ):
                break
            size_bytes -= self._size_of(entry)
            count += 1
        if count:
            self._gone(self.take(count), size_bytes, free)

    def _gone(self, entries: list[Entry], size_bytes: int, free: Callable[[list[Entry]], object]) -> None:
        self.size_bytes, self.dropped = size_bytes, entries[-1].event.sequence
        free(entries)

    def _size_of(self, entry: Entry) -> int:
        event = entry.event
        return self._event_bytes + (_given_size(entry) if event.counts_name else event.size)

    def drop(self) -> Entry:
        """Drop the oldest entry, which must exist."""
        entries, head = self._entries, self._head
        entry, entries[head] = entries[head], _NOTHING
        self._head = head = head + 1
        if head * 2 > len(entries):
            del entries[:head]
            self._head = 0
        event = entry.event
        self.dropped = event.sequence
        if not event.counts_name:
            self.size_bytes -= self._event_bytes + event.size
            return entry
        self.size_bytes -= self._event_bytes + _given_size(entry)
        event_id = event.id
        if event_id in self._given[hash(event_id) % PARTS]:
            self._forget(entry)
        return entry

    def clear(self) -> None:
        """Drop all entries."""
        if len(self) > FEW and self._free is not None:
            self._gone(self.take(len(self)), 0, self._free)
        while self._entries:
            self.drop()

    def holds(self, offset: int) -> bool:
        """Return whether the channel has the entry at `offset`."""
        return self.at(offset) is not None

    def bound(self, sequence: int) -> int:
        """Return the sequence of the first entry after `sequence`, or one more than that of the latest event."""
        entry = self.after(sequence)
        return self.sequence + 1 if entry is None else entry.event.sequence


def _given_size(entry: Entry) -> int:
    return size_of(entry) + GIVEN_OBJECT_BYTES


_NOTHING = cast(Entry, None)
"""The placeholder of a dropped entry, until the list is shortened."""
