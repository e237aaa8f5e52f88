"""Long polling: ``GET /poll?channel=...&since=...``, the events after a position, or the next event."""

from __future__ import annotations

from functools import partial
from typing import ClassVar

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure
from twisted.web.server import NOT_DONE_YET

from pushd.bus import CloseCause, CloseReason, Entry, HistoryPage, Pattern, Subscription, Transport, Work, owner_of
from pushd.errors import Forbidden, NotFound, Refused, Unavailable
from pushd.server import (
    DEFAULT_LIMIT,
    MAX_LIMIT,
    Request,
    RequestGuard,
    answer,
    answer_problem,
    outlast,
    whole_number,
)
from pushd.sessions import Admission, SessionRegistry
from pushd.transports.endpoint import SubscribeEndpoint
from pushd.wire import page_json

__all__ = ["LongPoll"]

_ANSWER_COST = 20
"""Cost of a response, in sends."""


class LongPoll(SubscribeEndpoint):
    """One response per request: ``{"events":[...],"position":..,"recovered":..}``.

    If no event follows the position, the response waits for the next event; after the timeout, it is ``204``.
    In both cases, the header ``Event-Position`` is the position for the next request.
    """

    transport = Transport("poll", is_polling=True)
    reads = frozenset({b"GET", b"HEAD"})
    parameters: ClassVar = {"GET": frozenset({"channel", "since", "limit"})}

    def __init__(
        self,
        guard: RequestGuard,
        admission: Admission,
        *,
        timeout_s: float,
    ) -> None:
        """Set the longest wait of a request to `timeout_s`."""
        super().__init__(guard, admission)
        self._sessions = admission.sessions
        self._timeout_s = timeout_s

    def wanted(self, request: Request) -> tuple[list[Pattern], str]:
        """Override: check the limit, too."""
        _limit(request)
        return super().wanted(request)

    def ask(self, request: Request) -> Deferred[None] | None:
        """Override: read the history, too, which may take several turns of the reactor."""
        if request.method == b"OPTIONS":
            return None
        request.wanted = patterns, since = self.wanted(request)
        limit, bus, caller = _limit(request), self._sessions.bus, request.caller

        def read() -> Work[None]:
            work = bus.reading(patterns, since, limit, caller.grants)
            request.found = yield from self.guard.reading(caller, work)

        if request.method == b"HEAD":
            waiting = self.admission.read(caller, patterns, since, lambda: request.is_gone)
            return self.admission.do(read, waiting, lambda: request.is_gone, owner_of(caller))
        return self.admission.admit(caller, self.transport, patterns, since, lambda: request.is_gone, read)

    def render_GET(self, request: Request) -> bytes | int:
        """Return the events found, or wait for the next one."""
        patterns, limit = request.wanted[0], _limit(request)
        page: HistoryPage = request.found
        if page.entries or not page.recovered or request.method == b"HEAD":
            return _answer(request, page)
        waiting = _Waiting(request, limit, self._sessions)
        waiting.begin(patterns, self._timeout_s)
        return NOT_DONE_YET


def _limit(request: Request) -> int:
    return whole_number(request, "limit", DEFAULT_LIMIT, MAX_LIMIT)


def _answer(request: Request, page: HistoryPage) -> bytes:
    request.setHeader(b"cache-control", b"no-store")
    request.setHeader(b"event-position", page.position.encode())
    return answer(request, page_json(page))


class _Waiting:
    """A request that waits for the next event: a `pushd.bus.Subscriber`."""

    __slots__ = (
        "_bus",
        "_entries",
        "_is_waiting",
        "_limit",
        "_request",
        "_sessions",
        "_timeout",
        "caller",
        "end_reason",
        "subscription",
    )

    def __init__(
        self,
        request: Request,
        limit: int,
        sessions: SessionRegistry,
    ) -> None:
        self._request = request
        self._bus = sessions.bus
        self._limit = limit
        self._sessions = sessions
        self._entries: list[Entry] = []
        self._is_waiting = False
        self.caller = request.caller
        """The client and its grants."""
        self.end_reason: CloseReason | None = None
        """Why pushd ended the wait; None if the client did."""
        self.subscription = Subscription(self._bus, self, request.caller)

    def begin(self, patterns: list[Pattern], timeout_s: float) -> None:
        try:
            self.subscription.add(patterns, "latest", checked=partial(self._sessions.register, self))
        except Refused:
            self.subscription.close()
            self._sessions.remove(self)
            raise
        self._is_waiting = True
        self._timeout = self._sessions.wheel.call_within(timeout_s, self._time_out)
        self._request.notifyFinish().addErrback(self._gone)
        outlast(self._request)

    def deliver(self, entry: Entry) -> None:
        """Called by the bus with an event; the response contains all events of this turn."""
        if not self._entries:
            self._sessions.flush_later(self)
        if len(self._entries) <= self._limit:
            self._entries.append(entry)

    def flush(self) -> int:
        """Send the response with the events received; return the cost, in sends."""
        self.subscription.take_pending()  # the position of the page follows every published event
        if not self._end("it was answered"):
            return 1
        body = _answer(self._request, self._bus.log.page(self._entries, self._limit))
        self._sessions.counters.written_bytes += len(body)
        self._request.write(body)
        self._request.finish()
        return _ANSWER_COST

    def _time_out(self) -> None:
        self.subscription.take_pending()
        if not self._entries and self._end("it was answered"):
            request = self._request
            request.setResponseCode(204)
            request.setHeader(b"cache-control", b"no-store")
            request.setHeader(b"event-position", self._bus.log.position.encode())
            request.finish()

    def close(self, reason: CloseReason) -> None:
        """Called when the subscription ends: send the events received, or the problem."""
        self.subscription.take_pending()
        self.end_reason = reason
        if self._entries:
            self.flush()
        elif self._end():
            self._request.write(answer_problem(self._request, _refused(reason)))
            self._request.finish()

    sent_bytes = 0  # the request counts them

    @property
    def outbox_bytes(self) -> int:
        """Return the size of the data that waits to be sent, in bytes."""
        return sum(len(entry.event.data) for entry in self._entries)

    def _gone(self, reason: Failure) -> None:
        self._end()

    def _end(self, why: str = "the client has gone") -> bool:
        """Stop waiting; return False if that was done before."""
        if not self._is_waiting:
            return False
        self._is_waiting = False
        self.subscription.close()
        self._timeout.cancel()
        self._sessions.remove(self, why)
        return True


def _refused(reason: CloseReason) -> Refused:
    if reason.cause is CloseCause.DELETED:
        return NotFound(reason.text)
    if reason.cause is CloseCause.REFUSED:
        return Forbidden(reason.text)
    code = "shutting_down" if reason.cause is CloseCause.STOPPING else None
    return Unavailable(reason.text, retry_s=reason.retry_s, code=code)
