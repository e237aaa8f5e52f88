"""The earliest entries of many channels, for a reader that wants only the first few."""

from __future__ import annotations

from heapq import heappush, heapreplace

from pushd.bus.history import History

__all__ = ["EarliestEntries"]


class EarliestEntries:
    """The channels whose first entries may be among the first of all."""

    def __init__(self, count: int) -> None:
        """Tell which may be among the first `count`."""
        self._count = count
        self._sequences: list[int] = []  # the lowest so far, negative: a heap with the highest first
        self._seen: set[int] = set()

    @property
    def end(self) -> int | None:
        """What comes after this sequence is not wanted, if that is known."""
        return -self._sequences[0] if len(self._sequences) >= self._count else None

    def wants(self, history: History, sequence: int) -> bool:
        """Return whether the first entry after `sequence` may be among them."""
        end = self.end
        if end is not None and history.bound(sequence) > end:
            return False
        entry = history.after(sequence)
        if entry is None:
            return False
        place = entry.event.sequence
        if place in self._seen:
            return True
        if end is None:
            heappush(self._sequences, -place)
        elif place > end:
            return False
        else:
            self._seen.discard(-heapreplace(self._sequences, -place))
        self._seen.add(place)
        return True
