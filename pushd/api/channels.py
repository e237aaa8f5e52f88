"""Channels over HTTP: the list, one channel, its history, and a single event."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import ClassVar

from twisted.internet.defer import Deferred
from twisted.web.resource import IResource
from twisted.web.server import NOT_DONE_YET

from pushd.api.publish_one import publish_one
from pushd.bus import (
    ChannelState,
    ClientInfo,
    Deleted,
    Entry,
    HistoryPage,
    Pattern,
    Publisher,
    Work,
    check_name,
    number_of,
    owner_of,
    shown,
)
from pushd.errors import BadRequest, NotFound
from pushd.server import (
    DEFAULT_LIMIT,
    MAX_LIMIT,
    Branch,
    Endpoint,
    Request,
    RequestGuard,
    answer,
    answer_later,
    answer_nothing,
    answer_problem,
    decoded,
    event_fields,
    json_answer,
    parameter,
    since_of,
    whole_number,
)
from pushd.sessions import Admission
from pushd.wire import page_json

__all__ = ["ChannelList", "History", "OneEvent", "PresenceEndpoint"]

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


def _in_query(request: Request) -> str:
    """Return the channel of the query; raise `BadRequest` if it is missing."""
    name = parameter(request, "channel")
    if name is None:
        raise BadRequest("channel is missing; expected ?channel=NAME", "channel")
    return check_name(name)


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

    def child(self, segment: bytes) -> IResource:
        """Return the resource of one channel."""
        name = check_name(decoded(segment, "channel"))
        return _Channel(self.guard, self._admission, self._publisher, name, self._max_event_bytes)

    def ask(self, request: Request) -> Deferred[None] | None:
        """Override: authorize the list or one channel (grants, webhook), and read the list."""
        if request.method not in _READS:
            return None
        if b"channel" in request.args:
            return _find_state(request, self._admission, _in_query(request))
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
        return _delete(request, self._publisher, _in_query(request))


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
            return _History(self.guard, self._admission, self._name)
        if segment == b"presence":
            return _Presence(self.guard, self._admission, self._name)
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


class _History(Branch):
    """``/channels/{channel}/events``"""

    parameters: ClassVar[Mapping[str, frozenset[str]]] = {"GET": frozenset({"since", "limit"})}
    reads = _READS

    def __init__(self, guard: RequestGuard, admission: Admission, name: str) -> None:
        super().__init__(guard)
        self._admission = admission
        self._bus = admission.sessions.bus
        self._name = name

    def named(self, request: Request) -> str:
        """Return the name of the channel."""
        return self._name

    def child(self, segment: bytes) -> IResource:
        """Return the resource of one event."""
        return _Event(self.guard, self._admission, self._name, decoded(segment, "id"))

    def ask(self, request: Request) -> Deferred[None] | None:
        """Override: authorize reading as subscribing (grants, webhook), and read the page."""
        if request.method not in _READS:
            return None
        limit = whole_number(request, "limit", DEFAULT_LIMIT, MAX_LIMIT)
        since, pattern = since_of(request, "earliest"), Pattern.parse(self.named(request))

        def read() -> Work[None]:
            request.found = yield from self._bus.reading([pattern], since, limit, request.caller.grants)

        waiting = self._admission.read(request.caller, [pattern], since)
        return self._admission.do(read, waiting, lambda: request.is_gone, owner_of(request.caller))

    def render_GET(self, request: Request) -> bytes:
        """Return a page of the history."""
        page: HistoryPage = request.found
        request.setHeader(b"cache-control", b"no-store")
        return answer(request, page_json(page))


class History(_History):
    """``/history``: the history of a channel named in the query."""

    isLeaf = True
    parameters: ClassVar[Mapping[str, frozenset[str]]] = {"GET": frozenset({"channel", "since", "limit"})}

    def __init__(self, guard: RequestGuard, admission: Admission) -> None:
        """Serve the history of any channel."""
        super().__init__(guard, admission, "")

    def named(self, request: Request) -> str:
        """Override: return the channel of the query."""
        return _in_query(request)


class _Presence(Endpoint):
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


class PresenceEndpoint(_Presence):
    """``/presence``: the presence of a channel named in the query."""

    parameters: ClassVar[Mapping[str, frozenset[str]]] = {"GET": frozenset({"channel", "after", "limit"})}

    def __init__(self, guard: RequestGuard, admission: Admission) -> None:
        """Serve the presence of any channel."""
        super().__init__(guard, admission, "")

    def named(self, request: Request) -> str:
        """Override: return the channel of the query."""
        return _in_query(request)


def _present(caller: ClientInfo) -> dict[str, object]:
    return {**shown(caller), "since": caller.since}


class _Event(Endpoint):
    """``/channels/{channel}/events/{id}``: the data as it was published."""

    parameters: ClassVar[Mapping[str, frozenset[str]]] = {}
    reads = _READS

    def __init__(self, guard: RequestGuard, admission: Admission, name: str, event_id: str) -> None:
        super().__init__(guard)
        self._admission = admission
        self._bus = admission.sessions.bus
        self._name = name
        self._id = event_id

    def named(self, request: Request) -> tuple[str, str]:
        """Return the name of the channel and the id of the event."""
        return self._name, self._id

    def ask(self, request: Request) -> Deferred[None] | None:
        """Override: authorize reading as subscribing (grants, webhook), and read the event."""
        if request.method not in _READS:
            return None
        name, event_id = self.named(request)

        def read() -> Work[None]:
            request.found = yield from self._bus.finding(name, event_id, request.caller.grants)

        waiting = self._admission.read(request.caller, [Pattern.parse(name)], event_id)
        return self._admission.do(read, waiting, lambda: request.is_gone, owner_of(request.caller))

    def render_GET(self, request: Request) -> bytes:
        """Return the data of the event."""
        entry: Entry = request.found
        for name, value in event_fields(entry.event):
            request.setHeader(name, value)
        return entry.event.data


class OneEvent(_Event):
    """``/event``: an event whose channel and id are in the query."""

    parameters: ClassVar[Mapping[str, frozenset[str]]] = {"GET": frozenset({"channel", "id"})}

    def __init__(self, guard: RequestGuard, admission: Admission) -> None:
        """Serve any event."""
        super().__init__(guard, admission, "", "")

    def named(self, request: Request) -> tuple[str, str]:
        """Override: return the channel and the event id of the query."""
        event_id = parameter(request, "id")
        if event_id is None:
            raise BadRequest("id is missing; expected ?channel=NAME&id=ID", "id")
        return _in_query(request), event_id
