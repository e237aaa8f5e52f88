"""The caller: the identity and address of the client of a request or connection."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from pushd.bus.clientaddress import limit_key
from pushd.bus.grants import EVERYTHING, Grants, Identity
from pushd.bus.search import Key, Prepared

__all__ = ["DAEMON", "ClientAddress", "ClientInfo", "Transport", "number_of", "owner_of", "shown"]


def owner_of(caller: ClientInfo) -> str | None:
    """Return the owner that limits charge for `caller`: its user, else its `limit_key`; None if not counted."""
    return limit_key(caller.address) if caller.user is None else f"user {caller.user}"


def number_of(connection_id: str) -> int:
    """Return the number in a connection id, counted from 1; 0 if it is not a connection id."""
    number = connection_id.rpartition("-")[2]
    return int(number) if number.isascii() and number.isdigit() and len(number) < 20 else 0


def shown(caller: ClientInfo) -> dict[str, object]:
    """Return the public description of a subscriber, for JSON."""
    members: dict[str, object] = {"connection": caller.id, "transport": caller.transport.name, "user": caller.user}
    if caller.identity.payload is not None:
        members["payload"] = caller.identity.payload
    return members


class ClientAddress(Protocol):
    """The network address of a client."""

    @property
    def address(self) -> str:
        """The IP address as text; ``unix`` for a Unix socket."""

    @property
    def name(self) -> str:
        """The name of the client in the log, such as ``192.0.2.1:40312``."""


@dataclass(frozen=True, slots=True)
class Transport:
    """How a client is connected."""

    name: str
    """The name in the log, in metrics and in responses: such as ``websocket`` or ``sse``."""

    is_polling: bool = False
    """Whether each response ends the subscriber, which connects anew for the next one."""

    has_own_starts: bool = False
    """Whether each channel of a subscriber has a start position of its own."""


_HTTP = Transport("http")


class ClientInfo:
    """One client. A new token may change the identity of the client while it is connected."""

    __slots__ = ("identity", "number", "place", "prefix", "prepared", "since", "since_s", "transport")

    def __init__(self, identity: Identity, place: ClientAddress) -> None:
        self.identity = identity
        """The user and the grants of the client."""
        self.place = place
        """The address of the client, resolved behind a trusted proxy."""
        self.prepared: dict[Key, Prepared] | None = None
        """The replays prepared before the client subscribes, by `pushd.bus.search.key_of`."""
        self.number = 0
        """The number of the subscriber, counted from 1; 0 if the client is not a subscriber."""
        self.prefix = ""
        """The beginning of the connection id, before the number."""
        self.transport = _HTTP
        """The transport of a subscriber; ``http`` for other clients."""
        self.since = 0.0
        """The time of admission, in seconds since 1970."""
        self.since_s = 0.0
        """The time of admission on the monotonic clock, in seconds."""

    def appearing_as(self, identity: Identity) -> ClientInfo:
        """Return a copy of the client with another identity."""
        caller = ClientInfo(identity, self.place)
        caller.number, caller.prefix = self.number, self.prefix
        caller.transport, caller.since = self.transport, self.since
        return caller

    @property
    def id(self) -> str | None:
        """The connection id, None if the client is not a subscriber."""
        return f"{self.prefix}-{self.number}" if self.number else None

    @property
    def address(self) -> str:
        """The IP address of the client as text; ``unix`` for a Unix socket."""
        return self.place.address

    @property
    def name(self) -> str:
        """The name of the client in the log."""
        return self.place.name

    @property
    def grants(self) -> Grants:
        """The grants of the client."""
        return self.identity.grants

    @property
    def user(self) -> str | None:
        """The name of the user, None if not authenticated."""
        return self.identity.user


@dataclass(frozen=True, slots=True)
class _Here:
    address: str = "unix"
    name: str = "pushd itself"


DAEMON = ClientInfo(Identity(EVERYTHING), _Here())
"""The daemon itself."""
