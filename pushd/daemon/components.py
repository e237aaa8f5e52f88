"""The components of the daemon, as assembled."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from pushd.api import OperatorEndpoints
from pushd.bus import Bus, DirectPublisher
from pushd.daemon.ingress import Ingress
from pushd.server import PushdSite
from pushd.sessions import Presence, SessionRegistry
from pushd.store import SqlitePublisher, Store, Worker

__all__ = ["Components", "StoreParts"]


@dataclass(frozen=True, slots=True)
class StoreParts:
    """A store, its worker and its publisher."""

    store: Store
    """The store of events."""

    worker: Worker
    """The thread that runs the blocking calls of the store."""

    journal: SqlitePublisher
    """The publisher that writes to the store."""


@dataclass(frozen=True, slots=True)
class Components:
    """The components of the daemon, without ports and timers."""

    bus: Bus
    """The event bus."""

    publisher: DirectPublisher | SqlitePublisher
    """The publisher of the daemon itself, without rate limit and webhook."""

    sessions: SessionRegistry
    """The sessions of the connected subscribers."""

    site: PushdSite
    """The site of the client listeners."""

    every_second: tuple[Callable[[], None], ...]
    """Functions to call every second."""

    presence: Presence
    """Presence, which publishes joins and leaves."""

    ingress: Ingress
    """The checks that every client passes."""

    operators: OperatorEndpoints
    """Health, metrics and status endpoints."""

    operations: PushdSite
    """The site of the admin listeners."""

    storage: StoreParts | None = None
    """The store and its parts; None: events are kept in memory only."""
