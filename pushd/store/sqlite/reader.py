"""The reader: rows of entries from the store. A reader may be used in any thread, by one call at a time."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable
from typing import Any, NamedTuple
from zlib import crc32

from pushd.errors import Unavailable
from pushd.store.sqlite.block import Damaged, parse
from pushd.store.sqlite.rows import of_kinds
from pushd.store.sqlite.schema import OFFSETS

__all__ = ["BlockReader", "Rows", "Span", "damage", "number_of"]

_CHUNK_OFFSETS = 256
"""How many offsets are read together."""

_CHUNK_BYTES = 1024 * 1024
"""About how many bytes they may take, unless a single block is larger."""

_BLOCKS = "SELECT place, bytes, checksum, events FROM block"


class Span(NamedTuple):
    """The entries that a channel has at the moment."""

    key: int
    """The key of the channel in the store."""

    name: str
    """The name of the channel."""

    first: int
    """The offset of the oldest entry."""

    last: int
    """The offset of the latest entry."""


class Rows(NamedTuple):
    """The rows of consecutive blocks, and which of their entries were asked for."""

    begin: int
    """The offset of the first of these entries, or one before it."""

    end: int
    """The offset after the last of them, or one after it."""

    size: int
    """About how many there are."""

    blocks: list[tuple[int, int, bytes]]
    """Offset of the first entry, size of all events of the channel up to the last one in bytes, and the block."""

    @property
    def size_bytes(self) -> int:
        """The size of the blocks, in bytes."""
        return sum(len(block) for _, _, block in self.blocks)


def number_of(offset: int) -> int:
    """Return the number of the chunk that an offset is in: `BlockReader.around` reads no other."""
    return offset // _CHUNK_OFFSETS


def damage(span: Span, offset: int, what: str) -> Unavailable:
    """Return the refusal to read an entry that the store should have."""
    return Unavailable(
        f"the store is damaged: event {offset} of channel {span.name!r} cannot be read: {what}", code="store_down"
    )


class BlockReader:
    """Reads blocks of a store with one connection.

    A `Span` may be out of date, because its channel goes on while a thread reads: entries that are gone by then
    are reported as missing, and the caller must ask whether the channel still has them.
    """

    def __init__(self, rows: Callable[..., list[Any]]) -> None:
        """Read with `rows`, which returns the rows of a statement, or raises `Unavailable`."""
        self._rows = rows

    def around(self, span: Span, offset: int) -> Rows:
        """Read the entry at `offset` and those around it; if they are large, only some of those that follow."""
        base, begin = span.key * OFFSETS, offset - offset % _CHUNK_OFFSETS
        begin, end = max(span.first, begin), begin + _CHUNK_OFFSETS
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
            raise damage(span, offset, "it is not there")
        rows = self._rows(f"{_BLOCKS} WHERE place BETWEEN ? AND ? ORDER BY place", blocks[0][0], base + end - 1)
        return Rows(begin, end, min(end, span.last + 1) - begin, _checked(span, rows))

    def block_of(self, span: Span, offset: int) -> Rows:
        """Read the last block that begins at or before `offset`."""
        base = span.key * OFFSETS
        rows = self._rows(f"{_BLOCKS} WHERE place BETWEEN ? AND ? ORDER BY place DESC LIMIT 1", base, base + offset)
        return Rows(0, OFFSETS, 1, _checked(span, rows))

    def after(self, span: Span, sequence: int) -> tuple[int, Rows]:
        """Find the first event after `sequence`, which is one of `span`: return its offset, and read around it.

        Check the rows against the events of their blocks: a position resolved to a wrong offset would skip events.
        """
        found = self._search(span, sequence)
        here = self._sequence(span, found)
        before = self._sequence(span, found - 1) if found > span.first else -1
        if not before <= sequence < here:
            raise damage(span, found, "it is not where its row says")
        return found, self.around(span, found)

    def _search(self, span: Span, sequence: int) -> int:
        low, high = span.first, span.last  # the result is between them, or is `high`
        while low < high:
            middle = (low + high) // 2
            place, count, first_sequence, last_sequence = self._block_at(span, middle)
            begin, end = place % OFFSETS, place % OFFSETS + count - 1
            if last_sequence <= sequence:
                low = end + 1
            elif first_sequence > sequence:
                high = max(low, begin)
            else:
                first, sequences = self._sequences(span, middle)
                low, high = max(low, begin), min(high, end)
                return min(high, max(low, first + bisect_right(sequences, sequence)))
        return low

    def _block_at(self, span: Span, offset: int) -> tuple[int, int, int, int]:
        """Return the place, count, first and last sequence of the block that has `offset`."""
        place = span.key * OFFSETS + offset
        rows = self._rows(
            "SELECT place, count, first_sequence, last_sequence FROM block WHERE place <= ? "
            "ORDER BY place DESC LIMIT 1",
            place,
        )
        found: list[tuple[int, int, int, int]] = of_kinds(rows, int, int, int, int)
        if not found or found[0][0] + found[0][1] <= place:
            raise damage(span, offset, "it is not there")
        return found[0]

    def _sequence(self, span: Span, offset: int) -> int:
        first, sequences = self._sequences(span, offset)
        return sequences[offset - first]

    def _sequences(self, span: Span, offset: int) -> tuple[int, list[int]]:
        """Return the sequences of the events in the block that has `offset`, and the offset of the first."""
        for first, _, block in self.block_of(span, offset).blocks:
            try:
                sequences = [event[0] for event in parse(block)]
            except Damaged as error:
                raise damage(span, offset, str(error)) from None
            if offset - first < len(sequences):
                return first, sequences
        raise damage(span, offset, "it is not there")


def _checked(span: Span, rows: list[Any]) -> list[tuple[int, int, bytes]]:
    blocks = []
    for place, through, checksum, block in rows:
        offset = place % OFFSETS
        if not (isinstance(block, bytes) and isinstance(through, int)):
            raise damage(span, offset, "it is not of the kind that was written")
        if crc32(block) != checksum:
            raise damage(span, offset, "its checksum is another")
        blocks.append((offset, through, block))
    return blocks
