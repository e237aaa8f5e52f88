"""The interfaces between a request and its connection, its site and its resource."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Protocol

from twisted.web.resource import IResource

from pushd.bus import ClientInfo, Counters
from pushd.errors import Refused
from pushd.server.access_log import RequestLog
from pushd.server.eventsource_retry import EventSourceRetry
from pushd.server.incomplete_bodies import IncompleteBodies
from pushd.server.net.connection_info import ConnectionInfo
from pushd.server.net.connections import UpgradedProtocol
from pushd.server.net.writer import Writer

__all__ = ["AtSite", "Connection", "Streamed"]


class Connection(Protocol):
    """A connection that carries requests, in any version of HTTP."""

    @property
    def least_held_bytes(self) -> int:
        """The size above which a response is counted until the client has read it."""

    def hold(self, caller: ClientInfo | None, size: int) -> None:
        """Count a response of `size` bytes to `caller`; raise `TooMany` or `Unavailable` above the limit."""

    def refuse(self, refused: Refused) -> None:
        """Send `refused` as the response to the current, incomplete request, and discard the rest of it."""

    def body_writer(self) -> Writer:
        """Return the writer for the rest of a body, after `Request.write`; the caller adds HTTP/1.1 chunks."""

    @property
    def info(self) -> ConnectionInfo:
        """The facts of the connection."""

    @property
    def is_tunnel(self) -> bool:
        """Whether the current request is CONNECT with the protocol ``websocket`` (RFC 8441)."""

    @property
    def has_input_ended(self) -> bool:
        """Whether the client has closed its half of the connection."""

    def upgrade(self, protocol: UpgradedProtocol, fields: Iterable[tuple[bytes, bytes]]) -> None:
        """Send a response with `fields` to the current request, and hand the connection to `protocol`."""

    def finish(self) -> None:
        """Close the connection once the current request has its response."""

    def end(self) -> None:
        """Close once all output is sent."""

    def abort(self) -> None:
        """Abort the connection; unsent output is lost."""


class AtSite(Protocol):
    """What a request uses of the site that received it."""

    comeback: EventSourceRetry
    counters: Counters
    request_log: RequestLog
    bodies: IncompleteBodies
    max_body_bytes: int

    def getResourceFor(self, request: Any) -> IResource:
        """Return the resource at the path of a request."""

    def body_begins(self, request: Any, body: bytes) -> bytes:
        """Called with the first bytes of a response; return the bytes to send instead."""

    def head_begins(self, request: Any) -> None:
        """Called before the head of a response is written."""


class Streamed(Protocol):
    """Sends the rest of a response without its request."""

    @property
    def sent_bytes(self) -> int:
        """How many bytes were sent so far."""
