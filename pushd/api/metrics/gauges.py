"""The census: what there is at the moment, counted when somebody asks."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from pushd.bus import Bus
from pushd.sessions import SessionRegistry

__all__ = ["GaugeSnapshot", "Gauges"]


@dataclass(frozen=True, slots=True)
class GaugeSnapshot:
    """What there was when it was counted."""

    connections: int
    """How many connections were open, of any kind."""

    subscribers: Counter[str]
    """How many subscribers were connected, by transport."""

    subscriptions: int
    """How many channels and patterns they were subscribed to: those of all together."""

    channels: int
    """How many channels were kept."""

    outbox_bytes: int
    """How much waited for all of them together."""

    events_bytes: int
    """About how much the events took that were kept."""

    database_bytes: int
    """How large the file of the store was; 0 without one."""

    journal_bytes: int
    """How large the file was that what is written goes to first; 0 without one."""


class Gauges:
    """Counts, which takes the longer the more subscribers there are: nothing is counted for it in between."""

    def __init__(self, sessions: SessionRegistry, connections: Callable[[], int], store: Path | None) -> None:
        """Count `sessions` and what they are subscribed to.

        `connections` answers how many connections there are; `store` is the path of the file of the store.
        """
        self._sessions = sessions
        self._connections = connections
        self._store = store

    def take(self) -> GaugeSnapshot:
        """Count."""
        bus: Bus = self._sessions.bus
        subscribers, outbox_bytes = Counter[str](), 0
        for guest in self._sessions:
            subscribers[guest.caller.transport] += 1
            outbox_bytes += guest.outbox_bytes
        store = self._store
        return GaugeSnapshot(
            connections=self._connections(),
            subscribers=subscribers,
            subscriptions=bus.subscriptions,
            channels=len(bus.log),
            outbox_bytes=outbox_bytes,
            events_bytes=bus.log.size_bytes,
            database_bytes=0 if store is None else _size(store),
            journal_bytes=0 if store is None else _size(store.with_name(f"{store.name}-wal")),
        )


def _size(path: Path) -> int:
    try:
        return os.stat(path).st_size
    except OSError:
        return 0
