"""What a request knows of its connection, its site and its resource."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Protocol

from twisted.internet.defer import Deferred
from twisted.web.resource import IResource

from pushd.bus import ClientInfo, Counters
from pushd.errors import Refused
from pushd.server.eventsource_retry import EventSourceRetry
from pushd.server.incomplete_bodies import IncompleteBodies
from pushd.server.net.addresses import ClientAddress
from pushd.server.net.client_certificates import Certificate
from pushd.server.net.connections import UpgradedProtocol
from pushd.server.net.writer import Writer

__all__ = ["AtSite", "Connection", "Expecting", "Streamed", "Visit"]


class Connection(Protocol):
    """What carries requests, in any version of HTTP."""

    @property
    def least_held_bytes(self) -> int:
        """Larger answers count while they wait for the client."""

    def hold(self, caller: ClientInfo | None, size: int) -> None:
        """Count an answer of `size` bytes to `caller`; raise `TooMany` or `Unavailable` if that is too much."""

    def refuse(self, refused: Refused) -> None:
        """Answer the request at hand, of which not all has come, and throw the rest away."""

    def body_writer(self) -> Writer:
        """Return what takes the rest of a body, framed for this connection, once `Request.write` was called."""

    @property
    def place(self) -> ClientAddress:
        """Where the other end is: the client, or a proxy."""

    @property
    def is_tunnel(self) -> bool:
        """Whether the request at hand is CONNECT with the protocol ``websocket`` (RFC 8441)."""

    @property
    def has_input_ended(self) -> bool:
        """Whether the client sends nothing more over the connection."""

    @property
    def certificate(self) -> Certificate | None:
        """The certificate that the client has shown, if it has."""

    def upgrade(self, speaker: UpgradedProtocol, fields: Iterable[tuple[bytes, bytes]]) -> None:
        """Answer the request at hand with `fields` and no end, and have `speaker` speak from then on."""

    def finish(self) -> None:
        """Close the connection once the request at hand has been answered."""

    def end(self) -> None:
        """Close, once everything is written."""

    def abort(self) -> None:
        """Close now."""


class Visit(Protocol):
    """What logs a request when it has ended: `pushd.server.access_log.RequestRecord`."""

    detail: str | None

    def ended(self, status: int, size: int, peer: str, user: str | None) -> None:
        """Log that the request was answered."""


class Log(Protocol):
    is_wanted: bool

    def id_of(self, request: Any) -> str:
        """Return what a request is called."""

    def begin(self, request: Any) -> Visit:
        """Return what logs a request when it has ended."""


class Serving(Protocol):
    @property
    def max_body_bytes(self) -> int:
        """The largest body of any request."""


class Expecting(Protocol):
    def expect(self, request: Any) -> Deferred[None] | None:
        """Decide from the head whether the body of a request is read, now or later: see
        `pushd.server.web.resource`.
        """


class AtSite(Protocol):
    comeback: EventSourceRetry
    figures: Counters
    request_log: Log
    bodies: IncompleteBodies
    serving: Serving

    def getResourceFor(self, request: Any) -> IResource:
        """Find the resource at the path of a request."""

    def body_begins(self, request: Any, body: bytes) -> bytes:
        """Return what is to be sent in place of `body`, the first of an answer, or all of it."""

    def head_begins(self, request: Any) -> None:
        """Learn that the head of an answer is about to be written."""


class Streamed(Protocol):
    """What sends the rest of an answer past its request."""

    @property
    def sent_bytes(self) -> int:
        """How much that was until now."""
