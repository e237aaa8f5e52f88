"""The presence of a channel: the clients that are subscribed to it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from twisted.internet.defer import Deferred

from pushd.api.names import named_channel
from pushd.bus import (
    ClientInfo,
    Work,
    number_of,
    owner_of,
    shown,
)
from pushd.server import (
    DEFAULT_LIMIT,
    MAX_LIMIT,
    Endpoint,
    Request,
    RequestGuard,
    json_answer,
    parameter,
    whole_number,
)
from pushd.sessions import Admission

__all__ = ["ChannelPresence", "PresenceEndpoint"]

_READS = frozenset({b"GET", b"HEAD"})


class ChannelPresence(Endpoint):
    """``/channels/{channel}/presence``: the subscribers of the channel."""

    parameters: ClassVar[Mapping[str, frozenset[str]]] = {"GET": frozenset({"after", "limit"})}
    reads = _READS

    def __init__(self, guard: RequestGuard, admission: Admission, name: str) -> None:
        super().__init__(guard)
        self._admission = admission
        self._bus = admission.sessions.bus
        self._name = name

    def named(self, request: Request) -> str:
        """Return the name of the channel."""
        return self._name

    def ask(self, request: Request) -> Deferred[None] | None:
        """Override: check that the channel shows its presence, authorize reading it, and read the page."""
        if request.method not in _READS:
            return None
        name = self.named(request)
        self._bus.check_present(name, request.caller.grants)
        limit, after = whole_number(request, "limit", DEFAULT_LIMIT, MAX_LIMIT), parameter(request, "after")
        first = 0 if after is None else number_of(after)

        def read() -> Work[None]:
            grants = request.caller.grants
            request.found = yield from self._bus.presence(name, grants, first, limit + 1)

        waiting = self._admission.look(request.caller, name)
        return self._admission.do(read, waiting, lambda: request.is_gone, owner_of(request.caller))

    def render_GET(self, request: Request) -> bytes:
        """Return a page ``{"channel","count","users","connections":[...],"next":..}``, ordered by connection id."""
        limit = whole_number(request, "limit", DEFAULT_LIMIT, MAX_LIMIT)
        count, users, rest = request.found
        page, following = rest[:limit], rest[limit - 1].id if len(rest) > limit else None
        request.setHeader(b"cache-control", b"no-store")
        members = {"channel": self.named(request), "count": count, "users": users}
        return json_answer(
            request, {**members, "connections": [_present(caller) for caller in page], "next": following}
        )


class PresenceEndpoint(ChannelPresence):
    """``/presence``: the presence of a channel named in the query."""

    parameters: ClassVar[Mapping[str, frozenset[str]]] = {"GET": frozenset({"channel", "after", "limit"})}

    def __init__(self, guard: RequestGuard, admission: Admission) -> None:
        """Serve the presence of any channel."""
        super().__init__(guard, admission, "")

    def named(self, request: Request) -> str:
        """Override: return the channel of the query."""
        return named_channel(request)


def _present(caller: ClientInfo) -> dict[str, object]:
    return {**shown(caller), "since": caller.since}
