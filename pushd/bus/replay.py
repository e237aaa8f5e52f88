"""The replay: the past of several channels, read in the order of the log."""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from heapq import heappop, heappush
from itertools import count
from typing import NamedTuple

from pushd.bus.event import Entry
from pushd.bus.held_back import ENTRY_BYTES, HeldBack, cost_of
from pushd.bus.history import History
from pushd.errors import PushdError, Unavailable

__all__ = ["ENTRY_BYTES", "FindHistory", "Overtaken", "Replay", "cost_of"]

_FREED, _FREED_COST = 50, 5
"""How many cursors are freed at once when a replay ends before its end, and as how many sends that counts."""

_JOINED, _FILTERED = 16, 4
"""How many cursors are joined in one step, and how many are compared with what is wanted: about 40 microseconds."""

_TRIED = 500
"""How many held events at least are tried to be left to their histories at once."""

_RUN = 64
"""How many entries of one history are taken at once."""


class Overtaken(PushdError):
    """A history dropped entries that must not be missed before the replay came to them."""


class _Ahead(NamedTuple):
    """The place of an entry that is to be read from its history when the replay comes to it."""

    channel: str
    offset: int
    may_be_missed: bool


_Item = tuple[int, int, Entry | _Ahead, History]
"""The place of a cursor: sequence, a number that tells items of one sequence apart, entry, history."""

FindHistory = Callable[[Entry], "History | None"]
"""Return the history that retains an entry, None if there is none."""

Work = Generator[None, None, None]
"""What is done in steps: see `pushd.bus.search`."""


