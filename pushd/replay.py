"""The replay: the past of several channels, read in the order of the log."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from heapq import heapify, heappop, heappush
from itertools import count
from typing import NamedTuple

from pushd.errors import PushdError, Unavailable
from pushd.event import Entry
from pushd.history import History

__all__ = ["ENTRY_BYTES", "FindHistory", "Overtaken", "Replay", "cost_of"]

ENTRY_BYTES = 256
"""About how much memory an entry takes, beside its data."""

_FREED, _FREED_COST = 50, 5
"""How many cursors are freed at once when a replay ends before its end, and as how many sends that counts."""

_RUN = 64
"""How many entries of one history are taken at once."""


class Overtaken(PushdError):
    """A history dropped entries that must not be missed before the replay came to them."""


class _Ahead(NamedTuple):
    """The place of an entry that is to be read from its history when the replay comes to it."""

    channel: str
    offset: int
    may_be_missed: bool


_Item = tuple[int, int, Entry | _Ahead, History | None]
"""Sequence, a number that tells items of one sequence apart, entry; and its history, if it is a cursor."""

FindHistory = Callable[[Entry], "History | None"]
"""Return the history that retains an entry, None if there is none."""


class Replay:
    """Entries of several histories, and entries held back meanwhile, merged by their sequence.

    It keeps one cursor for each history and reads on as it is asked, so that a long replay costs no memory.
    An event that several of its sources have comes once. Entries that are published meanwhile are held; when these
    are too many, `hold_less` and `read_later` leave those that a history retains to its cursor.
    """

    __slots__ = ("_count", "_cursors", "_ends", "_fault", "_heap", "_held_for", "_last", "held", "held_bytes")

    def __init__(self) -> None:
        self._heap: list[_Item] = []
        self._cursors: dict[History, _Item] = {}
        self._ends: dict[History, int] = {}  # the last offset that each cursor reads
        self._held_for: dict[int, list[Entry]] = {}
        self._count = count()
        self._last = 0
        self._fault: Unavailable | None = None  # why there is nothing more
        self.held_bytes = 0
        """About how much memory the entries take that are held back."""
        self.held = 0
        """How many these are."""

    def add(self, history: History, sequence: int) -> None:
        """Read what `history` has now after `sequence`; if it is read already, from the earlier of both places."""
        entry, latest = history.after(sequence), history.latest
        if entry is not None and latest is not None:
            self._begin(entry, history, latest.offset)

    def clearing(self) -> Iterator[Callable[[], int]]:
        """Return calls that free a few cursors each; each returns as how many sends it counts.

        Freeing 300,000 of them at once takes 60 ms. A few are left, to be freed with the replay.
        """
        while len(self._heap) > _FREED or len(self._cursors) > _FREED:
            yield self._free_some

    def _free_some(self) -> int:
        del self._heap[-_FREED:]
        for table in (self._cursors, self._ends):
            for _ in range(min(_FREED, len(table))):
                table.popitem()
        return _FREED_COST

    @property
    def width(self) -> int:
        """How many histories it reads."""
        return len(self._cursors)

    @property
    def first(self) -> int | None:
        """A sequence that the next entry is not before; None if there is no other entry."""
        while self._heap:
            item = self._heap[0]
            if item[0] != self._last and self._is_current(item):
                return item[0]
            heappop(self._heap)
            if self._is_current(item):  # the event that came last, in another of its channels
                self._take(item)
        return None

    def cut(self, sequence: int) -> None:
        """Leave out the histories whose next entry comes after `sequence`."""
        self._heap = [item for item in self._heap if item[0] <= sequence and self._is_current(item)]
        self._cursors = {item[3]: item for item in self._heap if item[3] is not None}
        self._ends = {history: self._ends[history] for history in self._cursors}
        self._tidy()

    def join(self, other: Replay) -> None:
        """Read what `other` was to read, which has read nothing yet."""
        for history, (_, _, entry, _) in other._cursors.items():
            assert isinstance(entry, Entry)
            self._begin(entry, history, other._ends[history])

    def _begin(self, entry: Entry, history: History, last_offset: int) -> None:
        before = self._cursors.get(history)
        if before is None or entry.offset < before[2].offset:
            self._place(entry.event.sequence, entry, history)
        self._ends[history] = max(last_offset, self._ends.get(history, 0))
        if len(self._heap) > 1000 and len(self._heap) > 4 * len(self._cursors):
            self.keep(lambda name: True)  # leave out the places that were moved from

    def hold(self, entry: Entry, entries: Sequence[Entry] = ()) -> None:
        """Put in an entry that was published meanwhile; `entries`: all of its event that are wanted, if several."""
        if len(entries) > 1:
            self._held_for[entry.event.sequence] = list(entries)
        self.held_bytes += cost_of(entry)
        self.held += 1
        heappush(self._heap, (entry.event.sequence, next(self._count), entry, None))

    def read_later(self, entries: Sequence[Entry], find: FindHistory) -> bool:
        """Leave an event that was published meanwhile to the histories that `find` knows of `entries`, all its own.

        Return False, with nothing changed, if one of them is in no history, or the first may be missed: of these,
        the latest are wanted and not the oldest.
        """
        if entries[0].may_be_missed:
            return False
        found = [(entry, history) for entry in entries if (history := find(entry)) is not None]
        if len(found) < len(entries):
            return False
        for entry, history in found:
            before = self._cursors.get(history)
            if before is None or entry.offset < before[2].offset:
                ahead = _Ahead(entry.channel, entry.offset, entry.may_be_missed)
                self._place(entry.event.sequence, ahead, history)
            self._ends[history] = max(entry.offset, self._ends.get(history, 0))
        return True

    def hold_less(self, find: FindHistory) -> None:
        """Leave the held entries to their histories, as `read_later` does, as far as that is possible."""
        heap, self._heap = self._heap, []
        for item in heap:
            sequence, _, entry, history = item
            if history is None:
                assert isinstance(entry, Entry)
                entries = self._held_for.get(sequence, [entry])
                if self.read_later([entry, *(one for one in entries if one is not entry)], find):
                    self._held_for.pop(sequence, None)
                    continue
            self._heap.append(item)
        self._tidy()

    def _place(self, sequence: int, entry: Entry | _Ahead, history: History) -> None:
        """Place the cursor of `history` at `entry`."""
        item = self._cursors[history] = (sequence, next(self._count), entry, history)
        heappush(self._heap, item)

    def _end(self, history: History) -> None:
        """Read no more of `history`."""
        del self._cursors[history], self._ends[history]

    def _tidy(self) -> None:
        """Make the heap one again, after items were left out."""
        heapify(self._heap)
        held = [item[2] for item in self._heap if item[3] is None]
        self.held, self.held_bytes = len(held), sum(cost_of(entry) for entry in held if isinstance(entry, Entry))

    def _read_on(self, entry: Entry, history: History) -> None:
        """Move the cursor of `history` on from `entry`; raise `Overtaken` if what follows must not be missed."""
        following = history.at(entry.offset + 1)
        if following is None:
            if not entry.may_be_missed:
                raise Overtaken
            following = history.after(entry.event.sequence)
        if following is not None and following.offset <= self._ends[history]:
            self._place(following.event.sequence, following, history)
        else:
            self._end(history)

    def _read_ahead(self, ahead: _Ahead, sequence: int, history: History) -> Entry | None:
        """Return the entry at the place of a cursor, or the oldest one after it if it is gone and may be missed.

        Return None if there is no such entry; raise `Overtaken` if it must not be missed.
        """
        entry = history.at(ahead.offset)
        if entry is None and not ahead.may_be_missed:
            raise Overtaken
        return entry or history.after(sequence)

    def miss_held(self) -> int:
        """Throw away the older half of the held entries that may be missed; answer how many those were."""
        places = sorted(item[0] for item in self._heap if item[3] is None and item[2].may_be_missed)
        older = set(places[: (len(places) + 1) // 2])
        self._heap = [item for item in self._heap if item[3] is not None or item[0] not in older]
        self._tidy()
        for sequence in older:
            self._held_for.pop(sequence, None)
        return len(older)

    def keep(self, wanted: Callable[[str], bool]) -> None:
        """Leave out the channels whose names are not `wanted`, also if they are wanted again later."""
        kept = (self._kept(item, wanted) for item in self._heap if self._is_current(item))
        self._heap = [item for item in kept if item is not None]
        self._cursors = {item[3]: item for item in self._heap if item[3] is not None}
        self._ends = {history: self._ends[history] for history in self._cursors}
        self._tidy()

    def _kept(self, item: _Item, wanted: Callable[[str], bool]) -> _Item | None:
        """Answer an item if it is wanted; if its event was held for several channels, by one that is."""
        sequence, number, entry, history = item
        entries = None if history is not None else self._held_for.get(sequence)
        if entries is None:
            return item if wanted(entry.channel) else None
        entries = self._held_for[sequence] = [one for one in entries if wanted(one.channel)]
        if not entries:
            del self._held_for[sequence]
            return None
        return item if entry in entries else (sequence, number, entries[0], None)

    def _is_current(self, item: _Item) -> bool:
        """Tell whether an item is held, or the place of a cursor that has not been moved from it."""
        return item[3] is None or self._cursors.get(item[3]) is item

    def _go_on(self, entry: Entry, history: History) -> None:
        """Move the cursor of `history` on from `entry`, which is delivered whatever is found behind it."""
        if entry.offset >= self._ends[history]:
            self._end(history)
            return
        try:
            self._read_on(entry, history)
        except Unavailable as error:
            self._fault = error

    def run(self, most_bytes: int) -> list[Entry]:
        """Take the next entries of one history, if nothing else comes between them, of about `most_bytes`.

        None does not mean that there are none: `next` finds out. Most replays are of one channel, and go faster so.
        """
        if self._fault is not None:
            raise self._fault
        heap = self._heap
        if not heap or heap[0][3] is None or not self._is_current(heap[0]) or heap[0][0] == self._last:
            return []
        _, _, entry, history = heap[0]
        assert history is not None
        before = min((item[0] for item in heap[1:3]), default=sys.maxsize)  # what else comes next
        run = []
        for one in history.run(entry.offset, min(_RUN, self._ends[history] - entry.offset + 1)):
            if one.event.sequence >= before or most_bytes < 0:
                break
            run.append(one)
            most_bytes -= len(one.event.data)
        if run:
            heappop(heap)
            self._last = run[-1].event.sequence
            self._go_on(run[-1], history)
        return run

    def next(self) -> Entry | None:
        """Answer the next entry, or None after the last; raise `Overtaken` if it is no longer there.

        Raises `Unavailable` if it cannot be read; everything before it has been answered then.
        """
        if self._fault is not None:
            raise self._fault
        while self._heap:
            item = heappop(self._heap)
            if not self._is_current(item):
                continue
            entry = self._take(item)
            if entry is not None and entry.event.sequence != self._last:
                self._last = entry.event.sequence
                return entry
        return None

    def _take(self, item: _Item) -> Entry | None:
        """Return the entry of an item that was first in the heap; None if that has to be looked for again."""
        sequence, _, entry, history = item
        if history is None:
            assert isinstance(entry, Entry)
            self.held_bytes -= cost_of(entry)
            self.held -= 1
            self._held_for.pop(sequence, None)
            return entry
        if isinstance(entry, _Ahead):
            try:
                found = self._read_ahead(entry, sequence, history)
            except Unavailable as error:
                self._fault = error
                raise
            if found is None or found.offset > self._ends[history]:
                self._end(history)
                return None
            if found.event.sequence > sequence:  # others may come before it
                self._place(found.event.sequence, found, history)
                return None
            entry = found
        self._go_on(entry, history)
        return entry


def cost_of(entry: Entry) -> int:
    """Return about how much memory an entry takes while it is held, in bytes."""
    return len(entry.event.data) + ENTRY_BYTES
