"""The request: twisted.web's, with pushd's headers and its way to report a fault."""

from __future__ import annotations

from collections.abc import Callable
from io import BytesIO
from time import time
from typing import Any, cast
from urllib.parse import unquote_to_bytes

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web import server
from twisted.web.http import Request as AnyRequest
from twisted.web.http import parse_qs
from twisted.web.http_headers import Headers
from twisted.web.resource import IResource
from twisted.web.server import NOT_DONE_YET

from pushd.bus import ClientInfo, Counters, Pattern, limit_key, memory, owner_of
from pushd.errors import OutOfMemory, Refused, TooLarge
from pushd.server.eventsource_retry import EventSourceRetry
from pushd.server.incomplete_bodies import IncompleteBody
from pushd.server.interfaces import AtSite, Connection, Expecting, Streamed, Visit
from pushd.server.problems import http_date
from pushd.wire import json_line

__all__ = ["LITTLE_BYTES", "Connection", "Request", "Streamed", "Visit"]

_FAULT: dict[str, object] = {
    "title": "Internal Server Error",
    "status": 500,
    "detail": "a fault in pushd; see its log",
}
"""What the client learns of a fault."""

_CLIENT_GONE = 499
"""What stands in the log for the status of a request whose client has gone before there was one, as with nginx."""

_NO_ARGUMENTS: dict[bytes, list[bytes]] = {}
_NO_SEGMENTS: list[bytes] = []
LITTLE_BYTES = 16 * 1024
"""The longest body of a request that is not asked for one."""


