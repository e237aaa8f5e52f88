"""The history of a channel in pages, and single events."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from twisted.internet.defer import Deferred
from twisted.web.resource import IResource

from pushd.api.names import named_channel
from pushd.bus import (
    Entry,
    HistoryPage,
    Pattern,
    Work,
    owner_of,
)
from pushd.errors import BadRequest
from pushd.server import (
    DEFAULT_LIMIT,
    MAX_LIMIT,
    Branch,
    Endpoint,
    Request,
    RequestGuard,
    answer,
    decoded,
    event_fields,
    parameter,
    since_of,
    whole_number,
)
from pushd.sessions import Admission
from pushd.wire import page_json

__all__ = ["ChannelHistory", "History", "OneEvent"]

_READS = frozenset({b"GET", b"HEAD"})


class ChannelHistory(Branch):
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


class History(ChannelHistory):
    """``/history``: the history of a channel named in the query."""

    isLeaf = True
    parameters: ClassVar[Mapping[str, frozenset[str]]] = {"GET": frozenset({"channel", "since", "limit"})}

    def __init__(self, guard: RequestGuard, admission: Admission) -> None:
        """Serve the history of any channel."""
        super().__init__(guard, admission, "")

    def named(self, request: Request) -> str:
        """Override: return the channel of the query."""
        return named_channel(request)


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
        return named_channel(request), event_id
