"""The replay: past events of several channels, read in the order of the log."""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from heapq import heappop, heappush

from pushd.bus.cursors import Ahead, Cursors, Item, Overtaken
from pushd.bus.event import Entry
from pushd.bus.held_back import ENTRY_BYTES, cost_of
from pushd.bus.history import History
from pushd.bus.work import NotInMemory, Work
from pushd.errors import Unavailable

__all__ = ["ENTRY_BYTES", "FindHistory", "Overtaken", "Replay", "cost_of"]

_FREED, _FREED_COST = 50, 5
"""How many cursors are freed at once when a replay is abandoned, and how many sends that counts as."""

_JOINED, _FILTERED = 16, 4
"""How many cursors are joined in one step, and how many are filtered in one step: about 40 microseconds."""

_TRIED = 500
"""The minimum number of held events that `hold_less` tries to leave to their histories at once."""

_RUN = 64
"""How many entries of one history are read at once."""


FindHistory = Callable[[Entry], "History | None"]
"""Return the history that retains an entry, or None."""


class Replay(Cursors):
    """Entries of several histories, and entries published meanwhile, merged by sequence.

    A replay keeps one cursor per history and reads on demand, so a long replay costs no memory. An event found in
    several histories is returned once. Entries published meanwhile are held; when these are too many, `hold_less`
    and `read_later` leave the entries that a history retains to its cursor.

    There may be hundreds of thousands of cursors, so `join` and `leave_out` only record changes that affect all of
    them, and `tidying` applies the changes in steps. Until then the replay is not tidy: nothing may be read from
    it, but entries may be held or left to their histories.

    If the next entry is not in memory, `next` raises `NotInMemory` without any change, and `fetching` waits for it.

    ===================  ==============  =====================  ===================================
    state                `is_tidy`       `is_filtering`         `next`, `run`
    ===================  ==============  =====================  ===================================
    tidy                 True            False                  allowed; raise `_fault` if it is set
    only joins recorded  False           False                  not allowed
    filter recorded      False           True                   not allowed
    ===================  ==============  =====================  ===================================
    """

    __slots__ = ("_is_unfiltered", "_joins", "_last", "_rest", "_unchecked", "is_tidy")

    def __init__(self) -> None:
        """Start with nothing to read."""
        super().__init__()
        self._last = 0  # the sequence of the event returned last
        self.is_tidy = True
        """Whether the replay may be read."""
        self._joins: deque[Replay] = deque()  # other replays to merge
        self._is_unfiltered = False  # filtering is required and has not started
        self._rest: list[Item] = []  # the cursors still to be filtered, the first one last
        self._unchecked: list[int] = []  # the held events still to be filtered

    def first(self) -> int | None:
        """Return the sequence of the next entry; None if there is no other entry. Raises what `next` does."""
        if self._fault is not None:
            raise self._fault
        held = next(iter(self._held), None)
        while self._heap:
            sequence, _, entry, cursor = item = self._heap[0]
            if not self._is_current(item):
                heappop(self._heap)
            elif isinstance(entry, Ahead):
                self._resolve_first()
            elif sequence == self._last:  # the event returned last, in another of its channels
                heappop(self._heap)
                self._go_on(entry, cursor)
            else:
                return sequence if held is None else min(sequence, held)
        return held

    # Changes to all cursors

    def clearing(self) -> Iterator[Callable[[], int]]:
        """Return calls that free a few cursors each. Each call returns how many sends it counts as.

        Freeing 300,000 cursors at once takes 60 ms. The last few are freed with the replay.
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
        for _ in range(min(_FREED, len(self._cursors))):
            self._cursors.popitem()
        return _FREED_COST

    @property
    def is_filtering(self) -> bool:
        """Whether cursors or held events are still to be filtered."""
        return self._is_unfiltered or bool(self._rest or self._unchecked)

    def join(self, other: Replay) -> None:
        """Merge `other`, which must be unread. Takes effect during `tidying`."""
        self._joins.append(other)
        self._passed = 0  # the other one may begin earlier
        self.is_tidy = False

    def leave_out(self) -> None:
        """Drop the channels that are no longer wanted. Takes effect during `tidying`."""
        self._is_unfiltered = True
        self.is_tidy = False

    def cutting(self, sequence: int) -> Work[None]:
        """Drop, in steps, the histories whose next entry is after `sequence`."""
        self.leave_out()
        return self._tidying(lambda item: item[0] <= sequence, lambda name: True)

    def tidying(self, wanted: Callable[[str], bool]) -> Work[None]:
        """Apply recorded changes in steps: merge other replays, and drop the channels that are not `wanted`.

        Between steps, names may become unwanted if `leave_out` is called then; no name may become wanted before
        the replay is tidy. Several such jobs may run at once and share the steps.
        """
        return self._tidying(lambda item: wanted(item[2].channel), wanted)

    def _tidying(self, is_kept: Callable[[Item], bool], wanted: Callable[[str], bool]) -> Work[None]:
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
            yield None

    def _join_some(self, other: Replay) -> None:
        if not other._rest:  # lowest first: pushing in ascending order is cheapest
            other._rest, other._heap = other._heap[::-1], []
        for _ in range(min(_JOINED, len(other._rest))):
            item = other._rest.pop()
            if other._is_current(item):
                sequence, _, entry, cursor = item
                self._begin(sequence, entry, cursor.history, cursor.end)
                other._end(cursor)
        if not other._rest:
            self._joins.popleft()
            if not self._joins and len(self._heap) > 1000 and len(self._heap) > 4 * len(self._cursors):
                self._is_unfiltered = True  # remove obsolete places from the heap

    def _begin_filtering(self) -> None:
        """Queue all cursors for filtering. Cursors placed meanwhile are wanted."""
        self._is_unfiltered = False
        self._rest, self._heap = self._heap, []
        self._rest.reverse()
        self._unchecked = list(reversed(self._held))

    def _filter_some(self, is_kept: Callable[[Item], bool]) -> None:
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

    # Held events

    def read_later(self, entries: Sequence[Entry], find: FindHistory) -> bool:
        """Leave a newly published event, given by all its `entries`, to the histories that `find` returns for them.

        Return False and change nothing if an entry is in no history, or if the first one may be missed: of events
        that may be missed, the latest are wanted and not the oldest.
        """
        if entries[0].may_be_missed:
            return False
        found = [(entry, history) for entry in entries if (history := find(entry)) is not None]
        if len(found) < len(entries):
            return False
        for entry, history in found:
            ahead = Ahead(entry.channel, entry.may_be_missed, entry.offset)
            self._begin(entry.event.sequence, ahead, history, entry.offset)
        return True

    def hold_less(self, find: FindHistory, enough_bytes: int = 0) -> None:
        """Leave held events to their histories where `read_later` can.

        After `_TRIED` events, stop once at most `enough_bytes` are held: to leave 4,000 events takes 20 ms.
        """
        for tried, sequence in enumerate(list(self._held)):
            if tried >= _TRIED and self.held_bytes <= enough_bytes:
                break
            if self.read_later(self._held[sequence], find):
                self._let_go(sequence)

    # Reading

    def run(self, most_bytes: int) -> list[Entry]:
        """Return the next entries of one history, about `most_bytes` of data, up to any entry from elsewhere.

        The fast path of `next` for replays of one channel, which most are. An empty list does not mean the end:
        continue with `next`.
        """
        if self._fault is not None:
            raise self._fault
        heap = self._heap
        if not heap or not self._is_current(heap[0]) or heap[0][0] == self._last:
            return []
        _, _, entry, cursor = heap[0]
        before = min((item[0] for item in heap[1:3]), default=sys.maxsize)  # the next entry of another history
        if self._held:
            before = min(before, next(iter(self._held)))
        run = []
        for one in self._run_of(cursor.history, entry.offset, min(_RUN, cursor.end - (entry.offset or 0) + 1)):
            if one.event.sequence >= before or most_bytes < 0:
                break
            run.append(one)
            most_bytes -= len(one.event.data)
        if run:
            heappop(heap)
            self._last = self._passed = run[-1].event.sequence
            self._go_on(run[-1], cursor)
        return run

    @staticmethod
    def _run_of(history: History, offset: int | None, count: int) -> list[Entry]:
        """Return some entries from `offset` on, as far as they are in memory."""
        try:
            return [] if offset is None else history.run(offset, count)
        except NotInMemory:
            return []

    def next(self) -> Entry | None:
        """Return the next entry, or None after the last one.

        Raises `NotInMemory` if it is to be fetched first; `Overtaken` if the entry was dropped; and `Unavailable`
        if it cannot be read. All entries before it have been returned by then.
        """
        if self._fault is not None:
            raise self._fault
        heap, held = self._heap, self._held
        while heap or held:
            if held and (not heap or next(iter(held)) <= heap[0][0]):
                entry: Entry | None = self._let_go(next(iter(held)))
            else:
                entry = self._take_first()
            if entry is not None and entry.event.sequence != self._last:
                self._last = self._passed = entry.event.sequence
                return entry
        return None

    def fetching(self, missing: NotInMemory) -> Work[None]:
        """Wait until the next entry, for which `next` raised `missing`, is in memory.

        The entry is kept then, however soon others take its place in memory. An error is raised by `next`.
        """
        waited_for: NotInMemory | None = missing
        while waited_for is not None:
            try:
                yield waited_for
                waited_for = self._resolve()
            except (Overtaken, Unavailable) as error:
                self._fault = error if isinstance(error, Unavailable) else self._fault
                return

    def _resolve(self) -> NotInMemory | None:
        """Put the next entry in place of an `Ahead`; return what that must wait for, if anything."""
        heap = self._heap
        try:
            while heap and not (self._is_current(heap[0]) and isinstance(heap[0][2], Entry)):
                if self._is_current(heap[0]):
                    self._resolve_first()
                else:
                    heappop(heap)
        except NotInMemory as missing:
            return missing
        return None
