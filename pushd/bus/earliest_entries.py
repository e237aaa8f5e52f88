"""The earliest entries of many channels, for a read of only the first few."""

from __future__ import annotations

from heapq import heappush, heapreplace

from pushd.bus.history import History

__all__ = ["EarliestEntries"]


class EarliestEntries:
    """A filter for the channels whose first entries may be among the first of all channels."""

    def __init__(self, count: int) -> None:
        """Start without entries, to find the channels that may have one of the first `count`."""
        self._count = count
        self._sequences: list[int] = []  # the lowest so far, negated: `heapq` has only min-heaps
        self._seen: set[int] = set()

    @property
    def end(self) -> int | None:
        """The sequence after which no entry is needed, None if not known yet."""
        return -self._sequences[0] if len(self._sequences) >= self._count else None

    def wants(self, history: History, sequence: int) -> bool:
        """Return whether the first entry of `history` after `sequence` may be among the first of all."""
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
