"""Pending deliveries: events with so many subscribers of their own that they are handed out in slices."""

from __future__ import annotations

from collections import deque

from pushd.bus.event import Entry
from pushd.bus.subscription import Subscription

__all__ = ["PendingDeliveries"]


class PendingDeliveries:
    """Who is still to be handed which events. The events are in the order of the log."""

    __slots__ = ("events",)

    def __init__(self) -> None:
        self.events: deque[tuple[list[Entry], dict[Subscription, Entry]]] = deque()
        """The events. Code that runs for each event looks here whether there are any, which saves two calls."""

    def __len__(self) -> int:
        """Count the events."""
        return len(self.events)

    def add(self, entries: list[Entry], unserved: dict[Subscription, Entry]) -> None:
        """Add the event of `entries`, of which each subscription in `unserved` is to get one."""
        self.events.append((entries, unserved))

    def next(self) -> tuple[list[Entry], Subscription, Entry] | None:
        """Take out the next delivery: all entries of the event, to whom, and which; None if there is none."""
        self.tidy()
        if not self.events:
            return None
        entries, unserved = self.events[0]
        return (entries, *unserved.popitem())

    def tidy(self) -> None:
        """Forget the events that everybody has. Their frames are not needed any more."""
        while self.events and not self.events[0][1]:
            entries, _ = self.events.popleft()
            for entry in entries:
                entry.forget_frames()

    def of(self, subscription: Subscription) -> list[tuple[list[Entry], Entry]]:
        """Take out what is to be delivered to `subscription`, in order."""
        found = []
        for entries, unserved in self.events:
            entry = unserved.pop(subscription, None)
            if entry is not None:
                found.append((entries, entry))
        return found
