"""The reader: entries that are in the store but not in memory."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, Protocol
from zlib import crc32

from pushd.bus import Entry, Settings, memory_of, size_of
from pushd.errors import Unavailable
from pushd.store.sqlite.block import Damaged, decode
from pushd.store.sqlite.clock_jumps import ClockJumps
from pushd.store.sqlite.rows import of_kinds
from pushd.store.sqlite.schema import OFFSETS

__all__ = ["BlockReader", "Reader"]

_CHUNK_OFFSETS = 256
"""How many offsets are read together."""

_CHUNK_BYTES = 1024 * 1024
"""About how many bytes they may take, unless a single block is larger."""

_CHUNKS = 20_000
"""How many chunks are cached at most, however small: the table of 170,000 takes 15 ms to grow."""

_FRONTS = 16
"""For how many channels the block last read to find entries to drop is cached."""

_BLOCKS = "SELECT place, bytes, checksum, events FROM block"


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


class BlockReader:
    """Reads blocks and caches the latest: many reconnecting clients replay the same events."""

    def __init__(
        self,
        rows: Callable[..., list[Any]],
        *,
        max_bytes: int,
        now: Callable[[], float],
        seconds: Callable[[], float],
    ) -> None:
        """Read with `rows`, which returns the rows of a statement; cache about `max_bytes`."""
        self._rows = rows
        self._max_bytes = max_bytes
        self._now = now
        self._seconds = seconds
        self._clock_jumps = ClockJumps(now, seconds)
        self.epoch: str | None = None
        """The current epoch of the log, None before it is known."""
        self._chunks: OrderedDict[tuple[int, int], _Chunk] = (
            OrderedDict()
        )  # by channel and number, latest used last
        self._fronts: OrderedDict[int, _Chunk] = OrderedDict()  # one block per channel, by key, latest used last
        self.size_bytes = 0
        """About the memory of the cache, except for a few blocks."""

    def look(self, sequence: int) -> None:
        """Check whether the system clock was set: see `pushd.store.sqlite.clock_jumps`."""
        self._clock_jumps.look(sequence)

    def at(self, reader: Reader, offset: int) -> Entry:
        """Return the entry at `offset`, which the store must have; raise `Unavailable` if it cannot be read."""
        chunk = self._chunk(reader, offset)
        return chunk.entries[offset - chunk.first]

    def run(self, reader: Reader, first: int, count: int) -> list[Entry]:
        """Return up to `count` entries from offset `first` on, no more than were read together."""
        chunk = self._chunk(reader, first)
        return chunk.entries[first - chunk.first :][:count]

    def one(self, reader: Reader, offset: int) -> tuple[Entry, int]:
        """Return one entry and the size of all events up to it, in bytes; read little more than its block."""
        chunk = self._chunks.get((reader.key, offset // _CHUNK_OFFSETS))
        if chunk is None or not 0 <= offset - chunk.first < len(chunk.entries):
            chunk = self._front(reader, offset)
        return chunk.entries[offset - chunk.first], chunk.bytes_through[offset - chunk.first]

    def _front(self, reader: Reader, offset: int) -> _Chunk:
        """Return the block that has `offset`, cached because the next dropped entry is often in the same one."""
        chunk = self._fronts.pop(reader.key, None)
        if chunk is None or not 0 <= offset - chunk.first < len(chunk.entries):
            base = reader.key * OFFSETS
            rows = self._rows(
                f"{_BLOCKS} WHERE place BETWEEN ? AND ? ORDER BY place DESC LIMIT 1", base, base + offset
            )
            chunk = self._chunk_of(reader, rows, 0, OFFSETS)
            if not 0 <= offset - chunk.first < len(chunk.entries):
                raise self._missing(reader, offset)
        self._fronts[reader.key] = chunk
        if len(self._fronts) > _FRONTS:
            self._fronts.popitem(last=False)
        return chunk

    def after(self, reader: Reader, sequence: int) -> int:
        """Return the offset of the first event after `sequence`, between the first and the last of `reader`.

        Check the rows against the events of their blocks: a position resolved to a wrong offset would skip events.
        """
        found = self._search(reader, sequence)
        if self.at(reader, found).event.sequence <= sequence or (
            found > reader.first and self.at(reader, found - 1).event.sequence > sequence
        ):
            raise self._damaged(reader, found, "it is not where its row says")
        return found

    def _search(self, reader: Reader, sequence: int) -> int:
        low, high = reader.first, reader.last  # the result is between them, or is `high`
        while low < high:
            middle = (low + high) // 2
            place, count, first_sequence, last_sequence = self._block_at(reader, middle)
            begin, end = place % OFFSETS, place % OFFSETS + count - 1
            if last_sequence <= sequence:
                low = end + 1
            elif first_sequence > sequence:
                high = max(low, begin)
            else:
                return self._after_within(reader, sequence, max(low, begin), min(high, end))
        return low

    def _after_within(self, reader: Reader, sequence: int, low: int, high: int) -> int:
        while low < high:
            middle = (low + high) // 2
            if self.at(reader, middle).event.sequence <= sequence:
                low = middle + 1
            else:
                high = middle
        return low

    def _block_at(self, reader: Reader, offset: int) -> tuple[int, int, int, int]:
        """Return the place, count, first and last sequence of the block that has `offset`."""
        place = reader.key * OFFSETS + offset
        rows = self._rows(
            "SELECT place, count, first_sequence, last_sequence FROM block WHERE place <= ? "
            "ORDER BY place DESC LIMIT 1",
            place,
        )
        found: list[tuple[int, int, int, int]] = of_kinds(rows, int, int, int, int)
        if not found or found[0][0] + found[0][1] <= place:
            raise self._missing(reader, offset)
        return found[0]

    def _chunk(self, reader: Reader, offset: int) -> _Chunk:
        key = (reader.key, offset // _CHUNK_OFFSETS)
        chunk = self._chunks.pop(key, None)
        if chunk is not None:
            if 0 <= offset - chunk.first < len(chunk.entries):
                self._chunks[key] = chunk
                return chunk
            self.size_bytes -= chunk.cost  # the channel has grown since the chunk was read
        chunk = self._read(reader, offset)
        if not 0 <= offset - chunk.first < len(chunk.entries):
            raise self._missing(reader, offset)
        self._chunks[key] = chunk
        self.size_bytes += chunk.cost
        while (self.size_bytes > self._max_bytes and len(self._chunks) > 1) or len(self._chunks) > _CHUNKS:
            self.size_bytes -= self._chunks.popitem(last=False)[1].cost
        return chunk

    def _read(self, reader: Reader, offset: int) -> _Chunk:
        """Read the entry at `offset` and those around it; if they are large, only some of those that follow."""
        base, begin = reader.key * OFFSETS, offset - offset % _CHUNK_OFFSETS
        begin, end = max(reader.first, begin), begin + _CHUNK_OFFSETS
        blocks = self._rows(
            "SELECT place, bytes FROM block WHERE place < ? AND place >= coalesce("
            "(SELECT max(place) FROM block WHERE place <= ? AND place >= ?), ?) ORDER BY place",
            *(base + end, base + begin, base, base + begin),
        )
        of_kinds(blocks, int, int)
        if blocks and blocks[-1][1] - blocks[0][1] > _CHUNK_BYTES:
            blocks = [one for at, one in enumerate(blocks, 1) if at == len(blocks) or blocks[at][0] > base + offset]
            end = next(
                (place - base for place, through in blocks[1:] if through > blocks[0][1] + _CHUNK_BYTES), end
            )
        if not blocks:
            raise self._missing(reader, offset)
        rows = self._rows(f"{_BLOCKS} WHERE place BETWEEN ? AND ? ORDER BY place", blocks[0][0], base + end - 1)
        return self._chunk_of(reader, rows, begin, end)

    def _chunk_of(self, reader: Reader, rows: list[Any], begin: int, end: int) -> _Chunk:
        """Return a chunk of the entries in blocks from offset `begin` up to, excluding, `end`."""
        entries: list[Entry] = []
        through: list[int] = []
        for place, total, checksum, block in rows:
            offset = place % OFFSETS
            if entries and offset != entries[-1].offset + 1:
                break  # a gap: dropped before it was written, and so is everything before it
            if not (isinstance(block, bytes) and isinstance(total, int)):
                raise self._damaged(reader, offset, "it is not of the kind that was written")
            if crc32(block) != checksum:
                raise self._damaged(reader, offset, "its checksum is another")
            read = self._entries(reader, offset, block)
            sizes = list(map(size_of, read))
            through += accumulate(sizes, initial=total - sum(sizes))
            del through[-len(read) - 1]
            entries += read
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
            raise self._damaged(reader, offset, str(error)) from None
        return entries

    def _missing(self, reader: Reader, offset: int) -> Unavailable:
        return self._damaged(reader, offset, "it is not there")

    def _damaged(self, reader: Reader, offset: int, what: str) -> Unavailable:
        return Unavailable(
            f"the store is damaged: event {offset} of channel {reader.name!r} cannot be read: {what}"
        )
