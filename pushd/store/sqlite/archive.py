"""The storage of the event log in SQLite: see `pushd.bus.storage`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Any

from twisted.logger import Logger

from pushd.bus import (
    MAX_NAME_BYTES,
    Entry,
    Event,
    EventLog,
    FreeLater,
    History,
    PartitionedDict,
    PublishedId,
    Settings,
    sequence_in,
)
from pushd.store.sqlite.block import Damaged, decode
from pushd.store.sqlite.chunk_cache import ChunkCache
from pushd.store.sqlite.history import Leftovers, SqliteHistory
from pushd.store.sqlite.history_cache import HistoryCache
from pushd.store.sqlite.rows import of_kinds
from pushd.store.sqlite.schema import OFFSETS
from pushd.store.sqlite.transaction import Transaction
from pushd.store.sqlite.watermark import contribution, end_sum, row_sum

__all__ = ["SqliteStorage"]

_log = Logger()

_BLOCKS_PER_CHANGE, _IDS_PER_CHANGE, _BYTES_PER_CHANGE = 100, 100, 1024 * 1024
"""The most blocks, given ids and bytes removed in one transaction; a single block may exceed them.

Each transaction takes up to 4 ms, in the reactor's thread."""

_LOAD = f"""
SELECT c.key, c.name, c.first, c.dropped, c.bytes, c."offset", c.sequence,
    b.place % {OFFSETS} + b.count - 1, b.last_sequence, b.bytes,
    (SELECT min(place) FROM block WHERE place >= c.key * {OFFSETS} AND place < (c.key + 1) * {OFFSETS}) % {OFFSETS}
FROM channel c LEFT JOIN block b
    ON b.place = (SELECT max(place) FROM block WHERE place >= c.key * {OFFSETS} AND place < (c.key + 1) * {OFFSETS})
ORDER BY max(coalesce(b.last_sequence, 0), c.sequence)
"""


_LOADED = (int, str, *[int] * 5, *[int | None] * 4)
"""The types of the values in its rows."""

_GIVEN = " UNION ALL ".join(
    'SELECT * FROM (SELECT other, "offset", sequence, fingerprint FROM given '
    f'WHERE id = ? AND channel = ? AND other = {other} AND "offset" >= ? ORDER BY "offset" LIMIT 1)'
    for other in (0, 1)
)
_NAMES = "SELECT DISTINCT channel FROM given WHERE id = ? AND channel >= ? AND channel < ? LIMIT ?"
_AFTER = "\U0010ffff" * MAX_NAME_BYTES
"""Sorts after every continuation of a name, in UTF-8 order."""


