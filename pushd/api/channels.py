"""Channels over HTTP: the list, one channel, its history, and a single event."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import ClassVar

from twisted.internet.defer import Deferred
from twisted.web.resource import IResource
from twisted.web.server import NOT_DONE_YET

from pushd.api.history import ChannelHistory
from pushd.api.names import named_channel
from pushd.api.presence import ChannelPresence
from pushd.api.publish_one import publish_one
from pushd.bus import (
    ChannelState,
    Deleted,
    Entry,
    Publisher,
    Work,
    check_name,
    owner_of,
)
from pushd.errors import BadRequest, NotFound
from pushd.server import (
    DEFAULT_LIMIT,
    MAX_LIMIT,
    Branch,
    Request,
    RequestGuard,
    answer_later,
    answer_nothing,
    answer_problem,
    decoded,
    json_answer,
    parameter,
    whole_number,
)
from pushd.sessions import Admission

__all__ = ["ChannelList"]

_STATE_BYTES = 1000
"""Approximate size of a long item of a list, in bytes."""

_READS = frozenset({b"GET", b"HEAD"})


def _state(state: ChannelState) -> dict[str, object]:
    """Return the state of a channel as a JSON object."""
    return {
        "channel": state.channel,
        "subscribers": state.subscribers,
        "retained": state.retained,
        "oldest": _place(state.oldest),
        "latest": _place(state.latest),
        "position": state.position,
    }


def _place(entry: Entry | None) -> dict[str, object] | None:
    return None if entry is None else {"id": entry.event.id, "offset": entry.offset}


_NO_PATH = (
    "a name with an empty segment, . or .. in the path, which proxies rewrite; expected it in the query, as "
    "/publish?channel=NAME"
)


def _is_post(request: Request) -> bool:
    """Return whether a request is a POST, or asks whether a page may send one."""
    if request.method != b"OPTIONS":
        return bool(request.method == b"POST")
    return request.requestHeaders.getRawHeaders(b"access-control-request-method") == [b"POST"]


class ChannelList(Branch):
    """``/channels``: all channels, in pages, or one with ``?channel=``; its children are channels by name."""

    parameters: ClassVar[Mapping[str, frozenset[str]]] = {
        "GET": frozenset({"prefix", "after", "limit", "channel"}),
        "DELETE": frozenset({"channel"}),
    }
    reads = _READS

    def __init__(
        self, guard: RequestGuard, admission: Admission, publisher: Publisher, *, max_event_bytes: int
    ) -> None:
        """Serve the channels, and publish events of up to `max_event_bytes` with `publisher`.

        `admission` authorizes reading the history as it authorizes subscribing.
        """
        super().__init__(guard)
        self._admission = admission
        self._bus = admission.sessions.bus
        self._publisher = publisher
        self._max_event_bytes = max_event_bytes

    def take_more(self, segment: bytes, request: Request) -> bytes:
        """Override: for POST, the rest of the path is the name, with literal slashes.

        What is below a channel, its events and its presence, stays that, and has no POST.
        """
        rest = request.postpath or []
        if (
            not _is_post(request)
            or rest in ([b"events"], [b"presence"])
            or (len(rest) == 2 and rest[0] == b"events")
        ):
            return segment
        segments, request.postpath = [segment, *rest], []
        if not {b"", b".", b".."}.isdisjoint(segments):
            raise BadRequest(_NO_PATH, "channel")
        return b"/".join(segments)

    def child(self, segment: bytes) -> IResource:
        """Return the resource of one channel."""
        name = check_name(decoded(segment, "channel"))
        return _Channel(self.guard, self._admission, self._publisher, name, self._max_event_bytes)

    def ask(self, request: Request) -> Deferred[None] | None:
        """Override: authorize the list or one channel (grants, webhook), and read the list."""
        if request.method not in _READS:
            return None
        if b"channel" in request.args:
            return _find_state(request, self._admission, named_channel(request))
        self._admission.look_at_all(request.caller)
        limit = whole_number(request, "limit", DEFAULT_LIMIT, MAX_LIMIT)
        prefix, after = parameter(request, "prefix") or "", parameter(request, "after") or ""

        def read() -> Work[None]:
            grants = request.caller.grants
            request.found = yield from self._bus.listing(grants, prefix=prefix, after=after, limit=limit + 1)

        return self._admission.do(read, None, lambda: request.is_gone, owner_of(request.caller))

    def render_GET(self, request: Request) -> bytes:
        """Return ``{"channels":[...],"next":..}``; ``next`` is the ``after`` of the following page, or null."""
        if b"channel" in request.args:
            if len(request.args) > 1 + (b"access_token" in request.args):
                raise BadRequest(
                    "channel selects one channel; expected only channel, or prefix, after and limit", "channel"
                )
            return json_answer(request, _state(request.found))
        limit = whole_number(request, "limit", DEFAULT_LIMIT, MAX_LIMIT)
        states: list[ChannelState] = request.found
        following = states[limit - 1].channel if len(states) > limit else None
        found = [_state(one) for one in states[:limit]]
        return json_answer(
            request, {"channels": found, "next": following}, longest=bytes(_STATE_BYTES * len(found))
        )

    def render_DELETE(self, request: Request) -> int:
        """Delete the history of one channel and close its subscribers."""
        return _delete(request, self._publisher, named_channel(request))


def _find_state(request: Request, admission: Admission, name: str) -> Deferred[None] | None:
    """Authorize reading the state of a channel (grants, webhook), and read it into ``request.found``."""

    def read() -> Work[None]:
        request.found = yield from admission.sessions.bus.showing(name, request.caller.grants)

    waiting = admission.look(request.caller, name)
    return admission.do(read, waiting, lambda: request.is_gone, owner_of(request.caller))


def _delete(request: Request, publisher: Publisher, name: str) -> int:
    publisher.delete(name, request.caller, partial(_answer_deleted, request))
    return NOT_DONE_YET


class _Channel(Branch):
    """``/channels/{channel}``"""

    parameters: ClassVar[Mapping[str, frozenset[str]]] = {"POST": frozenset({"event", "id"})}
    reads = _READS

    def __init__(
        self, guard: RequestGuard, admission: Admission, publisher: Publisher, name: str, max_event_bytes: int
    ) -> None:
        super().__init__(guard)
        self._admission = admission
        self._bus = admission.sessions.bus
        self._publisher = publisher
        self._name = name
        self._max_event_bytes = max_event_bytes

    def child(self, segment: bytes) -> IResource:
        """Return the resource of the history or of the presence."""
        if segment == b"events":
            return ChannelHistory(self.guard, self._admission, self._name)
        if segment == b"presence":
            return ChannelPresence(self.guard, self._admission, self._name)
        raise NotFound(
            "a channel has only events and presence below it; write / in its name as %2F, or put the name "
            "into the query, as /history?channel=NAME"
        )

    def ask(self, request: Request) -> Deferred[None] | None:
        """Override: authorize reading the channel (grants, webhook), and read its state."""
        return _find_state(request, self._admission, self._name) if request.method in _READS else None

    def render_GET(self, request: Request) -> bytes:
        """Return the state of the channel."""
        return json_answer(request, _state(request.found))

    def body_limit(self, request: Request) -> int:
        """Override: limit an event to its maximum size; check the grant to publish first."""
        if request.method != b"POST":
            return super().body_limit(request)
        request.caller.grants.check_publish(self._name)
        request.body_field = "data"
        return self._max_event_bytes

    def render_POST(self, request: Request) -> int:
        """Publish the body as one event."""
        return publish_one(request, self._publisher, (self._name,), self._max_event_bytes)

    def render_DELETE(self, request: Request) -> int:
        """Delete the history of the channel and close its subscribers."""
        return _delete(request, self._publisher, self._name)


def _answer_deleted(request: Request, outcome: Deleted) -> None:
    if request.is_gone:
        return
    if outcome is None:
        answer_nothing(request)
    else:
        answer_later(request, answer_problem(request, outcome))
