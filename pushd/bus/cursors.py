"""The cursors of a replay: one for each history, merged by sequence."""

from __future__ import annotations

import sys
from collections.abc import MutableMapping
from heapq import heappop, heappush
from itertools import count
from typing import NamedTuple

from pushd.bus.event import Entry
from pushd.bus.held_back import HeldBack
from pushd.bus.history import History
from pushd.bus.partitioned_dict import PartitionedDict
from pushd.bus.work import NotInMemory
from pushd.errors import PushdError, Unavailable

__all__ = ["Ahead", "Cursor", "Cursors", "Item", "Overtaken"]

_MANY = 1000
"""The number of cursors from which their table is partitioned: one dictionary of 300,000 takes 8 ms to grow."""


class Overtaken(PushdError):
    """A history dropped entries that must not be missed before the replay read them."""


class Ahead(NamedTuple):
    """The place of an entry that is read from its history only when the replay reaches it."""

    channel: str
    may_be_missed: bool
    offset: int | None
    """The offset of the entry; None if only a lower bound of its sequence is known."""


class Cursor:
    """The next entry to read from one history, and the last one.

    A cursor refers to its item in the heap of the replay by number. A reference would be a cycle, and leave
    hundreds of thousands of cursors of an abandoned replay to the garbage collector.
    """

    __slots__ = ("end", "history", "number", "sequence")

    def __init__(self, history: History) -> None:
        self.history = history
        self.sequence = sys.maxsize
        """The sequence of the next entry to read, or a lower bound of it."""
        self.end = 0
        """The offset of the last entry to read."""
        self.number = -1
        """The number of its item; items with other numbers are obsolete. -1 if there is none."""


Item = tuple[int, int, Entry | Ahead, Cursor]
"""The place of a cursor: a lower bound of its sequence, a number unique in the replay, entry, cursor."""


class Cursors(HeldBack):
    """The cursors of a replay, in a heap by the sequence of their next entries, and the events held back meanwhile.

    An entry that is not in memory is not fetched when a cursor comes to it: it is an `Ahead` in the heap, and
    becomes an `Entry` when it is at the top, with the other entries that `NotInMemory` brings.
    """

    __slots__ = ("_count", "_cursors", "_fault", "_heap", "_passed")

    def __init__(self) -> None:
        """Start without cursors."""
        super().__init__()
        self._heap: list[Item] = []
        self._cursors: MutableMapping[History, Cursor] = {}
        self._count = count()
        self._fault: Unavailable | None = None  # the error that ended the replay
        self._passed = 0  # all events up to this sequence have been returned

    @property
    def width(self) -> int:
        """The number of histories to read."""
        return len(self._cursors)

    def add(self, history: History, sequence: int) -> None:
        """Read the entries of `history` after `sequence`; an existing cursor keeps the earlier of both places."""
        try:
            entry = history.after(sequence)
        except NotInMemory as missing:
            bound = history.bound(max(sequence, history.dropped))
            ahead = Ahead(missing.channel, missing.may_be_missed, None)
            self._begin(bound, ahead, history, history.last)
        else:
            if entry is not None:
                self._begin(entry.event.sequence, entry, history, history.last)

    def _begin(self, sequence: int, entry: Entry | Ahead, history: History, last_offset: int) -> None:
        """Read a history from `entry` to `last_offset`; an existing cursor keeps the wider range of both."""
        cursor = self._cursors.get(history) or self._new_cursor(history)
        if sequence < cursor.sequence:
            self._place(sequence, entry, cursor)
        cursor.end = max(last_offset, cursor.end)

    def _new_cursor(self, history: History) -> Cursor:
        """Add a cursor, which must be placed next."""
        if len(self._cursors) == _MANY and isinstance(self._cursors, dict):
            table: PartitionedDict[History, Cursor] = PartitionedDict()
            table.update(self._cursors)
            self._cursors = table
        cursor = self._cursors[history] = Cursor(history)
        return cursor

    def _place(self, sequence: int, entry: Entry | Ahead, cursor: Cursor) -> None:
        """Place `cursor` at `entry`."""
        cursor.number, cursor.sequence = next(self._count), sequence
        heappush(self._heap, (sequence, cursor.number, entry, cursor))

    def _end(self, cursor: Cursor) -> None:
        """Stop reading the history of `cursor`."""
        del self._cursors[cursor.history]
        cursor.number = -1

    def _is_current(self, item: Item) -> bool:
        """Return whether `item` is still the place of its cursor."""
        return item[3].number == item[1]

    def _go_on(self, entry: Entry, cursor: Cursor) -> None:
        """Advance `cursor` past `entry`. An unreadable history is reported after that entry."""
        if entry.offset >= cursor.end:
            self._end(cursor)
            return
        try:
            self._read_on(entry, cursor)
        except Unavailable as error:
            self._fault = error

    def _read_on(self, entry: Entry, cursor: Cursor) -> None:
        """Advance `cursor` past `entry`; raise `Overtaken` if the next is lost but required."""
        history, sequence, offset = cursor.history, entry.event.sequence, entry.offset + 1
        try:
            following = history.at(offset)
            if following is None:
                if not entry.may_be_missed:
                    raise Overtaken
                following = history.after(sequence)
        except NotInMemory:
            place = offset if history.holds(offset) else None
            self._place(sequence + 1, Ahead(entry.channel, entry.may_be_missed, place), cursor)
            return
        if following is not None and following.offset <= cursor.end:
            self._place(following.event.sequence, following, cursor)
        else:
            self._end(cursor)

    def _take_first(self) -> Entry | None:
        """Remove and return the first entry; None if the caller must look at the heap again.

        Raises `NotInMemory`, without any change; `Overtaken`; and `Unavailable`, now and ever after.
        """
        if not self._is_current(self._heap[0]):
            heappop(self._heap)
            return None
        if isinstance(self._heap[0][2], Ahead) and not self._resolve_first():
            return None
        _, _, entry, cursor = heappop(self._heap)
        assert isinstance(entry, Entry)
        self._go_on(entry, cursor)
        return entry

    def _resolve_first(self) -> bool:
        """Replace the `Ahead` at the top of the heap by its entry; return whether that is the first one now.

        Raises what `_take_first` does.
        """
        sequence, _, ahead, cursor = self._heap[0]
        assert isinstance(ahead, Ahead)
        try:
            entry = self._find(ahead, sequence, cursor.history)
        except Unavailable as error:
            self._fault = error
            raise
        heappop(self._heap)
        if entry is None or entry.offset > cursor.end:
            self._end(cursor)
            return False
        self._place(entry.event.sequence, entry, cursor)
        return self._heap[0][3] is cursor and self._is_current(self._heap[0])

    def _find(self, ahead: Ahead, sequence: int, history: History) -> Entry | None:
        """Return the entry at the place of a cursor, or the oldest one after it if it is gone and not required.

        It is required if it must not be missed and has not been returned as an entry of another channel. Return
        None if there is no such entry; raise `Overtaken` if a required entry is gone.
        """
        if ahead.offset is not None and history.holds(ahead.offset):
            return history.at(ahead.offset)
        if history.dropped >= max(sequence, self._passed + 1) and not ahead.may_be_missed:
            raise Overtaken
        return history.after(sequence - 1)
