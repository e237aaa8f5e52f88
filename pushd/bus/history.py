"""The history of one channel: its latest entries, bounded by count, by size and by age."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Container, Generator, Sequence
from typing import Any, Protocol, cast

from pushd.bus.event import Entry
from pushd.bus.partitioned_dict import PARTS
from pushd.bus.sizes import GIVEN_OBJECT_BYTES, size_of

__all__ = ["FEW", "Entries", "FreeLater", "History", "MemoryHistory", "RetentionLimits", "at_once", "freeing"]

FEW = 250
"""How many entries are dropped one by one, which takes about 0.1 ms; more are left to `freeing`."""


_FREED_IN_STEP = 50


FreeLater = Callable[[Generator[None, None, None]], object]
"""Does a work in steps, now or later: `at_once`, or `pushd.sessions.long_work.LongWork.run`."""


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
        """Return the first entry whose event came after `sequence` in the log."""
        index = bisect_right(self._entries, sequence, lo=self._head, key=_sequence)
        return self._entries[index] if index < len(self._entries) else None

    def run(self, first: int, count: int) -> list[Entry]:
        """Return up to `count` entries from the offset `first` on, none if that one is not here."""
        oldest = self.oldest
        if oldest is None or first < oldest.offset:
            return []
        place = self._head + first - oldest.offset
        return self._entries[place : place + count]

    def at(self, offset: int) -> Entry | None:
        """Return the entry at `offset`, if it is here."""
        oldest = self.oldest
        if oldest is None or not oldest.offset <= offset < oldest.offset + len(self):
            return None
        return self._entries[self._head + offset - oldest.offset]


def _sequence(entry: Entry) -> int:
    return entry.event.sequence


class RetentionLimits(Protocol):
    """How much a channel keeps."""

    @property
    def history_size(self) -> int:
        """How many events it keeps at most."""

    @property
    def history_age_s(self) -> float:
        """How long it keeps an event, in seconds."""

    @property
    def history_bytes(self) -> int:
        """How much its events may take, in bytes as `size_bytes` of a `History` counts them."""


class History(Protocol):
    """The entries that a channel still has, oldest first, their offsets without holes."""

    settings: Any
    """What is kept: a `RetentionLimits`, or more than that."""

    @property
    def dropped(self) -> int:
        """The sequence of the latest event that the channel had and has no more."""

    @property
    def sequence(self) -> int:
        """The sequence of the latest event that the channel had."""

    @property
    def base_bytes(self) -> int:
        """About how much the channel takes besides its entries."""

    @property
    def size_bytes(self) -> int:
        """About how much the entries take."""

    @property
    def oldest(self) -> Entry | None:
        """The first entry, if there is one."""

    @property
    def latest(self) -> Entry | None:
        """The last entry, if there is one."""

    @property
    def expires_s(self) -> float:
        """When the oldest entry expires, which must exist, in seconds of the clock that never jumps."""

    @property
    def oldest_sequence(self) -> int:
        """The sequence of the oldest entry, which must exist."""

    def __len__(self) -> int:
        """Count them."""

    def extend(self, entries: list[Entry]) -> None:
        """Add the next entries, one or more; their offsets must follow the latest one's."""

    def trim(self, seconds: float) -> bool:
        """Drop the oldest entries as far as they are over a limit of count, size or age; False if none is left."""

    def drop(self) -> object:
        """Drop the oldest entry, which must exist."""

    def clear(self) -> None:
        """Drop all entries."""

    def after(self, sequence: int) -> Entry | None:
        """Return the first entry whose event came after `sequence` in the log."""

    def bound(self, sequence: int) -> int:
        """Return a place in the log that the first entry after `sequence` is not before, reading nothing for it."""

    def at(self, offset: int) -> Entry | None:
        """Return the entry at `offset`, if the channel has it."""

    def run(self, first: int, count: int) -> list[Entry]:
        """Return up to `count` entries from the offset `first` on, none if the channel does not have that one."""

    def holds(self, offset: int) -> bool:
        """Return whether the channel has the entry at `offset`."""


_MOST_DROPPED = 20_000
"""How many entries are dropped at once because of their number or size: to add up these takes about 2 ms."""


_NONE_GIVEN: Sequence[Container[str]] = (frozenset[str](),) * PARTS


class MemoryHistory(Entries):
    """A `History` that ends with the process."""

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
        """Begin without entries; `forget` is told of each that is dropped and whose id is `given`.

        These ids are in parts, as in a `PartitionedDict`. If many are dropped at once, `free` is given them all,
        if there is one, and `forget` is told of none of these.
        Each entry takes `event_bytes` more than in the store, the channel itself `base_bytes`.
        """
        super().__init__()
        self.settings = settings
        """What is kept."""
        self._given = given
        self._forget = forget
        self._free = free
        self._event_bytes = event_bytes
        self.base_bytes = base_bytes
        self.dropped = dropped
        self.size_bytes = 0

    @property
    def sequence(self) -> int:
        """The sequence of the latest event that the channel had."""
        latest = self.latest
        return self.dropped if latest is None else latest.event.sequence

    @property
    def expires_s(self) -> float:
        """When the oldest entry expires, which must exist."""
        return self._entries[self._head].expires_s

    @property
    def oldest_sequence(self) -> int:
        """The sequence of the oldest entry, which must exist."""
        return self._entries[self._head].event.sequence

    def extend(self, entries: list[Entry]) -> None:
        """Add the next entries; their offsets must follow the latest one's."""
        self._entries += entries
        for entry in entries:
            event = entry.event
            self.size_bytes += self._event_bytes + (_given_size(entry) if event.counts_name else event.size)

    def trim(self, seconds: float) -> bool:
        """Drop the oldest entries as far as they are over a limit of count, size or age; False if none is left.

        Of those that are too many, or too much, and have not expired, there may be some left for the next time.
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
        """Do the same with many, which are freed later."""
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
        """Return the place of the first entry after `sequence`, or the one after the latest."""
        entry = self.after(sequence)
        return self.sequence + 1 if entry is None else entry.event.sequence


def _given_size(entry: Entry) -> int:
    return size_of(entry) + GIVEN_OBJECT_BYTES


_NOTHING = cast(Entry, None)
"""What stands in the place of an entry that was dropped, until the list is shortened."""
