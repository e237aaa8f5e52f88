"""The status stream: figures every second, for operators, at ``GET /status/events``."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar, cast

from pushd.api.status.snapshot import StatusSnapshot
from pushd.bus import CloseCause, CloseReason, Pattern, StartPosition, Transport
from pushd.server import Request, RequestGuard
from pushd.sessions import Admission, Session
from pushd.transports import FORMAT, ResponseStream, StreamEndpoint
from pushd.wire import json_bytes, sse_block

__all__ = ["StatusEvents", "Watchers"]

_WHAT = "see the status"
_REVOKED = CloseReason(CloseCause.REFUSED, "no right to see the status any more")


class Watchers:
    """The clients of the status stream. Without clients, it costs nothing."""

    def __init__(self, overview: StatusSnapshot) -> None:
        """Send the figures of `overview`."""
        self._overview = overview
        self._watching: dict[Session, Callable[[bytes], None]] = {}

    def __len__(self) -> int:
        """Return the number of clients."""
        return len(self._watching)

    def add(self, session: Session, send: Callable[[bytes], None], **about: object) -> bytes:
        """Add the client with `session`, served by `send`; return its first message, which includes `about`."""
        if not self._watching:
            self._overview.look()
        self._watching[session] = send
        members = {**self._overview.about(session.caller), **about}
        return sse_block(json_bytes(members).decode(), type="pushd.about") + self._block()

    def tick(self) -> None:
        """Called every second: send the figures to every client.

        Skip clients with a backlog; close those that have lost their operator grant.
        """
        self._watching = {session: send for session, send in self._watching.items() if not session.is_closed}
        if not self._watching:
            self._overview.forget()
            return
        self._overview.look()
        block = self._block()
        for session, send in self._watching.items():
            if not session.caller.grants.is_operator:
                session.close(_REVOKED)
            elif not session.is_paused and not session.outbox_bytes:
                send(block)

    def _block(self) -> bytes:
        return sse_block(json_bytes(self._overview.counters()).decode(), type="pushd.figures")


class StatusEvents(StreamEndpoint):
    """An event stream of figures, which belong to no channel.

    A client is a subscriber to no channel: it is counted and listed, and closed when its token expires or the
    daemon stops.
    """

    transport = Transport("sse")
    format = FORMAT
    parameters: ClassVar = {"GET": frozenset()}

    def __init__(
        self,
        guard: RequestGuard,
        admission: Admission,
        watchers: Watchers,
        *,
        retry_s: float,
        heartbeat_s: float,
        publishes: bool = True,
    ) -> None:
        """Add clients to `watchers`; `publishes` tells them whether this listener accepts events, too."""
        super().__init__(guard, admission, heartbeat_s=heartbeat_s)
        self._watchers = watchers
        self._publishes = publishes
        self._opening = f"retry: {int(retry_s * 1000)}\n".encode()

    def wanted(self, request: Request) -> tuple[list[Pattern], str]:
        """Override: require an operator; there are no channels."""
        request.caller.grants.check_operator(_WHAT)
        return [], "latest"

    def render_GET(self, request: Request) -> bytes | int:
        """Override: check the grant again."""
        request.caller.grants.check_operator(_WHAT)  # again: the webhook may have changed the identity
        return super().render_GET(request)

    def make_session(self, request: Request, body: ResponseStream) -> Session:
        """Override: create a session without events."""
        return Session(self._sessions, body, _nothing, request.caller)

    def first(self, request: Request, stream: ResponseStream, start: StartPosition, since: str) -> bytes:
        """Override: add the client to the watchers, and return their first message."""
        session = cast(Session, stream.session)
        return self._opening + self._watchers.add(session, stream.send, publishes=self._publishes)


def _nothing(entry: object) -> bytes:
    """Return no bytes: a session without channels gets no events."""
    return b""
