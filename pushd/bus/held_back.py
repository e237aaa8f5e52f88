"""What is held back for one subscriber: events that are published while it is being replayed to."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence

from pushd.bus.event import Entry

__all__ = ["ENTRY_BYTES", "HeldBack", "cost_of"]

ENTRY_BYTES = 256
"""About how much memory an entry takes, beside its data."""


class HeldBack:
    """Events that wait, in the order of the log, each with its entries that are wanted."""

    __slots__ = ("_held", "held_bytes")

    def __init__(self) -> None:
        """Begin without events."""
        self._held: OrderedDict[int, Sequence[Entry]] = OrderedDict()  # by their sequences
        self.held_bytes = 0
        """About how much memory they take."""

    @property
    def held(self) -> int:
        """How many these are."""
        return len(self._held)

    def hold(self, entry: Entry, entries: Sequence[Entry] = ()) -> None:
        """Put in an event that was published last; `entries`: all of its entries that are wanted, if several."""
        sequence = entry.event.sequence
        if sequence not in self._held:
            self.held_bytes += cost_of(entry)
            self._held[sequence] = entries or (entry,)

    def _let_go(self, sequence: int) -> Entry:
        """Take out an event; return its first entry."""
        entry = self._held.pop(sequence)[0]
        self.held_bytes -= cost_of(entry)
        return entry

    def _hold_only(self, sequence: int, wanted: Callable[[str], bool]) -> None:
        """Take an event out, if it is there, unless one of its channels is `wanted`; keep the entries of those."""
        before = self._held.get(sequence, ())
        entries = [entry for entry in before if wanted(entry.channel)]
        if entries:
            self._held[sequence] = entries
        elif before:
            self._let_go(sequence)

    def miss_held(self) -> int:
        """Throw away the older half of the events that may be missed; return how many those were."""
        places = [sequence for sequence, entries in self._held.items() if entries[0].may_be_missed]
        older = places[: (len(places) + 1) // 2]
        for sequence in older:
            self._let_go(sequence)
        return len(older)


def cost_of(entry: Entry) -> int:
    """Return about how much memory an entry takes while it is held, in bytes."""
    return len(entry.event.data) + ENTRY_BYTES
