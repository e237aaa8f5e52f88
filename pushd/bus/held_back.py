"""Events held back for one subscriber: those published during its replay."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence

from pushd.bus.event import Entry

__all__ = ["ENTRY_BYTES", "HeldBack", "cost_of"]

ENTRY_BYTES = 256
"""The approximate memory of an entry besides its data, in bytes."""


class HeldBack:
    """Events held back, in the order of the log, each with the entries of the subscribed channels."""

    __slots__ = ("_held", "held_bytes")

    def __init__(self) -> None:
        """Start without events."""
        self._held: OrderedDict[int, Sequence[Entry]] = OrderedDict()  # by sequence
        self.held_bytes = 0
        """The approximate memory of the events, in bytes."""

    @property
    def held(self) -> int:
        """The number of events held back."""
        return len(self._held)

    def hold(self, entry: Entry, entries: Sequence[Entry] = ()) -> None:
        """Add the latest event; `entries` are its entries in the subscribed channels, if several."""
        sequence = entry.event.sequence
        if sequence not in self._held:
            self.held_bytes += cost_of(entry)
            self._held[sequence] = entries or (entry,)

    def _let_go(self, sequence: int) -> Entry:
        """Remove an event; return its first entry."""
        entry = self._held.pop(sequence)[0]
        self.held_bytes -= cost_of(entry)
        return entry

    def _hold_only(self, sequence: int, wanted: Callable[[str], bool]) -> None:
        """Keep only the entries of an event in `wanted` channels; remove the event if none is left."""
        before = self._held.get(sequence, ())
        entries = [entry for entry in before if wanted(entry.channel)]
        if entries:
            self._held[sequence] = entries
        elif before:
            self._let_go(sequence)

    def miss_held(self) -> int:
        """Drop the older half of the events that may be missed; return how many were dropped."""
        places = [sequence for sequence, entries in self._held.items() if entries[0].may_be_missed]
        older = places[: (len(places) + 1) // 2]
        for sequence in older:
            self._let_go(sequence)
        return len(older)


def cost_of(entry: Entry) -> int:
    """Return the approximate memory of an entry while it is held back, in bytes."""
    return len(entry.event.data) + ENTRY_BYTES