class Replay(HeldBack):
    """Entries of several histories, and entries held back meanwhile, merged by their sequence.

    It keeps one cursor for each history and reads on as it is asked, so that a long replay costs no memory.
    An event that several of its sources have comes once. Entries that are published meanwhile are held; when these
    are too many, `hold_less` and `read_later` leave those that a history retains to its cursor.

    There may be hundreds of thousands of cursors. What concerns all of them is only noted by `join` and
    `leave_out`; then the replay is not tidy until `tidying` has done it in steps. Meanwhile nothing may be read
    from it, but entries may be held or left to their histories.
    """

    __slots__ = (
        "_count",
        "_cursors",
        "_ends",
        "_fault",
        "_heap",
        "_is_unfiltered",
        "_joins",
        "_last",
        "_rest",
        "_unchecked",
        "is_tidy",
    )

    def __init__(self) -> None:
        """Begin with nothing to read."""
        super().__init__()
        self._heap: list[_Item] = []
        self._cursors: dict[History, _Item] = {}
        self._ends: dict[History, int] = {}  # the last offset that each cursor reads
        self._count = count()
        self._last = 0
        self._fault: Unavailable | None = None  # why there is nothing more
        self.is_tidy = True
        """Whether it may be read."""
        self._joins: deque[Replay] = deque()  # what is to be read besides
        self._is_unfiltered = False  # something has to be left out, and that has not begun
        self._rest: list[_Item] = []  # the cursors that are still to be looked at, the first one last
        self._unchecked: list[int] = []  # and the held events

    def add(self, history: History, sequence: int) -> None:
        """Read what `history` has now after `sequence`; if it is read already, from the earlier of both places."""
        entry, latest = history.after(sequence), history.latest
        if entry is not None and latest is not None:
            self._begin(entry, history, latest.offset)

    def _begin(self, entry: Entry, history: History, last_offset: int) -> None:
        before = self._cursors.get(history)
        if before is None or entry.offset < before[2].offset:
            self._place(entry.event.sequence, entry, history)
        self._ends[history] = max(last_offset, self._ends.get(history, 0))

    @property
    def width(self) -> int:
        """How many histories it reads."""
        return len(self._cursors)

    @property
    def first(self) -> int | None:
        """A sequence that the next entry is not before; None if there is no other entry."""
        held = next(iter(self._held), None)
        while self._heap:
            item = self._heap[0]
            if item[0] != self._last and self._is_current(item):
                return item[0] if held is None else min(item[0], held)
            heappop(self._heap)
            if self._is_current(item):  # the event that came last, in another of its channels
                self._take(item)
        return held

    # What concerns all cursors

    def clearing(self) -> Iterator[Callable[[], int]]:
        """Return calls that free a few cursors each; each returns as how many sends it counts.

        Freeing 300,000 of them at once takes 60 ms. A few are left, to be freed with the replay.
        """
        while self._is_large:
            yield self._free_some

    @property
    def _is_large(self) -> bool:
        return max(len(self._heap), len(self._rest), len(self._cursors)) > _FREED or bool(self._joins)

    def _free_some(self) -> int:
        if self._joins and self._joins[-1]._is_large:
            return self._joins[-1]._free_some()
        if self._joins:
            self._joins.pop()
        del self._heap[-_FREED:], self._rest[-_FREED:]
        for table in (self._cursors, self._ends):
            for _ in range(min(_FREED, len(table))):
                table.popitem()
        return _FREED_COST

    @property
    def is_filtering(self) -> bool:
        """Whether something is still to be left out."""
        return self._is_unfiltered or bool(self._rest or self._unchecked)

    def join(self, other: Replay) -> None:
        """Read what `other` was to read, which has read nothing yet, once that has been made `tidying`."""
        self._joins.append(other)
        self.is_tidy = False

    def leave_out(self) -> None:
        """Leave out the channels that are not wanted any more, once that has been made `tidying`."""
        self._is_unfiltered = True
        self.is_tidy = False

    def cutting(self, sequence: int) -> Work:
        """Leave out, in steps, the histories whose next entry comes after `sequence`."""
        self.leave_out()
        return self._tidying(lambda item: item[0] <= sequence, lambda name: True)

    def tidying(self, wanted: Callable[[str], bool]) -> Work:
        """Do in steps what was noted: join others, and leave out the channels whose names are not `wanted`.

        Names may cease to be wanted between the steps, if `leave_out` is called then; no others may be wanted anew
        before it is tidy. If several such works go on at once, they do it together.
        """
        return self._tidying(lambda item: wanted(item[2].channel), wanted)

    def _tidying(self, is_kept: Callable[[_Item], bool], wanted: Callable[[str], bool]) -> Work:
        while not self.is_tidy:
            if self._joins:
                self._join_some(self._joins[0])
            elif self._rest:
                self._filter_some(is_kept)
            elif self._unchecked:
                self._check_some(wanted)
            elif self._is_unfiltered:
                self._begin_filtering()
            else:
                self.is_tidy = True
                return
            yield

    def _join_some(self, other: Replay) -> None:
        if not other._rest:  # the lowest first is about the best order to push them
            other._rest, other._heap = other._heap[::-1], []
        for _ in range(min(_JOINED, len(other._rest))):
            item = other._rest.pop()
            if other._is_current(item):
                entry, history = item[2], item[3]
                assert isinstance(entry, Entry)
                self._begin(entry, history, other._ends[history])
                other._end(history)
        if not other._rest:
            self._joins.popleft()
            if not self._joins and len(self._heap) > 1000 and len(self._heap) > 4 * len(self._cursors):
                self._is_unfiltered = True  # leave out the places that were moved from

    def _begin_filtering(self) -> None:
        """Move all cursors to what has to be looked at. Those that are placed meanwhile are wanted."""
        self._is_unfiltered = False
        self._rest, self._heap = self._heap, []
        self._rest.reverse()
        self._unchecked = list(reversed(self._held))

    def _filter_some(self, is_kept: Callable[[_Item], bool]) -> None:
        for _ in range(min(_FILTERED, len(self._rest))):
            item = self._rest.pop()
            if not self._is_current(item):
                continue
            if is_kept(item):
                heappush(self._heap, item)
            else:
                self._end(item[3])

    def _check_some(self, wanted: Callable[[str], bool]) -> None:
        for _ in range(min(_FILTERED, len(self._unchecked))):
            self._hold_only(self._unchecked.pop(), wanted)

    # What is held

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

    def hold_less(self, find: FindHistory, enough_bytes: int = 0) -> None:
        """Leave held entries to their histories, as `read_later` does, as far as that is possible.

        Of many, only some are left, if no more than `enough_bytes` are held then: to leave 4,000 takes 20 ms.
        """
        for tried, sequence in enumerate(list(self._held)):
            if tried >= _TRIED and self.held_bytes <= enough_bytes:
                break
            if self.read_later(self._held[sequence], find):
                self._let_go(sequence)

    # Cursors

    def _place(self, sequence: int, entry: Entry | _Ahead, history: History) -> None:
        """Place the cursor of `history` at `entry`."""
        item = self._cursors[history] = (sequence, next(self._count), entry, history)
        heappush(self._heap, item)

    def _end(self, history: History) -> None:
        """Read no more of `history`."""
        del self._cursors[history], self._ends[history]

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

    def _is_current(self, item: _Item) -> bool:
        """Return whether a cursor has not been moved from its place."""
        return self._cursors.get(item[3]) is item

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
        if not heap or not self._is_current(heap[0]) or heap[0][0] == self._last:
            return []
        _, _, entry, history = heap[0]
        before = min((item[0] for item in heap[1:3]), default=sys.maxsize)  # what else comes next
        if self._held:
            before = min(before, next(iter(self._held)))
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
        """Return the next entry, or None after the last; raise `Overtaken` if it is no longer there.

        Raises `Unavailable` if it cannot be read; everything before it has been answered then.
        """
        if self._fault is not None:
            raise self._fault
        heap, held = self._heap, self._held
        while heap or held:
            if held and (not heap or next(iter(held)) <= heap[0][0]):
                entry: Entry | None = self._let_go(next(iter(held)))
            else:
                item = heappop(heap)
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
