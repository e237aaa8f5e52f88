"""The chunk cache: entries read from the store, of which the latest used stay in memory.

Many reconnecting clients replay the same events. An entry that is not in the cache raises
`pushd.bus.NotInMemory`: another thread reads it, with those around it, and it is asked for again. Without another
thread, and for entries to drop, it is read at once.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import accumulate
from typing import Protocol, TypeVar

from pushd.bus import OBJECT_BYTES, Entry, NotInMemory, Settings, memory_of, size_of
from pushd.store.sqlite.block import Damaged, decode
from pushd.store.sqlite.clock_jumps import ClockJumps
from pushd.store.sqlite.fetcher import Fetcher, Job, Key, Read
from pushd.store.sqlite.reader import BlockReader, Rows, Span, damage, number_of

__all__ = ["ChunkCache", "Reader"]

_CHUNKS = 20_000
"""How many chunks are cached at most, however small: the table of 170,000 takes 15 ms to grow."""

_PLACES = 4096
"""How many of the offsets found for positions are cached."""

_FRONTS = 16
"""For how many channels the block last read to find entries to drop is cached."""


class Reader(Protocol):
    """The history that entries are read for."""

    key: int
    name: str
    settings: Settings
    first: int
    last: int
    sequence: int


@dataclass(frozen=True, slots=True)
class _Chunk:
    """Entries with consecutive offsets."""

    first: int
    entries: list[Entry]
    bytes_through: list[int]
    """The size of all events of the channel up to each entry, in bytes."""

    cost: int
    """About the memory of the chunk, in bytes."""

    def has(self, offset: int) -> bool:
        """Return whether the entry at `offset` is one of them."""
        return 0 <= offset - self.first < len(self.entries)


@dataclass(frozen=True, slots=True)
class _Unread:
    """Rows whose entries nobody has asked for: another thread has read them."""

    rows: Rows
    cost: int
    """About the memory of the entries, in bytes."""


C = TypeVar("C", _Chunk, _Unread)


class ChunkCache:
    """Entries read from the store."""

    def __init__(
        self,
        reader: BlockReader,
        fetcher: Fetcher | None,
        *,
        max_bytes: int,
        now: Callable[[], float],
        seconds: Callable[[], float],
    ) -> None:
        """Cache about `max_bytes`; read with `fetcher`, or with `reader` if that is None or cannot wait."""
        self._reader = reader
        self._fetcher = fetcher
        self._max_bytes = max_bytes
        self._now = now
        self._seconds = seconds
        self._clock_jumps = ClockJumps(now, seconds)
        self.epoch: str | None = None
        """The current epoch of the log, None before it is known."""
        self._chunks: OrderedDict[tuple[int, int], _Chunk | _Unread] = (
            OrderedDict()
        )  # by channel and number, latest used last
        self._places: OrderedDict[tuple[int, int], int] = OrderedDict()  # offsets by channel and sequence
        self._fronts: OrderedDict[int, _Chunk] = OrderedDict()  # one block per channel, by key, latest used last
        self.size_bytes = 0
        """About the memory of the cache, except for a few blocks."""

    def look(self, sequence: int) -> None:
        """Check whether the system clock was set: see `pushd.store.sqlite.clock_jumps`."""
        self._clock_jumps.look(sequence)

    # All of these raise `Unavailable` if what is asked for cannot be read

    def at(self, reader: Reader, offset: int) -> Entry:
        """Return the entry at `offset`, which the store must have; it may raise `NotInMemory`."""
        chunk = self._chunk(reader, offset)
        return chunk.entries[offset - chunk.first]

    def run(self, reader: Reader, first: int, count: int) -> list[Entry]:
        """Return up to `count` entries from offset `first` on, no more than were read together; likewise."""
        chunk = self._chunk(reader, first)
        return chunk.entries[first - chunk.first :][:count]

    def after(self, reader: Reader, sequence: int) -> int:
        """Return the offset of the first event after `sequence`, between the first and the last; likewise."""
        key = (reader.key, sequence)
        if key not in self._places:
            span = _span(reader)
            self._need(reader, ("place", *key), lambda blocks: self._found(span, sequence, blocks))
        return max(reader.first, self._places[key])

    def one(self, reader: Reader, offset: int) -> tuple[Entry, int]:
        """Return one entry and the size of all events up to it, in bytes, read at once with little more than it."""
        chunk = self._cached(reader, offset) or self._front(reader, offset)
        return chunk.entries[offset - chunk.first], chunk.bytes_through[offset - chunk.first]

    def _front(self, reader: Reader, offset: int) -> _Chunk:
        """Return the block that has `offset`, cached because the next dropped entry is often in the same one."""
        chunk = self._fronts.pop(reader.key, None)
        if chunk is None or not chunk.has(offset):
            span = _span(reader)
            chunk = self._chunk_of(reader, self._reader.block_of(span, offset))
            if not chunk.has(offset):
                raise damage(span, offset, "it is not there")
        self._fronts[reader.key] = chunk
        if len(self._fronts) > _FRONTS:
            self._fronts.popitem(last=False)
        return chunk

    # The cache

    def _chunk(self, reader: Reader, offset: int) -> _Chunk:
        """Return the chunk with the entry at `offset`."""
        key = (reader.key, number_of(offset))
        chunk = self._cached(reader, offset)
        if chunk is None:
            span = _span(reader)
            self._need(
                reader, ("chunk", *key), lambda blocks: partial(self._keep, key, blocks.around(span, offset))
            )
            chunk = self._cached(reader, offset)
            if chunk is None:
                raise damage(span, offset, "it is not there")
        self._chunks.move_to_end(key)
        return chunk

    def _cached(self, reader: Reader, offset: int) -> _Chunk | None:
        """Return the chunk with the entry at `offset` if it is in memory."""
        key = (reader.key, number_of(offset))
        chunk = self._chunks.get(key)
        if isinstance(chunk, _Unread):
            del self._chunks[key]
            self.size_bytes -= chunk.cost
            chunk = self._put(key, self._chunk_of(reader, chunk.rows))
        return chunk if chunk is not None and chunk.has(offset) else None  # the channel may have grown

    def _keep(self, key: tuple[int, int], rows: Rows) -> None:
        self._put(key, _Unread(rows, rows.size_bytes + rows.size * OBJECT_BYTES))

    def _put(self, key: tuple[int, int], chunk: C) -> C:
        """Put a chunk in the place of the one with the same key, and of the least recently used ones."""
        before = self._chunks.pop(key, None)
        self.size_bytes += chunk.cost - (0 if before is None else before.cost)
        self._chunks[key] = chunk
        while (self.size_bytes > self._max_bytes and len(self._chunks) > 1) or len(self._chunks) > _CHUNKS:
            self.size_bytes -= self._chunks.popitem(last=False)[1].cost
        return chunk

    def _found(self, span: Span, sequence: int, blocks: BlockReader) -> Callable[[], None]:
        """Find a position, in any thread."""
        offset, rows = blocks.after(span, sequence)

        def keep() -> None:
            self._places[span.key, sequence] = offset
            if len(self._places) > _PLACES:
                self._places.popitem(last=False)
            self._keep((span.key, number_of(offset)), rows)

        return keep

    # Reading

    def _need(self, reader: Reader, key: Key, read: Read) -> None:
        """Read what is not in memory into the cache now, or raise `NotInMemory`."""
        if self._fetcher is None:
            read(self._reader)()
            return
        first = reader.first
        job = Job(key, read, is_outdated=lambda: reader.first != first)
        may_be_missed = reader.settings.on_overflow == "latest"
        raise NotInMemory(
            reader.name, may_be_missed, partial(job.run, self._reader), partial(self._fetcher.fetch, job)
        )

    def _chunk_of(self, reader: Reader, rows: Rows) -> _Chunk:
        """Return a chunk of the entries in `rows`."""
        entries: list[Entry] = []
        through: list[int] = []
        for offset, total, block in rows.blocks:
            if entries and offset != entries[-1].offset + 1:
                break  # a gap: dropped before it was written, and so is everything before it
            read = self._entries(reader, offset, block)
            sizes = list(map(size_of, read))
            through += accumulate(sizes, initial=total - sum(sizes))
            del through[-len(read) - 1]
            entries += read
        begin, end = rows.begin, rows.end
        skipped = max(0, begin - entries[0].offset) if entries else 0
        entries, through = entries[skipped : skipped + end - begin], through[skipped : skipped + end - begin]
        cost = sum(map(memory_of, entries))
        return _Chunk(entries[0].offset if entries else begin, entries, through, cost)

    def _entries(self, reader: Reader, offset: int, block: bytes) -> list[Entry]:
        settings = reader.settings
        age_s, may_be_missed = settings.history_age_s, settings.on_overflow == "latest"
        seconds, now = self._seconds(), self._now()
        entries = []
        try:
            for event in decode(block, reader.name, self.epoch):
                left_s = min(age_s, self._clock_jumps.time_of(event) + age_s - now)
                entries.append(Entry(event, reader.name, offset, seconds + left_s, may_be_missed))
                offset += 1
        except Damaged as error:
            raise damage(_span(reader), offset, str(error)) from None
        return entries


def _span(reader: Reader) -> Span:
    return Span(reader.key, reader.name, reader.first, reader.last)
