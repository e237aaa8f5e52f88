"""The base of the endpoints that clients subscribe at."""

from __future__ import annotations

from typing import ClassVar

from twisted.internet.defer import Deferred

from pushd.bus import Pattern, Transport
from pushd.server import Endpoint, Request, RequestGuard, outlast, since_of, subscribed_patterns
from pushd.sessions import Admission

__all__ = ["SubscribeEndpoint"]


class SubscribeEndpoint(Endpoint):
    """An endpoint for subscribers; ``request.wanted`` holds the requested patterns and position."""

    transport: ClassVar[Transport]
    """How the subscribers of this endpoint are connected."""

    reads = frozenset({b"HEAD"})

    def __init__(self, guard: RequestGuard, admission: Admission) -> None:
        """Serve the clients that `guard` and `admission` admit."""
        super().__init__(guard)
        self.admission = admission

    def ask(self, request: Request) -> Deferred[None] | None:
        """Override: parse the query and check admission."""
        if request.method == b"OPTIONS":
            return None
        request.wanted = patterns, since = self.wanted(request)
        if request.method == b"HEAD":
            return self.admission.read(request.caller, patterns, since, lambda: request.is_gone)
        outlast(request)
        return self.admission.admit(request.caller, self.transport, patterns, since, lambda: request.is_gone)

    def wanted(self, request: Request) -> tuple[list[Pattern], str]:
        """Return the channels and patterns, and the position to start at."""
        return subscribed_patterns(request), since_of(request, "latest")
