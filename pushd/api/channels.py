"""Channels over HTTP: the list, one channel, its history, and a single event."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import ClassVar

from twisted.web.resource import IResource
from twisted.web.server import NOT_DONE_YET

from pushd.api.publish import publish_one
from pushd.bus import Bus, ChannelState
from pushd.channels import Pattern, check_name
from pushd.errors import NotFound, Refused
from pushd.event import Entry
from pushd.frames import page_json
from pushd.gate import Gate
from pushd.publisher import Deleted, Publisher
from pushd.request import Request
from pushd.resource import (
    DEFAULT_LIMIT,
    MAX_LIMIT,
    Endpoint,
    Problem,
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

__all__ = ["ChannelList"]


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


class _Branch(Endpoint):
    """An endpoint with others below it."""

    isLeaf = False

    def child(self, segment: bytes) -> IResource:
        """Answer what is served below, at `segment`; may raise `Refused`."""
        raise NotImplementedError

    def getChild(self, path: bytes, request: Request) -> IResource:
        """Override: go one segment down."""
        try:
            return self.child(path)
        except Refused as refused:
            return Problem(self.gate, refused)


class ChannelList(_Branch):
    """``/channels``: every channel, in pages; below it, each by its name."""

    parameters: ClassVar[Mapping[str, frozenset[str]]] = {"GET": frozenset({"prefix", "after", "limit"})}

    def __init__(self, gate: Gate, bus: Bus, publisher: Publisher, *, max_event_bytes: int) -> None:
        """Serve the channels of `bus`, and have `publisher` take events of up to `max_event_bytes` for them."""
        super().__init__(gate)
        self._bus = bus
        self._publisher = publisher
        self._max_event_bytes = max_event_bytes

    def child(self, segment: bytes) -> IResource:
        """Answer one channel."""
        name = check_name(decoded(segment, "channel"))
        return _Channel(self.gate, self._bus, self._publisher, name, self._max_event_bytes)

    def render_GET(self, request: Request) -> bytes:
        """Answer ``{"channels":[...],"next":..}``; ``next`` is the ``after`` of the following page, or null."""
        limit = whole_number(request, "limit", DEFAULT_LIMIT, MAX_LIMIT)
        prefix, after = parameter(request, "prefix") or "", parameter(request, "after") or ""
        states = self._bus.states(request.grants, prefix=prefix, after=after, limit=limit + 1)
        following = states[limit - 1].channel if len(states) > limit else None
        return json_answer(request, {"channels": [_state(one) for one in states[:limit]], "next": following})


class _Channel(_Branch):
    """``/channels/{channel}``"""

    parameters: ClassVar[Mapping[str, frozenset[str]]] = {"POST": frozenset({"event", "id"})}

    def __init__(self, gate: Gate, bus: Bus, publisher: Publisher, name: str, max_event_bytes: int) -> None:
        super().__init__(gate)
        self._bus = bus
        self._publisher = publisher
        self._name = name
        self._max_event_bytes = max_event_bytes

    def child(self, segment: bytes) -> IResource:
        """Answer the history."""
        if segment != b"events":
            raise NotFound("a channel has nothing but events below it; write / in its name as %2F")
        return _History(self.gate, self._bus, self._name)

    def render_GET(self, request: Request) -> bytes:
        """Answer the state of the channel."""
        return json_answer(request, _state(self._bus.state(self._name, request.grants)))

    def render_POST(self, request: Request) -> int:
        """Publish."""
        return publish_one(request, self._publisher, self._name, self._max_event_bytes)

    def render_DELETE(self, request: Request) -> int:
        """Forget the history and close the subscribers."""
        self._publisher.delete(self._name, request.grants, partial(_answer_deleted, request))
        return NOT_DONE_YET


def _answer_deleted(request: Request, outcome: Deleted) -> None:
    if request.is_gone:
        return
    if outcome is None:
        answer_nothing(request)
    else:
        answer_later(request, answer_problem(request, outcome))


class _History(_Branch):
    """``/channels/{channel}/events``"""

    parameters: ClassVar[Mapping[str, frozenset[str]]] = {"GET": frozenset({"since", "limit"})}

    def __init__(self, gate: Gate, bus: Bus, name: str) -> None:
        super().__init__(gate)
        self._bus = bus
        self._name = name

    def child(self, segment: bytes) -> IResource:
        """Answer one event."""
        return _Event(self.gate, self._bus, self._name, decoded(segment, "id"))

    def render_GET(self, request: Request) -> bytes:
        """Answer a page of the history."""
        limit = whole_number(request, "limit", DEFAULT_LIMIT, MAX_LIMIT)
        pattern = Pattern.parse(self._name)
        page = self._bus.read([pattern], since_of(request, "earliest"), limit, request.grants)
        request.setHeader(b"cache-control", b"no-store")
        return answer(request, page_json(page))


class _Event(Endpoint):
    """``/channels/{channel}/events/{id}``: the data as it was published."""

    parameters: ClassVar[Mapping[str, frozenset[str]]] = {}

    def __init__(self, gate: Gate, bus: Bus, name: str, event_id: str) -> None:
        super().__init__(gate)
        self._bus = bus
        self._name = name
        self._id = event_id

    def render_GET(self, request: Request) -> bytes:
        """Answer the data."""
        entry = self._bus.event(self._name, self._id, request.grants)
        for name, value in event_fields(entry.event):
            request.setHeader(name, value)
        return entry.event.data
