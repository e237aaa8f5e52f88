"""The request: twisted.web's, with pushd's headers, body limits and error responses."""

from __future__ import annotations

from collections.abc import Callable, Sequence
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
from pushd.server.access_log import RequestRecord
from pushd.server.eventsource_retry import EventSourceRetry
from pushd.server.incomplete_bodies import IncompleteBody
from pushd.server.interfaces import AtSite, Connection, Streamed
from pushd.server.problems import answer_fault, answer_problem, http_date

__all__ = ["LITTLE_BYTES", "Connection", "Request", "Streamed"]

_CLIENT_GONE = 499
"""The status logged for a request whose client disconnected before the response began, as in nginx."""

_NO_ARGUMENTS: dict[bytes, list[bytes]] = {}
_NO_SEGMENTS: list[bytes] = []
LITTLE_BYTES = 16 * 1024
"""The longest body accepted by a resource that does not use one."""


class Request(server.Request):
    """One request, over any version of HTTP.

    While `_is_undecided`, admission by the head is pending, and `_is_complete` is set if the body ends meanwhile.
    `is_admitted` follows a positive decision; once `_is_refused`, the rest of the request is ignored.
    """

    log = Logger()

    caller: ClientInfo
    """The client, set once the request guard has admitted the request."""

    wanted: tuple[list[Pattern], str]
    found: Any
    """A subscription: its channels and patterns, and the position to resume from."""

    access_record: RequestRecord | None = None
    """Logs the request when it ends; None if requests are not logged."""

    true_status: int | None = None
    """The status of a refusal sent inside a stream, for metrics and the log; None: the status sent."""

    streamed: Streamed | None = None
    """The producer that sends the rest of the response, if any."""

    is_admitted = False
    """Whether the request was admitted by its head; it is checked again when its body is complete."""

    body_size = 0
    """How many bytes of the body have been received."""

    body_field: str | None = None
    """The field of an event that the body contains, if it is one field."""

    _request_id: str | None = None
    _resource: IResource | None = None
    _most_bytes, _is_refused = 0, False
    _held: IncompleteBody | None = None
    _is_undecided = _is_complete = is_lasting = False  # for the last, see `pushd.server.outlast`

    # Receiving

    def gotLength(self, length: int | None) -> None:
        """Override: called when the body begins; `length` is None if unknown."""
        self.content = BytesIO()

    def take_body(self, data: bytes) -> None:
        """Set a short body that was received together with the head."""
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
        """Decide from the head whether to read the body; `length` is None if unknown.

        Call `decided` once, now or later: with None to read the body, or with the refusal. Received body bytes
        are counted from this call on.
        """
        self._read_head(command, path, version)
        self._most_bytes = self._at_site.max_body_bytes
        try:
            waiting = self._expect()
            self._hold()
            if waiting is None:
                self._check_length(length)
        except Refused as refused:
            decided(refused)
            return
        except Exception:  # noqa: BLE001  a bug in a resource
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
        """Continue after the decision: with the body, or with the whole request if it is complete by now."""
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
        expect: Callable[[Request], Deferred[None] | None] | None = getattr(resource, "expect", None)
        return None if expect is None else expect(self)

    def expects(self, most_bytes: int) -> None:
        """Admit the request by its head, with a body of up to `most_bytes`."""
        self.is_admitted = True
        self._most_bytes = min(self._most_bytes, most_bytes)

    def _check_length(self, length: int | None) -> None:
        if max(length or 0, self.body_size) > self._most_bytes:
            raise TooLarge(f"the body is larger than {self._most_bytes} bytes, see [limits]", self.body_field)

    def _hold(self) -> None:
        """Start counting the bytes of the incomplete body, towards the limits of its sender."""
        caller: ClientInfo | None = getattr(self, "caller", None)
        owner = limit_key(self.connection.info.place.address) if caller is None else owner_of(caller)
        self._held = self._at_site.bodies.new(owner)

    def handleContentChunk(self, data: bytes) -> None:
        """Override: called when a part of the body is received."""
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
        """Override: called when the request is complete."""
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
        if self._held is not None and not self.is_admitted:  # not yet admitted: admission runs again
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
        """Override: set the common headers, start the log entry, and render the resource at the path."""
        channel: Any = self.channel
        self.site = channel.site
        self.set_common_headers()
        if channel.site.request_log.is_wanted:
            self.access_record = channel.site.request_log.begin(self.method, self.path, self.request_id)
            self.setHeader(b"x-request-id", self.request_id.encode("ascii"))
        if self.path == b"*":  # OPTIONS for the whole server: RFC 9110, section 9.3.7
            self.setHeader(b"content-length", b"0")
            self.finish()
            return
        try:
            self.render(self._resource or self._find_resource())
        except Exception:  # noqa: BLE001  as twisted.web does; a bug in a resource
            self.processingFailed(Failure())

    def drop_body(self) -> None:
        """Discard the body and stop counting its bytes."""
        if self._held is not None:
            self._held.release()
        content: BytesIO | None = getattr(self, "content", None)
        if content is not None:
            content.close()

    @property
    def connection(self) -> Connection:
        """The connection of the request, which `twisted.web` calls the channel."""
        connection: Any = self.channel
        return connection  # type: ignore[no-any-return]

    @property
    def counters(self) -> Counters:
        """The counters of the site."""
        return cast(AtSite, self.site).counters

    @property
    def comeback(self) -> EventSourceRetry:
        """The site's `EventSourceRetry`, which rejects EventSource clients with a stream."""
        return cast(AtSite, self.site).comeback

    @property
    def sender_address(self) -> str:
        """The address of the client."""
        caller: ClientInfo | None = getattr(self, "caller", None)
        return self.connection.info.place.address if caller is None else caller.address

    @property
    def request_id(self) -> str:
        """The id of the request in the log, created on first use."""
        if self._request_id is None:
            log = cast(AtSite, self.site).request_log
            self._request_id = log.request_id(self.requestHeaders, self.getClientAddress())
        return self._request_id

    @property
    def user_name(self) -> str | None:
        """The authenticated user, if any."""
        caller: ClientInfo | None = getattr(self, "caller", None)
        return None if caller is None else caller.user

    @property
    def sender_name(self) -> str:
        """The client's name in the log."""
        caller: ClientInfo | None = getattr(self, "caller", None)
        return self.connection.info.place.name if caller is None else caller.name

    @property
    def target(self) -> bytes:
        """The path and the query, as received."""
        return self.uri

    def values(self, name: bytes) -> Sequence[bytes]:
        """Return the values of a header field."""
        return cast(Sequence[bytes], self.requestHeaders.getRawHeaders(name, []))

    @property
    def is_gone(self) -> bool:
        """True if the client disconnected before the response was complete."""
        return self.channel is None

    def body(self, *, is_kept: bool = False) -> bytes:
        """Return the whole body; call once. With `is_kept`, its bytes are counted until the request ends."""
        assert self.content is not None
        body: bytes = self.content.read()
        if self._held is not None and not is_kept:
            self.drop_body()
        return body

    def end_visit(self, status: int) -> None:
        """Log the end of the request with `status`, once, if requests are logged."""
        access_record, self.access_record = self.access_record, None
        if access_record is not None:
            size = self.sentLength if self.streamed is None else self.streamed.sent_bytes
            access_record.ended(status, size, self.sender_name, self.user_name)

    def connectionLost(self, reason: Failure) -> None:
        """Override: called when the client disconnects before the response is complete."""
        self.end_visit((self.true_status or self.code) if self.startedWriting else _CLIENT_GONE)
        self.drop_body()
        super().connectionLost(reason)
        self.producer = self._resource = None  # both may refer to this request: break the cycles

    def finish(self) -> None:
        """Override: complete the response."""
        if self._held is not None:
            self._held.release()
            self._resource = None  # see `connectionLost`
        super().finish()

    def forget_head(self) -> None:
        """Free the head, body and arguments of a request, and the headers of the response, which have been sent.

        For streams that stay open: this saves a quarter of the memory of such a connection.
        """
        assert self.startedWriting
        self.drop_body()
        self.requestHeaders = self.responseHeaders = Headers()
        self.args = _NO_ARGUMENTS
        self.prepath = self.postpath = _NO_SEGMENTS
        del self.wanted

    # Responding

    def set_common_headers(self) -> None:
        """Set the headers that every response has."""
        self.setHeader(b"server", b"pushd")
        self.setHeader(b"date", http_date(int(time())))
        self.setHeader(b"x-content-type-options", b"nosniff")

    def __repr__(self) -> str:
        """Override: omit the query, which may contain secrets."""
        method, path = (text.decode("ascii", "backslashreplace") for text in (self.method, self.path))
        return f"<{method} {path}>"

    def render(self, resource: IResource) -> None:
        """Override: render `resource` and send the response, without the body for HEAD."""
        body = resource.render(self)
        if body is NOT_DONE_YET:
            return
        assert isinstance(body, bytes), resource
        if body or self.method != b"HEAD":
            self.setHeader(b"content-length", b"%d" % len(body))
        self.write(body)
        self.finish()

    def write(self, data: bytes) -> None:
        """Override: write `data`, after the head on the first call."""
        if not self.startedWriting:
            connection: Any = self.channel
            site: Any = self.site
            if connection is not None and len(data) > connection.least_held_bytes:
                data = site.body_begins(self, data)
            site.head_begins(self)
        AnyRequest.write(self, data)  # not twisted.web.server's, which adds a default content type

    def processingFailed(self, reason: Failure) -> Failure:
        """Override: called when a resource fails unexpectedly. Log the failure and send a 500 without details."""
        refused = OutOfMemory() if reason.check(MemoryError) else None
        if refused is not None:
            memory.missed()
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
        self.write(answer_fault(self) if refused is None else answer_problem(self, refused))
        self.finish()
        return reason
