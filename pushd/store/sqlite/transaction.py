"""The transaction: the rows that one commit writes and removes."""

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
"""The most bytes of the events in one block, unless a single event is larger."""

_PAGE_BYTES = 4096

Row = tuple[int, str, int, int, int, int, int]
"""The row of a channel, as in `SqliteHistory.row`."""


@dataclass(slots=True)
class Transaction:
    """Rows to write and to remove."""

    state: LogState
    """The state of the log after the transaction."""

    channels: list[tuple[Any, ...]] = field(default_factory=list)
    """Rows of new and changed channels."""

    blocks: list[tuple[Any, ...]] = field(default_factory=list)
    """New rows of blocks."""

    given: list[tuple[Any, ...]] = field(default_factory=list)
    """New rows of ids given by publishers."""

    removed_blocks: list[tuple[int, int]] = field(default_factory=list)
    """First and last place of the blocks to remove."""

    removed_ids: list[tuple[str, str, int]] = field(default_factory=list)
    """Given ids to remove, each with its channel and offset."""

    removed_channels: list[tuple[int]] = field(default_factory=list)
    """Keys of the forgotten channels to remove."""

    is_trial: bool = False
    """Whether to write even without changes, to test whether the store can be written."""

    histories: list[SqliteHistory] = field(default_factory=list)
    """Histories whose channel rows the transaction makes current."""

    summary_change: int = 0
    """The change of the channels' summary: see `pushd.store.sqlite.watermark`."""

    marks: dict[SqliteHistory, int] = field(default_factory=dict)
    """The new contribution of each changed channel to that summary."""

    _encoded: tuple[Event | None, bytes, int] = (None, b"", 0)
    """The event, bytes and checksum of the latest block with one event: reused in all channels of the event."""

    def written(self) -> None:
        """Record that the transaction is committed."""
        for history in self.histories:
            history.is_in_store = history.is_row_current = True
        for history, mark in self.marks.items():
            history.mark = mark

    def _set_mark(self, history: SqliteHistory, mark: int) -> None:
        self.summary_change += mark - self.marks.get(history, history.mark)
        self.marks[history] = mark

    def put(self, history: SqliteHistory, row: Row) -> None:
        """Write the row of a channel; the end of its history stays the same."""
        self.channels.append(row)
        end = end_sum(history.key, history.last, history.sequence, history.bytes_through)
        self._set_mark(history, contribution(row_sum(*row), end))

    def remove(self, history: SqliteHistory) -> None:
        """Remove the row of a forgotten channel."""
        self.removed_channels.append((history.key,))
        self._set_mark(history, 0)

    @property
    def size_bytes(self) -> int:
        """About how many bytes of the file the transaction rewrites."""
        rows = len(self.channels) + len(self.given) + len(self.removed_blocks) + len(self.removed_ids)
        return _PAGE_BYTES * (2 + rows + len(self.blocks)) + self.data_bytes

    @property
    def data_bytes(self) -> int:
        """The size of the new blocks, in bytes."""
        return sum([len(row[-1]) for row in self.blocks])

    def add_batch(self, batch: Batch[Any]) -> None:
        """Add the events of a batch; raise `OutOfMemory` if memory is exhausted."""
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
        """Add the entries that a channel keeps; `ids` are the ids given by publishers."""
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
        """Drop all events of a channel."""
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
