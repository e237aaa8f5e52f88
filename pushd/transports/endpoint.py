"""The endpoint that clients subscribe at."""

from __future__ import annotations

from typing import ClassVar

from twisted.internet.defer import Deferred

from pushd.bus import Pattern
from pushd.server import Endpoint, Request, RequestGuard, since_of, subscribed_patterns
from pushd.sessions import Admission, outlast

__all__ = ["SubscribeEndpoint"]


class SubscribeEndpoint(Endpoint):
    """An endpoint that subscribers come to: its methods find what they want in ``request.wanted``."""

    transport: ClassVar[str]
    """What it is called."""

    reads = frozenset({b"HEAD"})

    def __init__(self, gate: RequestGuard, door: Admission) -> None:
        """Serve those whom `gate` and `door` let in."""
        super().__init__(gate)
        self.door = door

    def ask(self, request: Request) -> Deferred[None] | None:
        """Override: read what is wanted and ask at the door."""
        if request.method == b"OPTIONS":
            return None
        request.wanted = patterns, since = self.wanted(request)
        if request.method == b"HEAD":
            return self.door.read(request.caller, patterns, since, lambda: request.is_gone)
        if self.transport != "poll":  # which may have an answer at once
            outlast(request)
        return self.door.enter(request.caller, self.transport, patterns, since, lambda: request.is_gone)

    def wanted(self, request: Request) -> tuple[list[Pattern], str]:
        """Read the channels and patterns, and the position to begin at."""
        return subscribed_patterns(request), since_of(request, "latest")
