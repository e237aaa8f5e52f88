"""The replay: the past of several channels, read in the order of the log."""

from __future__ import annotations

from collections.abc import Callable
from heapq import heapify, heappop, heappush
from itertools import count

from pushd.errors import PushdError
from pushd.event import Entry
from pushd.history import History

__all__ = ["ENTRY_BYTES", "Overtaken", "Replay"]

ENTRY_BYTES = 256
"""About how much memory an entry takes, beside its data."""


class Overtaken(PushdError):
    """A history dropped entries before the replay came to them."""


class Replay:
    """Entries of several histories, and entries held back meanwhile, merged by their sequence.

    It keeps one cursor for each history and reads on as it is asked, so that a long replay costs no memory.
    An event that several of its sources have comes once.
    """

    __slots__ = ("_count", "_heap", "_last", "held_bytes")

    def __init__(self) -> None:
        self._heap: list[tuple[int, int, Entry, History | None, int]] = []
        self._count = count()
        self._last = 0
        self.held_bytes = 0
        """About how much memory the entries take that are held back."""

    def add(self, history: History, sequence: int) -> None:
        """Read what `history` has now after `sequence`."""
        entry, latest = history.after(sequence), history.latest
        if entry is not None and latest is not None:
            self._push(entry, history, latest.offset)

    def hold(self, entry: Entry) -> None:
        """Put in an entry that was published meanwhile."""
        self.held_bytes += _cost(entry)
        self._push(entry, None, 0)

    def _push(self, entry: Entry, history: History | None, last_offset: int) -> None:
        heappush(self._heap, (entry.event.sequence, next(self._count), entry, history, last_offset))

    def keep(self, wanted: Callable[[str], bool]) -> None:
        """Leave out the channels whose names are not `wanted`."""
        self._heap = [item for item in self._heap if _is_wanted(item[2], item[3], wanted)]
        heapify(self._heap)
        self.held_bytes = sum(_cost(item[2]) for item in self._heap if item[3] is None)

    def next(self) -> Entry | None:
        """Answer the next entry, or None after the last; raise `Overtaken` if it is no longer there."""
        while self._heap:
            sequence, _, entry, history, last_offset = heappop(self._heap)
            if history is None:
                self.held_bytes -= _cost(entry)
            elif entry.offset < last_offset:
                following = history.at(entry.offset + 1)
                if following is None:
                    raise Overtaken
                self._push(following, history, last_offset)
            if sequence != self._last:
                self._last = sequence
                return entry
        return None


def _cost(entry: Entry) -> int:
    return len(entry.event.data) + ENTRY_BYTES


def _is_wanted(entry: Entry, history: History | None, wanted: Callable[[str], bool]) -> bool:
    """Tell whether what is next of a source is wanted: a held entry may be there for any channel of its event."""
    if history is None:
        return any(map(wanted, entry.event.channels))
    return wanted(entry.channel)
