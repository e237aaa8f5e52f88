"""The connected subscribers, for operators: ``/connections`` and ``/connections/{id}``."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from typing import ClassVar

from twisted.internet.defer import Deferred
from twisted.web.resource import IResource

from pushd.bus import CloseCause, CloseReason, Pattern, Work, shown
from pushd.errors import BadRequest, NotFound
from pushd.server import (
    DEFAULT_LIMIT,
    MAX_LIMIT,
    Branch,
    Endpoint,
    Request,
    RequestGuard,
    answer_nothing,
    decoded,
    json_answer,
    parameter,
    whole_number,
)
from pushd.sessions import ConnectedSubscriber, SessionRegistry, unless_done

__all__ = ["ConnectionList"]

_STATE_BYTES = 1000
"""Approximate size of a long item of a list, in bytes."""

_FILTERS = ("user", "channel", "transport", "address")
_CLOSED = CloseReason(CloseCause.REFUSED, "closed by an operator")


def _state(subscriber: ConnectedSubscriber) -> dict[str, object]:
    """Return the state of a subscriber as a JSON object."""
    caller = subscriber.caller
    return {
        **shown(caller),
        "address": caller.address,
        "since": caller.since,
        "expires": caller.identity.expires_at,
        "channels": list(subscriber.subscription.texts),
        "outbox_bytes": subscriber.outbox_bytes,
    }


class ConnectionList(Branch):
    """``/connections``: all connected subscribers, in pages; its children are connections by id."""

    parameters: ClassVar[Mapping[str, frozenset[str]]] = {
        "GET": frozenset({*_FILTERS, "after", "limit"}),
        "DELETE": frozenset(_FILTERS),
    }

    def __init__(self, guard: RequestGuard, sessions: SessionRegistry) -> None:
        super().__init__(guard)
        self._sessions = sessions

    def child(self, segment: bytes) -> IResource:
        """Return the resource of one connection."""
        return _Connection(self.guard, self._sessions, decoded(segment, "connection"))

    def ask(self, request: Request) -> Deferred[None] | None:
        """Override: find the connections in steps, as thousands take long."""
        if request.method == b"DELETE":
            request.caller.grants.check_operator("close connections")
            if not request.args.keys() & {name.encode("ascii") for name in _FILTERS}:
                raise BadRequest(f"expected at least one of {', '.join(_FILTERS)}")
            subscribers, most = iter(self._sessions), sys.maxsize
        elif request.method != b"OPTIONS":
            request.caller.grants.check_operator("list connections")
            most = whole_number(request, "limit", DEFAULT_LIMIT, MAX_LIMIT) + 1
            subscribers = self._sessions.after(parameter(request, "after"))
        else:
            return None
        fits = _Filter(request).fits
        return unless_done(
            self._sessions.steps.run(_find(request, fits, subscribers, most), lambda: request.is_gone)
        )

    def render_GET(self, request: Request) -> bytes:
        """Return ``{"connections":[...],"next":..}``; ``next`` is the ``after`` of the following page, or null."""
        limit = whole_number(request, "limit", DEFAULT_LIMIT, MAX_LIMIT)
        found: list[ConnectedSubscriber] = request.found
        following = found[limit - 1].caller.id if len(found) > limit else None
        request.setHeader(b"cache-control", b"no-store")
        shown = [_state(one) for one in found[:limit]]
        return json_answer(
            request, {"connections": shown, "next": following}, longest=bytes(_STATE_BYTES * len(shown))
        )

    def render_DELETE(self, request: Request) -> bytes:
        """Close all connections that match the filter; return their number as ``{"closed":..}``."""
        found: list[ConnectedSubscriber] = request.found
        self._sessions.end_each(found, _CLOSED)
        return json_answer(request, {"closed": len(found)})


def _find(
    request: Request,
    fits: Callable[[ConnectedSubscriber], bool],
    subscribers: Iterator[ConnectedSubscriber],
    most: int,
) -> Work[None]:
    """Put up to `most` matching subscribers into ``request.found``; some may disconnect meanwhile."""
    found: list[ConnectedSubscriber] = []
    request.found = found
    for subscriber in subscribers:
        if fits(subscriber):
            found.append(subscriber)
            if len(found) == most:
                break
        yield None


class _Filter:
    """The filter in the query of a request."""

    def __init__(self, request: Request) -> None:
        self._user, self._channel, self._transport, self._address = (parameter(request, name) for name in _FILTERS)

    def fits(self, subscriber: ConnectedSubscriber) -> bool:
        """Return whether a subscriber matches the filter."""
        caller, channel = subscriber.caller, self._channel
        return (
            (self._user is None or self._user == caller.user)
            and (self._transport is None or self._transport == caller.transport.name)
            and (self._address is None or self._address == caller.address)
            and (channel is None or any(_gets(text, channel) for text in subscriber.subscription.texts))
        )


def _gets(text: str, channel: str) -> bool:
    return text == channel or Pattern.parse(text).matches(channel)


class _Connection(Endpoint):
    """``/connections/{id}``"""

    parameters: ClassVar[Mapping[str, frozenset[str]]] = {}

    def __init__(self, guard: RequestGuard, sessions: SessionRegistry, connection_id: str) -> None:
        super().__init__(guard)
        self._sessions = sessions
        self._id = connection_id

    def _subscriber(self) -> ConnectedSubscriber:
        subscriber = self._sessions.get(self._id)
        if subscriber is None:
            raise NotFound(f"there is no connection {self._id[:64]!r}", "connection")
        return subscriber

    def render_GET(self, request: Request) -> bytes:
        """Return the state of the connection."""
        request.caller.grants.check_operator("see a connection")
        request.setHeader(b"cache-control", b"no-store")
        return json_answer(request, _state(self._subscriber()))

    def render_DELETE(self, request: Request) -> int:
        """Close the connection."""
        request.caller.grants.check_operator("close a connection")
        self._subscriber().close(_CLOSED)
        return answer_nothing(request)
