"""The stored history: the entries of one channel, all in the store and the latest in memory, too."""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice

from twisted.logger import Logger

from pushd.bus import OBJECT_BYTES, Entries, Entry, PartitionedDict, Settings, channel_size, freeing, size_of
from pushd.errors import Unavailable
from pushd.store.sqlite.chunk_cache import ChunkCache
from pushd.store.sqlite.history_cache import HistoryCache

__all__ = ["Leftovers", "SqliteHistory"]

_log = Logger()

_GONE_AT_LEAST = 16
"""How many dropped entries may stay in the store while others are kept, plus an eighth of the number kept.

They are removed together with later ones: removing each by itself would cost as much as writing it.
"""

_LEFT_BYTES = 4 * 1024 * 1024
"""The most bytes of such entries in all channels together."""

_UNCOUNTED = 256
"""How many entries may be dropped before their size is determined, which may read the disk."""


class Leftovers:
    """Dropped entries still in the store, because too few of their channel were: see `_GONE_AT_LEAST`.

    They are counted over all channels, because a few in each of many channels add up.
    """

    def __init__(self) -> None:
        self._histories: PartitionedDict[int, SqliteHistory] = PartitionedDict()  # by key
        self._due: PartitionedDict[int, SqliteHistory] = PartitionedDict()
        self._size_bytes = 0

    def add(self, history: SqliteHistory, size: int) -> None:
        """Count `size` bytes that a history has dropped."""
        self._histories[history.key] = history
        self._size_bytes += size
        if self._size_bytes > _LEFT_BYTES and not self._due:
            self._due, self._histories, self._size_bytes = self._histories, PartitionedDict(), 0

    @property
    def is_due(self) -> bool:
        """Whether leftovers are due for removal."""
        return bool(self._due)

    def take(self, count: int) -> list[SqliteHistory]:
        """Remove and return up to `count` histories with leftovers due for removal."""
        return [self._due.pop(key) for key in list(islice(self._due, count))]

    def inherit(self, history: SqliteHistory) -> None:
        """Replace the history with the key of `history`."""
        for histories in self._histories, self._due:
            if history.key in histories:
                histories[history.key] = history


