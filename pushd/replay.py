"""The replay: the past of several channels, read in the order of the log."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from heapq import heapify, heappop, heappush
from itertools import count

from pushd.errors import PushdError, Unavailable
from pushd.event import Entry
from pushd.history import History

__all__ = ["ENTRY_BYTES", "Overtaken", "Replay"]

ENTRY_BYTES = 256
"""About how much memory an entry takes, beside its data."""

_RUN = 64
"""How many entries of one history are taken at once."""


class Overtaken(PushdError):
    """A history dropped entries that must not be missed before the replay came to them."""


_Item = tuple[int, int, Entry, History | None, int]
"""Sequence, a number that tells items of one sequence apart, entry; and if it is a cursor: history, last offset."""


class Replay:
    """Entries of several histories, and entries held back meanwhile, merged by their sequence.

    It keeps one cursor for each history and reads on as it is asked, so that a long replay costs no memory.
    An event that several of its sources have comes once.
    """

    __slots__ = ("_count", "_cursors", "_fault", "_heap", "_held_for", "_last", "held_bytes")

    def __init__(self) -> None:
        self._heap: list[_Item] = []
        self._cursors: dict[History, _Item] = {}
        self._held_for: dict[int, list[Entry]] = {}
        self._count = count()
        self._last = 0
        self._fault: Unavailable | None = None  # why there is nothing more
        self.held_bytes = 0
        """About how much memory the entries take that are held back."""

    def add(self, history: History, sequence: int) -> None:
        """Read what `history` has now after `sequence`; if it is read already, from the earlier of both places."""
        entry, latest = history.after(sequence), history.latest
        if entry is not None and latest is not None:
            self._begin(entry, history, latest.offset)

    def join(self, other: Replay) -> None:
        """Read what `other` was to read, which has read nothing yet."""
        for _, _, entry, history, last_offset in other._cursors.values():
            assert history is not None
            self._begin(entry, history, last_offset)

    def _begin(self, entry: Entry, history: History, last_offset: int) -> None:
        before = self._cursors.get(history)
        if before is not None and before[2].offset < entry.offset:
            entry = before[2]
        self._read(entry, history, last_offset)
        if len(self._heap) > 1000 and len(self._heap) > 4 * len(self._cursors):
            self.keep(lambda name: True)  # leave out the places that were moved from

    def hold(self, entry: Entry, entries: Sequence[Entry] = ()) -> None:
        """Put in an entry that was published meanwhile; `entries`: all of its event that are wanted, if several."""
        if len(entries) > 1:
            self._held_for[entry.event.sequence] = list(entries)
        self.held_bytes += _cost(entry)
        heappush(self._heap, (entry.event.sequence, next(self._count), entry, None, 0))

    def _read(self, entry: Entry, history: History, last_offset: int) -> None:
        """Place the cursor of `history` at `entry`."""
        item = self._cursors[history] = (entry.event.sequence, next(self._count), entry, history, last_offset)
        heappush(self._heap, item)

    def _read_on(self, entry: Entry, history: History, last_offset: int) -> None:
        """Move the cursor of `history` on from `entry`; raise `Overtaken` if what follows must not be missed."""
        following = history.at(entry.offset + 1)
        if following is None:
            if not entry.may_be_missed:
                raise Overtaken
            following = history.after(entry.event.sequence)
        if following is not None and following.offset <= last_offset:
            self._read(following, history, last_offset)
        else:
            del self._cursors[history]

    def miss_held(self) -> int:
        """Throw away the older half of the held entries that may be missed; answer how many those were."""
        places = sorted(item[0] for item in self._heap if item[3] is None and item[2].may_be_missed)
        older = set(places[: (len(places) + 1) // 2])
        self._heap = [item for item in self._heap if item[3] is not None or item[0] not in older]
        heapify(self._heap)
        self.held_bytes = sum(_cost(item[2]) for item in self._heap if item[3] is None)
        for sequence in older:
            self._held_for.pop(sequence, None)
        return len(older)

    def keep(self, wanted: Callable[[str], bool]) -> None:
        """Leave out the channels whose names are not `wanted`, also if they are wanted again later."""
        kept = (self._kept(item, wanted) for item in self._heap if self._is_current(item))
        self._heap = [item for item in kept if item is not None]
        heapify(self._heap)
        self._cursors = {item[3]: item for item in self._heap if item[3] is not None}
        self.held_bytes = sum(_cost(item[2]) for item in self._heap if item[3] is None)

    def _kept(self, item: _Item, wanted: Callable[[str], bool]) -> _Item | None:
        """Answer an item if it is wanted; if its event was held for several channels, by one that is."""
        sequence, number, entry, history, _ = item
        entries = None if history is not None else self._held_for.get(sequence)
        if entries is None:
            return item if wanted(entry.channel) else None
        entries = self._held_for[sequence] = [one for one in entries if wanted(one.channel)]
        if not entries:
            del self._held_for[sequence]
            return None
        return item if entry in entries else (sequence, number, entries[0], None, 0)

    def _is_current(self, item: _Item) -> bool:
        """Tell whether an item is held, or the place of a cursor that has not been moved from it."""
        return item[3] is None or self._cursors.get(item[3]) is item

    def _go_on(self, entry: Entry, history: History, last_offset: int) -> None:
        """Move the cursor of `history` on from `entry`, which is delivered whatever is found behind it."""
        try:
            self._read_on(entry, history, last_offset)
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
        _, _, entry, history, last_offset = heap[0]
        assert history is not None
        before = min((item[0] for item in heap[1:3]), default=sys.maxsize)  # what else comes next
        run = []
        for one in history.run(entry.offset, min(_RUN, last_offset - entry.offset + 1)):
            if one.event.sequence >= before or most_bytes < 0:
                break
            run.append(one)
            most_bytes -= len(one.event.data)
        if run:
            heappop(heap)
            self._last = run[-1].event.sequence
            if run[-1].offset == last_offset:
                del self._cursors[history]
            else:
                self._go_on(run[-1], history, last_offset)
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
            sequence, _, entry, history, last_offset = item
            if history is None:
                self.held_bytes -= _cost(entry)
                self._held_for.pop(sequence, None)
            elif entry.offset == last_offset:
                del self._cursors[history]
            else:
                self._go_on(entry, history, last_offset)
            if sequence != self._last:
                self._last = sequence
                return entry
        return None


def _cost(entry: Entry) -> int:
    return len(entry.event.data) + ENTRY_BYTES
