"""The caller: who sends a request or keeps a connection, and where it comes from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

from pushd.bus.clientaddress import limit_key
from pushd.bus.grants import EVERYTHING, Grants, Identity

__all__ = ["DAEMON", "ClientAddress", "ClientInfo", "number_of", "owner_of", "shown"]


def owner_of(caller: ClientInfo) -> str | None:
    """Return who is charged for what `caller` does or occupies: its user, else its `limit_key`; None for nobody."""
    return limit_key(caller.address) if caller.user is None else f"user {caller.user}"


def number_of(connection_id: str) -> int:
    """Return which connection it was, counted from 1; 0 if it is no id of any."""
    number = connection_id.rpartition("-")[2]
    return int(number) if number.isascii() and number.isdigit() and len(number) < 20 else 0


def shown(caller: ClientInfo) -> dict[str, object]:
    """Return what others are shown of a subscriber, as JSON."""
    members: dict[str, object] = {"connection": caller.id, "transport": caller.transport, "user": caller.user}
    if caller.identity.payload is not None:
        members["payload"] = caller.identity.payload
    return members


class ClientAddress(Protocol):
    """Where somebody is."""

    @property
    def address(self) -> str:
        """The IP address as text; ``unix`` for a Unix socket."""

    @property
    def name(self) -> str:
        """What it is called in the log, as ``192.0.2.1:40312``."""


class ClientInfo:
    """One client, as far as it is known. Its identity may change while it is connected, by a new token."""

    __slots__ = ("_prefix", "identity", "number", "place", "prepared", "since", "since_s", "transport")

    def __init__(self, identity: Identity, place: ClientAddress) -> None:
        self.identity = identity
        """Who it is, and what it may do."""
        self.place = place
        """Where it is, also behind a trusted proxy."""
        self._prefix = ""
        self.prepared: dict[Any, Any] | None = None
        """What it is to read when it subscribes, found before: each a `pushd.bus.search.Prepared`, by its key."""
        self.number = 0
        """Which subscriber it is, counted from 1; 0 if it is none."""
        self.transport = "http"
        """What it speaks: ``websocket``, ``sse``, ``stream``, ``poll`` or ``push``; else ``http``."""
        self.since = 0.0
        """When it was let in, in seconds since 1970."""
        self.since_s = 0.0
        """The same on a clock that never jumps."""

    def number_as(self, number: int, prefix: str) -> None:
        """Have it be a subscriber, the one with a number; its id begins with `prefix`."""
        self.number, self._prefix = number, prefix

    def appearing_as(self, identity: Identity) -> ClientInfo:
        """Return what it would be with another identity."""
        caller = ClientInfo(identity, self.place)
        caller.number_as(self.number, self._prefix)
        caller.transport, caller.since = self.transport, self.since
        return caller

    @property
    def id(self) -> str | None:
        """The id of its connection, if it is a subscriber."""
        return f"{self._prefix}-{self.number}" if self.number else None

    @property
    def address(self) -> str:
        """Its IP address as text; ``unix`` for a Unix socket."""
        return self.place.address

    @property
    def name(self) -> str:
        """What it is called in the log."""
        return self.place.name

    @property
    def grants(self) -> Grants:
        """What it may do."""
        return self.identity.grants

    @property
    def user(self) -> str | None:
        """What its user is called, if somebody vouches for that."""
        return self.identity.user


@dataclass(frozen=True, slots=True)
class _Here:
    address: str = "unix"
    name: str = "pushd itself"


DAEMON = ClientInfo(Identity(EVERYTHING), _Here())
"""The daemon itself."""