class SqliteStorage:
    """The stored histories and the stored given ids."""

    def __init__(self, rows: Callable[..., list[Any]], past: ChunkCache, recent: HistoryCache) -> None:
        """Read with `rows`, which returns the rows of a statement."""
        self._rows = rows
        self._past = past
        self._recent = recent
        self._next_key = 1
        self._to_remove: PartitionedDict[int, SqliteHistory] = (
            PartitionedDict()
        )  # histories with blocks that are to be removed
        self._leftovers = Leftovers()
        self._given_up: PartitionedDict[str, SqliteHistory] = PartitionedDict()  # by name; still in the store
        self._heirs: list[tuple[SqliteHistory, SqliteHistory]] = []  # a forgotten history, its successor

    def begin(self, epoch: str) -> None:
        """Give events that are read from now on positions of `epoch`, the current one of the log."""
        self._past.epoch = epoch

    # Interface of the event log

    @property
    def later(self) -> FreeLater:
        """Frees the memory of many dropped entries."""
        return self._recent.later

    @later.setter
    def later(self, later: FreeLater) -> None:
        self._recent.later = later

    def history(self, name: str, settings: Settings, *, offset: int, dropped: int) -> SqliteHistory:
        """Create the history of a new channel, which continues a forgotten one that is still in the store."""
        before = self._given_up.pop(name, None)
        if before is None:
            key = self._next_key
            self._next_key += 1
        else:
            key = before.key
        history = self._make(key, name, settings, offset=offset, dropped=dropped)
        if before is not None:
            history.inherit(before)
            self._leftovers.inherit(history)
            self._heirs.append((before, history))
            if key in self._to_remove:
                self._to_remove[key] = history
        return history

    def _make(self, key: int, name: str, settings: Settings, *, offset: int, dropped: int) -> SqliteHistory:
        remove_later, leftovers = self._remove_later, self._leftovers
        return SqliteHistory(
            key, name, settings, self._past, self._recent, remove_later, leftovers, offset=offset, dropped=dropped
        )

    def give_up(self, history: History) -> None:
        """Forget an empty history."""
        assert isinstance(history, SqliteHistory)
        if history.is_in_store:
            self._given_up[history.name] = history

    def keep_id(self, entries: list[Entry], fingerprint: bytes) -> None:
        """Do nothing: the given id of an event is in the store already."""

    def given(self, name: str, event_id: str, first: int) -> list[PublishedId]:
        """Return the events of channel `name` with a given id; raise `Unavailable` if the store cannot be read."""
        rows = self._rows(_GIVEN, *(event_id, name, first) * 2)
        of_kinds(rows, int, int, int, bytes | None)
        return [
            PublishedId(event_id, name, offset, sequence, not other, fingerprint)
            for other, offset, sequence, fingerprint in rows
        ]

    def names_with(self, event_id: str, prefix: str, most: int) -> list[str] | None:
        """Return the channels that may have a given id; None if over `most`; raise `Unavailable` if unreadable."""
        rows = self._rows(_NAMES, event_id, prefix, prefix + _AFTER, most + 1)
        of_kinds(rows, str)
        return [name for (name,) in rows] if len(rows) <= most else None

    def look(self, sequence: int) -> None:
        """Check whether the system clock was set after the event at `sequence` and before the next one."""
        self._past.look(sequence)

    # Loading

    def fill(self, log: EventLog[Any], read: Callable[[str], Iterator[list[Any]]]) -> Iterator[int]:
        """Load all channels of the store into the log, one group of rows from `read` at a time.

        Yield the contribution of each group of channels to the summary of the store.
        """
        self.look(log.sequence)
        for rows in read(_LOAD):
            yield self._enter(log, of_kinds(rows, *_LOADED))

    def _enter(self, log: EventLog[Any], rows: list[Any]) -> int:
        contributions = 0
        for key, name, first, dropped, before, offset, sequence, end, end_sequence, through, begin in rows:
            if (
                max(first, offset, end or 0) >= OFFSETS
                or len({end is None, end_sequence is None, through is None}) > 1
            ):
                raise ValueError
            if end is None or (end, end_sequence) < (offset, sequence):  # its events were dropped
                end, end_sequence, through = offset, sequence, before
            self._next_key = max(self._next_key, key + 1)

            def history(settings: Settings) -> SqliteHistory:
                made = self._make(key, name, settings, offset=0, dropped=dropped)  # noqa: B023  called at once
                made.restore(first, before, end, end_sequence, through)  # noqa: B023
                return made

            restored = log.restore(name, history, offset=end).history
            assert isinstance(restored, SqliteHistory)
            restored.removed_through = first - 1 if begin is None else min(first, begin) - 1
            if restored.removed_through < first - 1:
                self._to_remove[key] = restored
            row = row_sum(key, name, first, dropped, before, offset, sequence)
            restored.mark = contribution(row, end_sum(key, end, end_sequence, through))
            contributions += restored.mark
        return contributions

    # Removing

    def _remove_later(self, history: SqliteHistory) -> None:
        self._to_remove[history.key] = history

    @property
    def has_to_remove(self) -> bool:
        """Whether the store has rows to remove."""
        return bool(self._to_remove or self._given_up or self._leftovers.is_due)

    def removal(self, change: Transaction, is_over: Callable[[], bool] = lambda: False) -> Callable[[], None]:
        """Add rows to remove to `change`, within the limits of one transaction and until `is_over`.

        Return a function to call after the commit. Raise `Unavailable` if the store cannot be read.
        """
        room = _Room(_BLOCKS_PER_CHANGE, _IDS_PER_CHANGE, _BYTES_PER_CHANGE)
        self._heirs.clear()
        for history in self._leftovers.take(room.blocks):
            if history.removed_through < history.first - 1:
                self._remove_later(history)
        done: list[tuple[SqliteHistory, int]] = []
        for history in list(islice(self._to_remove.values(), room.blocks)):
            first = history.first  # it may grow while other channels are examined
            if self._remove_blocks(history, first, room, change):
                done.append((history, first))
            if not room.is_left or is_over():  # each channel takes at least 30 microseconds
                break
        given_up: list[SqliteHistory] = []
        for history in islice(self._given_up.values(), max(0, room.blocks)):
            if history.key not in self._to_remove:
                given_up.append(history)
                change.remove(history)
                if is_over():
                    break
        return partial(self._removed, done, given_up)

    def _removed(self, done: list[tuple[SqliteHistory, int]], given_up: list[SqliteHistory]) -> None:
        """Called after the commit: rows before the offsets of `done`, and channels `given_up`, are gone."""
        for before, heir in self._heirs:  # created while the store removed rows of `before`
            heir.mark = before.mark
        for history, first in done:
            history.removed_through = first - 1
            if history.first == first and self._to_remove.get(history.key) is history:
                del self._to_remove[history.key]  # nothing more to remove
        for history in given_up:
            if self._given_up.get(history.name) is history:
                del self._given_up[history.name]

    def _remove_blocks(self, history: SqliteHistory, first: int, room: _Room, change: Transaction) -> bool:
        """Remove blocks of events before offset `first`; return whether these were the last."""
        base = history.key * OFFSETS
        rows = self._rows(
            "SELECT place, count, given, length(events) FROM block "
            "WHERE place BETWEEN ? AND ? ORDER BY place LIMIT ?",
            base,
            base + first - 1,
            room.blocks + 1,
        )
        of_kinds(rows, int, int, int, int)
        gone = []
        for place, count, given, size in rows:
            if not room.is_left or place + count > base + first:
                break
            gone.append((place, given))
            room.take(given, size)
        if gone:
            change.removed_blocks.append((base, gone[-1][0]))
            change.removed_ids += self._ids_of(history, [place for place, given in gone if given])
            if history.is_in_store:  # even a forgotten one: its row may be removed in a later transaction
                change.put(history, history.row)
        return len(gone) == len(rows) or rows[len(gone)][0] + rows[len(gone)][1] > base + first

    def _events(self, history: SqliteHistory, block: bytes) -> list[Event]:
        try:
            return list(decode(block, history.name))
        except Damaged as error:  # removed all the same; its ids are useless without it
            _log.error("a block of channel {name} is damaged: {error}", name=history.name, error=error)
            return []

    def _ids_of(self, history: SqliteHistory, places: list[int]) -> Iterator[tuple[str, str, int]]:
        """Yield the given ids in the blocks to remove, each with its channel and offset."""
        for place in places:
            rows = self._rows("SELECT events FROM block WHERE place = ?", place)
            of_kinds(rows, bytes)
            for (block,) in rows:
                for offset, event in enumerate(self._events(history, block), place % OFFSETS):
                    if sequence_in(event.id) is None:
                        yield event.id, history.name, offset


@dataclass(slots=True)
class _Room:
    """How much one transaction may still remove."""

    blocks: int
    ids: int
    size_bytes: int

    @property
    def is_left(self) -> bool:
        """Whether one more block may be removed."""
        return self.blocks > 0 and self.ids > 0 and self.size_bytes > 0

    def take(self, ids: int, size_bytes: int) -> None:
        """Count a block to remove."""
        self.blocks -= 1
        self.ids -= ids
        self.size_bytes -= size_bytes
