"""Gauges: current values, counted on request."""

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
    """The values at one time."""

    connections: int
    """Number of open connections of any kind."""

    subscribers: Counter[str]
    """Number of connected subscribers, by transport."""

    subscriptions: int
    """Number of subscribed channels and patterns, summed over all subscribers."""

    channels: int
    """Number of channels with state."""

    outbox_bytes: int
    """Size of all outboxes, in bytes."""

    events_bytes: int
    """Approximate size of all retained events, in bytes."""

    database_bytes: int
    """Size of the file of the store; 0 without one."""

    journal_bytes: int
    """Size of the write-ahead journal of the store; 0 without one."""


class Gauges:
    """Counts on request, in time proportional to the subscribers; between requests, it costs nothing."""

    def __init__(self, sessions: SessionRegistry, connections: Callable[[], int], store: Path | None) -> None:
        """Count `sessions` and their subscriptions.

        `connections` returns the number of open connections; `store` is the path of the file of the store.
        """
        self._sessions = sessions
        self._connections = connections
        self._store = store

    def take(self) -> GaugeSnapshot:
        """Count everything and return the values."""
        bus: Bus = self._sessions.bus
        subscribers, outbox_bytes = Counter[str](), 0
        for subscriber in self._sessions:
            subscribers[subscriber.caller.transport.name] += 1
            outbox_bytes += subscriber.outbox_bytes
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
