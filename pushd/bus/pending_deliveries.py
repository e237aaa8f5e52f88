"""Pending deliveries: events with too many recipients for one turn of the reactor, delivered in slices."""

from __future__ import annotations

from collections import deque

from pushd.bus.event import Entry
from pushd.bus.recipients import Recipient

__all__ = ["PendingDeliveries"]


class PendingDeliveries:
    """A queue of events, in the order of the log, each with its remaining recipients."""

    __slots__ = ("events",)

    def __init__(self) -> None:
        self.events: deque[tuple[list[Entry], dict[Recipient, Entry]]] = deque()
        """The events. Code that runs for each event checks this directly: a fast path that saves two calls."""

    def __len__(self) -> int:
        """Return the number of events."""
        return len(self.events)

    def add(self, entries: list[Entry], unserved: dict[Recipient, Entry]) -> None:
        """Add the event of `entries`; `unserved` has the entry for each recipient."""
        self.events.append((entries, unserved))

    def next(self) -> tuple[list[Entry], Recipient, Entry] | None:
        """Remove and return the next delivery: all entries of the event, the recipient, its entry; or None."""
        self.tidy()
        if not self.events:
            return None
        entries, unserved = self.events[0]
        return (entries, *unserved.popitem())

    def tidy(self) -> None:
        """Remove the events without remaining recipients at the front, and free their encoded frames."""
        while self.events and not self.events[0][1]:
            entries, _ = self.events.popleft()
            for entry in entries:
                entry.forget_frames()

    def of(self, recipient: Recipient) -> list[tuple[list[Entry], Entry]]:
        """Remove and return the pending deliveries of `recipient`, in order."""
        found = []
        for entries, unserved in self.events:
            entry = unserved.pop(recipient, None)
            if entry is not None:
                found.append((entries, entry))
        return found