class SqliteHistory:
    """A `pushd.bus.history.History` whose entries are in the store before they are appended."""

    __slots__ = (
        "_alive_until_s",
        "_bytes_before",
        "_counted",
        "_dropped",
        "_leftovers",
        "_past",
        "_recent",
        "_tail",
        "_to_remove",
        "base_bytes",
        "bytes_through",
        "first",
        "is_in_store",
        "is_row_current",
        "key",
        "last",
        "mark",
        "name",
        "removed_through",
        "sequence",
        "settings",
    )

    def __init__(
        self,
        key: int,
        name: str,
        settings: Settings,
        past: ChunkCache,
        recent: HistoryCache,
        to_remove: Callable[[SqliteHistory], None],
        leftovers: Leftovers,
        *,
        offset: int,
        dropped: int,
    ) -> None:
        """Create an empty history; its next entry follows `offset`. Dropped entries are reported to `to_remove`."""
        self._past = past
        self._recent = recent
        self._to_remove = to_remove
        self._leftovers = leftovers
        self._tail = Entries()
        self.key = key
        """The key of the channel in the store."""
        self.name = name
        """The name of the channel."""
        self.settings = settings
        """The settings of the channel."""
        self.base_bytes = channel_size(name)
        """About the size of the channel without its entries."""
        self.is_in_store = False
        """True once the store has a row of the channel."""
        self.is_row_current = False
        """True if the stored row, together with the channel's blocks, describes the history."""
        self.mark = 0
        """The contribution of the stored channel to the summary: see `pushd.store.sqlite.watermark`."""
        self.first = offset + 1
        """The offset of the oldest entry."""
        self.removed_through = offset
        """The offset of the latest entry removed from the store."""
        self.last = offset
        """The offset of the latest entry ever published."""
        self.sequence = dropped
        """The sequence of that entry."""
        self._counted = self.first  # the next two cover the entries before it
        self._dropped = dropped
        self._bytes_before = 0
        self._alive_until_s = 0.0  # no entry expires before this; the oldest may expire later
        self.bytes_through = 0
        """The size of all entries ever published, in bytes."""

    def restore(self, first: int, bytes_before: int, last: int, sequence: int, bytes_through: int) -> None:
        """Set the state from the stored values."""
        self.is_in_store = self.is_row_current = True
        self.first, self._counted, self._bytes_before = first, first, bytes_before
        self.last, self.sequence, self.bytes_through = last, sequence, bytes_through

    def inherit(self, before: SqliteHistory) -> None:
        """Continue a forgotten history that is still in the store."""
        self.is_in_store = True
        self.mark = before.mark
        self.bytes_through = self._bytes_before = before.bytes_through

    @property
    def row(self) -> tuple[int, str, int, int, int, int, int]:
        """The row of the channel for the store."""
        self._count()
        return self.key, self.name, self.first, self._dropped, self._bytes_before, self.last, self.sequence

    @property
    def dropped(self) -> int:
        """The sequence of the latest dropped entry."""
        self._count()
        return self._dropped

    def __len__(self) -> int:
        return self.last - self.first + 1

    @property
    def size_bytes(self) -> int:
        """About the size of the entries, including some dropped recently."""
        return self.bytes_through - self._bytes_before

    @property
    def oldest(self) -> Entry | None:
        """The first entry, if there is one."""
        return self.at(self.first)

    @property
    def latest(self) -> Entry | None:
        """The last entry, if there is one."""
        return self.at(self.last)

    @property
    def expires_s(self) -> float:
        """When the oldest entry, which must exist, expires; infinity if it cannot be read."""
        entry = self._readable(self.first)
        return float("inf") if entry is None else entry.expires_s

    @property
    def oldest_sequence(self) -> int:
        """The sequence of the oldest entry, which must exist, or of the one before if it cannot be read."""
        entry = self._readable(self.first)
        return self.dropped if entry is None else entry.event.sequence

    def extend(self, entries: list[Entry]) -> None:
        """Append the next entries, which are in the store except for the `surplus`."""
        surplus = self.surplus(len(entries))
        if surplus > 0:
            self.clear()
            self._pass(entries[:surplus])
            entries = entries[surplus:]
        if not entries:
            return
        if not self:
            self._alive_until_s = entries[0].expires_s
        size = sum(map(size_of, entries))
        self.last = entries[-1].offset
        self.sequence = entries[-1].event.sequence
        self.bytes_through += size
        self._tail.extend(entries)
        self._recent.add(self, self.last, size + len(entries) * OBJECT_BYTES)

    def surplus(self, count: int) -> int:
        """Return how many of the next `count` entries are dropped at once and must not be stored."""
        settings = self.settings
        return max(0, count - settings.history_size) if settings.history_age_s > 0 else count

    def _pass(self, entries: list[Entry]) -> None:
        """Record entries that are dropped at once; the history must be empty."""
        self.last = entries[-1].offset
        self.first = self._counted = self.last + 1
        self.sequence = self._dropped = entries[-1].event.sequence
        self.bytes_through += sum(map(size_of, entries))
        self._bytes_before = self.bytes_through

    def forget_through(self, offset: int) -> None:
        """Free the entries in memory up to and including `offset`."""
        self._tail.drop_until(offset + 1)

    # Reading: `Unavailable` is raised if an entry cannot be read, and `NotInMemory` if it is to be fetched first

    def at(self, offset: int) -> Entry | None:
        """Return the entry at `offset`, if the channel has it."""
        if not self.first <= offset <= self.last:
            return None
        return self._tail.at(offset) or self._past.at(self, offset)

    def run(self, first: int, count: int) -> list[Entry]:
        """Return up to `count` entries from the offset `first` on."""
        if not self.first <= first <= self.last:
            return []
        return self._tail.run(first, count) or self._past.run(self, first, count)

    def after(self, sequence: int) -> Entry | None:
        """Return the first entry after `sequence`."""
        if not self or self.sequence <= sequence:
            return None
        oldest = self._tail.oldest
        if oldest is not None and (oldest.event.sequence <= sequence or oldest.offset == self.first):
            return self._tail.after(sequence)
        if sequence <= self.dropped:
            return self.at(self.first)
        return self.at(self._past.after(self, sequence))

    def bound(self, sequence: int) -> int:
        """Return a lower bound of the sequence of the first entry after `sequence`, without reading the store."""
        if self.sequence <= sequence or not self:
            return self.sequence + 1
        oldest = self._tail.oldest
        if oldest is not None and (oldest.event.sequence <= sequence or oldest.offset == self.first):
            entry = self._tail.after(sequence)
            return self.sequence + 1 if entry is None else entry.event.sequence
        return self.sequence if self.first == self.last else max(sequence, self._dropped) + 1

    def holds(self, offset: int) -> bool:
        """Return whether the channel has the entry at `offset`."""
        return self.first <= offset <= self.last

    def _readable(self, offset: int) -> Entry | None:
        """Return an entry without reading those around it; None if it cannot be read."""
        try:
            return self._tail.at(offset) or self._past.one(self, offset)[0]
        except Unavailable as error:
            _log.error("{error}", error=error.detail)
            return None

    # Dropping

    def trim(self, seconds: float) -> bool:
        """Drop the oldest entries over the limits of count, size and age; return False if none is left."""
        settings = self.settings
        surplus = self.last - self.first + 1 - settings.history_size
        if surplus > 0:
            self._drop_until(self.first + surplus)
        if self.size_bytes > settings.history_bytes:
            self._count()
            if self and self.size_bytes > settings.history_bytes:
                self._drop_until(self._first_within(settings.history_bytes))
                self._count()
        if self._alive_until_s <= seconds and self.last >= self.first:
            if self.expires_s <= seconds:
                self._drop_until(self._first_alive(seconds))
            self._alive_until_s = self.expires_s if self else 0.0
        return self.last >= self.first

    def _first_alive(self, seconds: float) -> int:
        """Return the offset of the first entry that has not expired, or the one after the last."""
        return self._first_not(lambda offset: self._has_expired(offset, seconds))

    def _first_within(self, max_bytes: int) -> int:
        """Return the first offset from which all entries together take at most `max_bytes`."""
        try:
            return self._first_not(lambda offset: self._is_beyond(offset, max_bytes))
        except Unavailable as error:
            _log.error("{error}", error=error.detail)
            return self.first + 1 + len(self) * (self.size_bytes - max_bytes) // (self.size_bytes + 1)

    def _is_beyond(self, offset: int, max_bytes: int) -> bool:
        return self.bytes_through - self._past.one(self, offset - 1)[1] > max_bytes

    def _first_not(self, is_over: Callable[[int], bool]) -> int:
        """Return the first offset for which `is_over` is false, or the one after the last.

        `is_over` must be true for the first entry. A galloping and binary search examines few entries.
        """
        step = 1
        low = self.first  # `is_over` is true
        while low + step <= self.last and is_over(low + step):
            low += step
            step *= 2
        high = min(low + step, self.last + 1)  # `is_over` is false
        while low + 1 < high:
            middle = (low + high) // 2
            if is_over(middle):
                low = middle
            else:
                high = middle
        return high

    def _has_expired(self, offset: int, seconds: float) -> bool:
        entry = self._readable(offset)
        return entry is not None and entry.expires_s <= seconds

    def drop(self) -> None:
        """Drop the oldest entry, which must exist."""
        self._drop_until(self.first + 1)
        self._count()

    def clear(self) -> None:
        """Drop all entries."""
        self._drop_until(self.last + 1)

    def _drop_until(self, offset: int) -> None:
        """Drop the entries before `offset`."""
        self.first = offset
        if entries := self._tail.drop_until(offset):
            self._recent.later(freeing(entries))
        gone, kept = offset - 1 - self.removed_through, self.last - offset + 1
        if not kept or gone > _GONE_AT_LEAST + kept // 8:
            self._to_remove(self)
        if not kept or offset - self._counted > _UNCOUNTED:
            self._count()

    def _count(self) -> None:
        """Determine the sequence and size of the entries dropped since the last call."""
        counted, self._counted = self._counted, self.first
        if counted == self.first:
            return
        if self.first > self.last:
            self._dropped, self._bytes_before = self.sequence, self.bytes_through
            return
        try:
            entry, through = self._past.one(self, self.first - 1)
            left, self._bytes_before, self._dropped = through - self._bytes_before, through, entry.event.sequence
            self._leftovers.add(self, left)
        except Unavailable as error:
            # The highest sequence the entry can have, so that no client is promised more than there is
            _log.error("{error}", error=error.detail)
            kept = len(self)
            self._dropped = self.sequence - kept
            self._bytes_before += self.size_bytes * (self.first - counted) // (self.first - counted + kept)
