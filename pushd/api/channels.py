"""Channels over HTTP: the list, one channel, its history, and a single event."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import ClassVar

from twisted.internet.defer import Deferred
from twisted.web.resource import IResource
from twisted.web.server import NOT_DONE_YET

from pushd.api.publish import publish_one
from pushd.attendance import shown
from pushd.bus import ChannelState
from pushd.caller import Caller
from pushd.channels import Pattern, check_name
from pushd.door import Door
from pushd.errors import NotFound
from pushd.event import Entry
from pushd.frames import page_json
from pushd.gate import Gate
from pushd.publisher import Deleted, Publisher
from pushd.request import Request
from pushd.resource import (
    DEFAULT_LIMIT,
    MAX_LIMIT,
    Branch,
    Endpoint,
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
from pushd.sessions import number_of

__all__ = ["ChannelList"]

_READS = frozenset({b"GET", b"HEAD"})


def _state(state: ChannelState) -> dict[str, object]:
    """Answer the state of a channel, as JSON shows it."""
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


class ChannelList(Branch):
    """``/channels``: every channel, in pages; below it, each by its name."""

    parameters: ClassVar[Mapping[str, frozenset[str]]] = {"GET": frozenset({"prefix", "after", "limit"})}
    reads = _READS

    def __init__(self, gate: Gate, door: Door, publisher: Publisher, *, max_event_bytes: int) -> None:
        """Serve the channels, and have `publisher` take events of up to `max_event_bytes` for them.

        Who may read what is kept is asked at the `door`, as who may subscribe is.
        """
        super().__init__(gate)
        self._door = door
        self._bus = door.sessions.bus
        self._publisher = publisher
        self._max_event_bytes = max_event_bytes

    def child(self, segment: bytes) -> IResource:
        """Answer one channel."""
        name = check_name(decoded(segment, "channel"))
        return _Channel(self.gate, self._door, self._publisher, name, self._max_event_bytes)

    def ask(self, request: Request) -> Deferred[None] | None:
        """Override: the list shows every channel."""
        if request.method in _READS:
            self._door.look_at_all(request.caller)
        return None

    def render_GET(self, request: Request) -> bytes:
        """Answer ``{"channels":[...],"next":..}``; ``next`` is the ``after`` of the following page, or null."""
        limit = whole_number(request, "limit", DEFAULT_LIMIT, MAX_LIMIT)
        prefix, after = parameter(request, "prefix") or "", parameter(request, "after") or ""
        states = self._bus.states(request.caller.grants, prefix=prefix, after=after, limit=limit + 1)
        following = states[limit - 1].channel if len(states) > limit else None
        return json_answer(request, {"channels": [_state(one) for one in states[:limit]], "next": following})


class _Channel(Branch):
    """``/channels/{channel}``"""

    parameters: ClassVar[Mapping[str, frozenset[str]]] = {"POST": frozenset({"event", "id"})}
    reads = _READS

    def __init__(self, gate: Gate, door: Door, publisher: Publisher, name: str, max_event_bytes: int) -> None:
        super().__init__(gate)
        self._door = door
        self._bus = door.sessions.bus
        self._publisher = publisher
        self._name = name
        self._max_event_bytes = max_event_bytes

    def child(self, segment: bytes) -> IResource:
        """Answer the history, or who is there."""
        if segment == b"events":
            return _History(self.gate, self._door, self._name)
        if segment == b"presence":
            return _Presence(self.gate, self._door, self._name)
        raise NotFound("a channel has nothing but events and presence below it; write / in its name as %2F")

    def ask(self, request: Request) -> Deferred[None] | None:
        """Override: the application may refuse to show it, too."""
        return self._door.look(request.caller, self._name) if request.method in _READS else None

    def render_GET(self, request: Request) -> bytes:
        """Answer the state of the channel."""
        return json_answer(request, _state(self._bus.state(self._name, request.caller.grants)))

    def body_limit(self, request: Request) -> int:
        """Override: an event is as large as it may be."""
        if request.method != b"POST":
            return super().body_limit(request)
        request.caller.grants.check_publish(self._name)
        return self._max_event_bytes

    def render_POST(self, request: Request) -> int:
        """Publish."""
        return publish_one(request, self._publisher, self._name, self._max_event_bytes)

    def render_DELETE(self, request: Request) -> int:
        """Forget the history and close the subscribers."""
        self._publisher.delete(self._name, request.caller, partial(_answer_deleted, request))
        return NOT_DONE_YET


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

    def __init__(self, gate: Gate, door: Door, name: str) -> None:
        super().__init__(gate)
        self._door = door
        self._bus = door.sessions.bus
        self._name = name

    def child(self, segment: bytes) -> IResource:
        """Answer one event."""
        return _Event(self.gate, self._door, self._name, decoded(segment, "id"))

    def ask(self, request: Request) -> Deferred[None] | None:
        """Override: the application may refuse who reads as it may who subscribes."""
        if request.method not in _READS:
            return None
        since = since_of(request, "earliest")
        return self._door.read(request.caller, [Pattern.parse(self._name)], since)

    def render_GET(self, request: Request) -> bytes:
        """Answer a page of the history."""
        limit = whole_number(request, "limit", DEFAULT_LIMIT, MAX_LIMIT)
        pattern = Pattern.parse(self._name)
        page = self._bus.read([pattern], since_of(request, "earliest"), limit, request.caller.grants)
        request.setHeader(b"cache-control", b"no-store")
        return answer(request, page_json(page))


class _Presence(Endpoint):
    """``/channels/{channel}/presence``: who gets its events."""

    parameters: ClassVar[Mapping[str, frozenset[str]]] = {"GET": frozenset({"after", "limit"})}
    reads = _READS

    def __init__(self, gate: Gate, door: Door, name: str) -> None:
        super().__init__(gate)
        self._door = door
        self._bus = door.sessions.bus
        self._name = name

    def ask(self, request: Request) -> Deferred[None] | None:
        """Override: the same, once it is known that the presence is shown at all."""
        if request.method not in _READS:
            return None
        self._bus.check_present(self._name, request.caller.grants)
        return self._door.look(request.caller, self._name)

    def render_GET(self, request: Request) -> bytes:
        """Answer ``{"channel","count","users","connections":[...],"next":..}``, in pages."""
        limit, after = whole_number(request, "limit", DEFAULT_LIMIT, MAX_LIMIT), parameter(request, "after")
        callers = self._bus.present(self._name, request.caller.grants)
        users = {caller.user for caller in callers if caller.user is not None}
        first = 0 if after is None else number_of(after)
        rest = [caller for caller in callers if caller.number > first]
        page, following = rest[:limit], rest[limit - 1].id if len(rest) > limit else None
        request.setHeader(b"cache-control", b"no-store")
        members = {"channel": self._name, "count": len(callers), "users": len(users)}
        return json_answer(
            request, {**members, "connections": [_present(caller) for caller in page], "next": following}
        )


def _present(caller: Caller) -> dict[str, object]:
    return {**shown(caller), "since": caller.since}


class _Event(Endpoint):
    """``/channels/{channel}/events/{id}``: the data as it was published."""

    parameters: ClassVar[Mapping[str, frozenset[str]]] = {}
    reads = _READS

    def __init__(self, gate: Gate, door: Door, name: str, event_id: str) -> None:
        super().__init__(gate)
        self._door = door
        self._bus = door.sessions.bus
        self._name = name
        self._id = event_id

    def ask(self, request: Request) -> Deferred[None] | None:
        """Override: the same."""
        if request.method not in _READS:
            return None
        return self._door.read(request.caller, [Pattern.parse(self._name)], self._id)

    def render_GET(self, request: Request) -> bytes:
        """Answer the data."""
        entry = self._bus.event(self._name, self._id, request.caller.grants)
        for name, value in event_fields(entry.event):
            request.setHeader(name, value)
        return entry.event.data
