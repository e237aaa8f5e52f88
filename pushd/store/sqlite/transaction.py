"""The change: what one transaction does to the store."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any
from zlib import crc32

from pushd.bus import Batch, Entry, Event, LogState, memory, size_of
from pushd.errors import OutOfMemory
from pushd.store.sqlite.block import encode
from pushd.store.sqlite.history import SqliteHistory
from pushd.store.sqlite.schema import OFFSETS
from pushd.store.sqlite.watermark import contribution, end_sum, row_sum, with_end

__all__ = ["Transaction"]

_BLOCK_BYTES = 256 * 1024
"""How much the events of one block take, except where one alone takes more."""

_PAGE_BYTES = 4096

Row = tuple[int, str, int, int, int, int, int]
"""Of a channel, as `SqliteHistory.row` has it."""


@dataclass(slots=True)
class Transaction:
    """Rows to be written and removed."""

    state: LogState
    """What the log knows when it is done."""

    channels: list[tuple[Any, ...]] = field(default_factory=list)
    """Rows of channels, new ones and such as have changed."""

    blocks: list[tuple[Any, ...]] = field(default_factory=list)
    """New rows of blocks."""

    given: list[tuple[Any, ...]] = field(default_factory=list)
    """New rows of given ids."""

    removed_blocks: list[tuple[int, int]] = field(default_factory=list)
    """First and last place of blocks that nobody wants any more."""

    removed_ids: list[tuple[str, str, int]] = field(default_factory=list)
    """Given ids, with a channel and an offset in it."""

    removed_channels: list[tuple[int]] = field(default_factory=list)
    """Keys of channels that were given up."""

    is_trial: bool = False
    """Whether something is written even if that changes nothing, to see whether it can be."""

    histories: list[SqliteHistory] = field(default_factory=list)
    """Those whose channels are written for the first time."""

    summary_change: int = 0
    """By how much it changes what the store says of channels: see `pushd.store.sqlite.watermark`."""

    marks: dict[SqliteHistory, int] = field(default_factory=dict)
    """What each channel that changes contributes to that from then on."""

    _encoded: tuple[Event | None, bytes, int] = (None, b"", 0)
    """The event of the latest block with one event, the block, and its checksum: the same in all its channels."""

    def written(self) -> None:
        """Take note that it is in the store."""
        for history in self.histories:
            history.is_in_store = history.is_row_current = True
        for history, mark in self.marks.items():
            history.mark = mark

    def _set_mark(self, history: SqliteHistory, mark: int) -> None:
        self.summary_change += mark - self.marks.get(history, history.mark)
        self.marks[history] = mark

    def put(self, history: SqliteHistory, row: Row) -> None:
        """Write the row of a channel, which changes nothing about where it ends."""
        self.channels.append(row)
        end = end_sum(history.key, history.last, history.sequence, history.bytes_through)
        self._set_mark(history, contribution(row_sum(*row), end))

    def remove(self, history: SqliteHistory) -> None:
        """Remove the row of a channel that was given up."""
        self.removed_channels.append((history.key,))
        self._set_mark(history, 0)

    @property
    def size_bytes(self) -> int:
        """About how much of the file it writes anew."""
        rows = len(self.channels) + len(self.given) + len(self.removed_blocks) + len(self.removed_ids)
        return _PAGE_BYTES * (2 + rows + len(self.blocks)) + self.data_bytes

    @property
    def data_bytes(self) -> int:
        """How much the new blocks are."""
        return sum([len(row[-1]) for row in self.blocks])

    def add_batch(self, batch: Batch[Any]) -> None:
        """Write the events of a batch; raise `OutOfMemory` if there is none for that."""
        try:
            self._add_batch(batch)
        except MemoryError:
            memory.missed()
            raise OutOfMemory from None

    def _add_batch(self, batch: Batch[Any]) -> None:
        for channel, entries in batch.by_channel.items():
            history = channel.history
            assert isinstance(history, SqliteHistory)
            self._add_entries(history, entries, batch.given_ids)
            if batch.given_ids:
                kept = entries[history.surplus(len(entries)) :]
                self.given += [_given_row(one, batch) for one in kept if one.event.id in batch.given_ids]

    def _add_entries(self, history: SqliteHistory, entries: list[Entry], ids: Collection[str]) -> None:
        """Write the entries of one channel as far as it keeps them; `ids` are those that publishers gave."""
        surplus = history.surplus(len(entries))
        through = history.bytes_through
        if surplus or not history.is_row_current:
            if not history.is_row_current:
                self.histories.append(history)
            _, _, first, dropped, before, _, _ = history.row
            if surplus:
                through += sum(map(size_of, entries[:surplus]))
                first, dropped, before = (
                    entries[surplus - 1].offset + 1,
                    entries[surplus - 1].event.sequence,
                    through,
                )
            latest = entries[-1]
            self.put(
                history, (history.key, history.name, first, dropped, before, latest.offset, latest.event.sequence)
            )
        begin = surplus
        while begin < len(entries):
            size, end = 0, begin
            while end < len(entries) and (not size or size + len(entries[end].event.data) <= _BLOCK_BYTES):
                size += size_of(entries[end])
                end += 1
            through += size
            self._add_block(history.key, entries[begin:end], through, ids)
            begin = end
        end_mark = end_sum(history.key, entries[-1].offset, entries[-1].event.sequence, through)
        self._set_mark(history, with_end(self.marks.get(history, history.mark), end_mark))

    def _add_block(self, key: int, entries: list[Entry], through: int, ids: Collection[str]) -> None:
        first, last = entries[0], entries[-1]
        if len(entries) > 1 or first.event is not self._encoded[0]:
            block = encode(self.state.epoch, entries, ids)
            checksum = crc32(block)
            if len(entries) == 1:
                self._encoded = first.event, block, checksum
        else:
            _, block, checksum = self._encoded
        count_given = sum(one.event.id in ids for one in entries) if ids else 0
        place = key * OFFSETS + first.offset
        sequences = first.event.sequence, last.event.sequence
        self.blocks.append((place, len(entries), *sequences, through, count_given, checksum, block))

    def clear(self, history: SqliteHistory) -> None:
        """Drop everything that a channel has."""
        _, _, _, _, _, offset, sequence = history.row
        self.put(
            history,
            (
                history.key,
                history.name,
                history.last + 1,
                history.sequence,
                history.bytes_through,
                offset,
                sequence,
            ),
        )


def _given_row(entry: Entry, batch: Batch[Any]) -> tuple[str, str, int, int, int, bytes | None]:
    event = entry.event
    first = batch.given.get((entry.channel, event.id))
    is_first = first is not None and first.sequence == event.sequence
    fingerprint = first.fingerprint if first is not None and is_first else None
    return event.id, entry.channel, int(not is_first), entry.offset, event.sequence, fingerprint