class Request(server.Request):
    """One request, over whatever version of HTTP."""

    log = Logger()

    caller: ClientInfo
    """Who sends it, once the gate has let it in."""

    wanted: tuple[list[Pattern], str]
    found: Any
    """What a subscriber wants: channels and patterns, and the position to begin at."""

    visit: Visit | None = None
    """What logs it when it has ended, if requests are logged."""

    true_status: int | None = None
    """The status of a refusal that is said in a stream, for figures and the log; None: the one that is sent."""

    streamed: Streamed | None = None
    """What sends the rest of its answer, if something does."""

    is_admitted = False
    """Whether it was let in by its head. Whether it still may be is found out again when its body is there."""

    body_size = 0
    """How many bytes of its body have come."""

    body_field: str | None = None
    """Which field of an event its body is, if it is one."""

    _request_id: str | None = None
    _resource: IResource | None = None
    _most_bytes, _is_refused = 0, False
    _held: IncompleteBody | None = None
    _is_undecided = _is_complete = is_lasting = False  # for the last, see `pushd.sessions.admission.outlast`

    # What comes

    def gotLength(self, length: int | None) -> None:
        """Override: a body begins, which is `length` bytes long if that is known."""
        self.content = BytesIO()

    def take_body(self, data: bytes) -> None:
        """Take a short body, which has come with the head."""
        self.content = BytesIO(data)
        self.body_size = len(data)

    def expect(
        self,
        command: bytes,
        path: bytes,
        version: bytes,
        length: int | None,
        decided: Callable[[Refused | None], None],
    ) -> None:
        """Decide from the head whether the body is read, whose `length` may not be known.

        Call `decided` with None, or with why it is not, now or later. What comes of the body is counted
        from then on.
        """
        self._read_head(command, path, version)
        self._most_bytes = self._at_site.serving.max_body_bytes
        try:
            waiting = self._expect()
            self._hold()
            if waiting is None:
                self._check_length(length)
        except Refused as refused:
            decided(refused)
            return
        except Exception:  # noqa: BLE001  what a resource should not have raised
            self._is_refused = True
            self.processingFailed(Failure())
            return
        if waiting is None:
            decided(None)
            return
        self._is_undecided = True
        waiting.addCallback(lambda _: None if self.is_gone else self._check_length(length))
        waiting.addBoth(self._decided, decided)

    def _decided(self, result: object, decided: Callable[[Refused | None], None]) -> None:
        """Go on with what waited for the decision: the body, or the whole request, if it is complete by now."""
        self._is_undecided = False
        if self._is_complete and not self.is_gone:
            self._go_on()
        elif isinstance(result, Failure):
            self._not_expected(result, decided)
        else:
            decided(None)

    def _not_expected(self, failure: Failure, decided: Callable[[Refused | None], None]) -> None:
        refused = failure.value
        if isinstance(refused, Refused):
            decided(refused)
        elif not self.is_gone:
            self._is_refused = True
            self.processingFailed(failure)

    def _expect(self) -> Deferred[None] | None:
        if self.path == b"*":
            self.expects(LITTLE_BYTES)
            return None
        resource = self._resource = self._find_resource()
        if not hasattr(resource, "expect"):
            return None
        return cast(Expecting, resource).expect(self)

    def expects(self, most_bytes: int) -> None:
        """Read a body of up to `most_bytes`: the client is let in by the head."""
        self.is_admitted = True
        self._most_bytes = min(self._most_bytes, most_bytes)

    def _check_length(self, length: int | None) -> None:
        if max(length or 0, self.body_size) > self._most_bytes:
            raise TooLarge(f"the body is larger than {self._most_bytes} bytes, see [limits]", self.body_field)

    def _hold(self) -> None:
        """Count what comes of the body."""
        caller: ClientInfo | None = getattr(self, "caller", None)
        owner = limit_key(self.connection.place.address) if caller is None else owner_of(caller)
        self._held = self._at_site.bodies.new(owner)

    def handleContentChunk(self, data: bytes) -> None:
        """Override: a part of the body has come."""
        if self._is_refused:
            return
        self.body_size += len(data)
        try:
            self._check_length(None)
            if self._held is not None:
                self._held.add(len(data))
            super().handleContentChunk(data)
        except Refused as refused:
            self._is_refused = True
            self.connection.refuse(refused)
        except MemoryError:
            memory.missed()
            self._is_refused = True
            self.connection.refuse(OutOfMemory())

    def requestReceived(self, command: bytes, path: bytes, version: bytes) -> None:
        """Override: the request is complete."""
        assert self.content is not None
        if self._is_refused:
            return
        if self._held is None:
            self._read_head(command, path, version)
        else:
            self.content.seek(0)
        self._is_complete = self._is_undecided
        if not self._is_undecided:
            self._go_on()

    def _go_on(self) -> None:
        if self._held is not None and not self.is_admitted:  # yet, so that is begun again
            self.responseHeaders = Headers()
        self.process()

    def _read_head(self, command: bytes, path: bytes, version: bytes) -> None:
        self.method, self.uri, self.clientproto = command, path, version
        self.path, _, query = path.partition(b"?")
        self.args = parse_qs(query, True) if query else {}

    @property
    def _at_site(self) -> AtSite:
        channel: Any = self.channel
        return cast(AtSite, channel.site)

    def _find_resource(self) -> IResource:
        self.prepath = []
        self.postpath = [unquote_to_bytes(segment) for segment in self.path[1:].split(b"/")]
        return self._at_site.getResourceFor(self)

    def process(self) -> None:
        """Override: have what is at the path answer."""
        channel: Any = self.channel
        self.site = channel.site
        self.set_common_headers()
        if channel.site.request_log.is_wanted:
            self.visit = channel.site.request_log.begin(self)
            self.setHeader(b"x-request-id", self.request_id.encode("ascii"))
        if self.path == b"*":  # with OPTIONS, which no resource has to do with: RFC 9110, section 9.3.7
            self.setHeader(b"content-length", b"0")
            self.finish()
            return
        try:
            self.render(self._resource or self._find_resource())
        except Exception:  # noqa: BLE001  as twisted.web does; what a resource should not have raised
            self.processingFailed(Failure())

    def drop_body(self) -> None:
        """Keep nothing of the body, and count it no more."""
        if self._held is not None:
            self._held.release()
        content: BytesIO | None = getattr(self, "content", None)
        if content is not None:
            content.close()

    @property
    def connection(self) -> Connection:
        """What the request came over. `twisted.web` calls it the channel, which is another thing here."""
        connection: Any = self.channel
        return connection  # type: ignore[no-any-return]

    @property
    def figures(self) -> Counters:
        """What has happened at the site that the request is for."""
        return cast(AtSite, self.site).figures

    @property
    def comeback(self) -> EventSourceRetry:
        """Who is told by the site to come back in a stream."""
        return cast(AtSite, self.site).comeback

    @property
    def sender_address(self) -> str:
        """The address of the client."""
        caller: ClientInfo | None = getattr(self, "caller", None)
        return self.connection.place.address if caller is None else caller.address

    @property
    def request_id(self) -> str:
        """What it is called in the log, made when it is first asked for."""
        if self._request_id is None:
            self._request_id = cast(AtSite, self.site).request_log.id_of(self)
        return self._request_id

    @property
    def user_name(self) -> str | None:
        """What its user is called, if somebody vouches for that."""
        caller: ClientInfo | None = getattr(self, "caller", None)
        return None if caller is None else caller.user

    @property
    def sender_name(self) -> str:
        """What who sends it is called in the log."""
        caller: ClientInfo | None = getattr(self, "caller", None)
        return self.connection.place.name if caller is None else caller.name

    @property
    def is_gone(self) -> bool:
        """True if the client has gone before the answer was complete."""
        return self.channel is None

    def body(self, *, is_kept: bool = False) -> bytes:
        """Return the whole body, once. If it `is_kept`, it is counted until the request ends."""
        assert self.content is not None
        body: bytes = self.content.read()
        if self._held is not None and not is_kept:
            self.drop_body()
        return body

    def end_visit(self, status: int) -> None:
        """Log that it has ended with `status`, unless that was done, or is not wanted."""
        visit, self.visit = self.visit, None
        if visit is not None:
            size = self.sentLength if self.streamed is None else self.streamed.sent_bytes
            visit.ended(status, size, self.sender_name, self.user_name)

    def connectionLost(self, reason: Failure) -> None:
        """Override: the client has gone before the answer was complete."""
        self.end_visit((self.true_status or self.code) if self.startedWriting else _CLIENT_GONE)
        self.drop_body()
        super().connectionLost(reason)
        self.producer = self._resource = None  # which may refer to this request: cycles

    def finish(self) -> None:
        """Override: the answer is complete."""
        if self._held is not None:
            self._held.release()
            self._resource = None  # see `connectionLost`
        super().finish()

    def forget_head(self) -> None:
        """Keep nothing of what a subscriber asked for, nor of the head of the response, which has been written.

        For a response that has no end: this is a fourth of what such a connection takes of memory.
        """
        assert self.startedWriting
        self.drop_body()
        self.requestHeaders = self.responseHeaders = Headers()
        self.args = _NO_ARGUMENTS
        self.prepath = self.postpath = _NO_SEGMENTS
        del self.wanted

    # What is answered

    def set_common_headers(self) -> None:
        """Set what every answer has."""
        self.setHeader(b"server", b"pushd")
        self.setHeader(b"date", http_date(int(time())))
        self.setHeader(b"x-content-type-options", b"nosniff")

    def __repr__(self) -> str:
        """Override: leave out the query, which may hold secrets."""
        method, path = (text.decode("ascii", "backslashreplace") for text in (self.method, self.path))
        return f"<{method} {path}>"

    def render(self, resource: IResource) -> None:
        """Override: have `resource` answer; HEAD without the body."""
        body = resource.render(self)
        if body is NOT_DONE_YET:
            return
        assert isinstance(body, bytes), resource
        if body or self.method != b"HEAD":
            self.setHeader(b"content-length", b"%d" % len(body))
        self.write(body)
        self.finish()

    def write(self, data: bytes) -> None:
        """Override: the first time, the head goes before `data`."""
        if not self.startedWriting:
            connection: Any = self.channel
            site: Any = self.site
            if connection is not None and len(data) > connection.least_held_bytes:
                data = site.body_begins(self, data)
            site.head_begins(self)
        AnyRequest.write(self, data)  # not that of twisted.web.server, which makes up a content type

    def processingFailed(self, reason: Failure) -> Failure:
        """Override: a resource raised what it should not have. Log it; the client learns only that."""
        status, problem = 500, _FAULT
        if reason.check(MemoryError):
            memory.missed()
            refused = OutOfMemory()
            status, problem = refused.status, refused.problem()
            self.figures.refuse(refused)
            self.setHeader(b"retry-after", b"%d" % refused.default_retry_s)
        else:
            self.log.failure(
                "a fault in pushd while it served {path} ({request_id})",
                reason,
                path=self.path.decode("ascii", "backslashreplace"),
                request_id=self.request_id,
            )
        if self.is_gone:
            return reason
        if self.startedWriting:
            self.loseConnection()
            return reason
        body = json_line({**problem, "request_id": self.request_id})
        self.setResponseCode(status)
        self.setHeader(b"x-request-id", self.request_id.encode("ascii"))
        self.setHeader(b"content-type", b"application/problem+json")
        self.setHeader(b"cache-control", b"no-store")
        self.setHeader(b"content-length", b"%d" % len(body))
        self.write(body)
        self.finish()
        return reason
