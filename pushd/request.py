"""The request: twisted.web's, with pushd's headers and its way to report a fault."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from io import BytesIO
from tempfile import SpooledTemporaryFile
from time import time
from typing import Any, Protocol, cast
from urllib.parse import unquote_to_bytes

from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web import server
from twisted.web.http import Request as AnyRequest
from twisted.web.http import datetimeToString, parse_qs
from twisted.web.http_headers import Headers
from twisted.web.resource import IResource
from twisted.web.server import NOT_DONE_YET

from pushd.caller import Caller
from pushd.certified import Certificate
from pushd.channels import Pattern
from pushd.connections import Upgraded
from pushd.figures import Figures
from pushd.frames import json_line
from pushd.peer import Place
from pushd.writethrough import Writer

__all__ = ["Connection", "Request", "Streamed", "Visit"]

_CLIENT_GONE = 499
"""What stands in the log for the status of a request whose client has gone before there was one, as with nginx."""

_NO_ARGUMENTS: dict[bytes, list[bytes]] = {}
_NO_SEGMENTS: list[bytes] = []
_IN_MEMORY_BYTES = 1024 * 1024
"""The longest body that is not put into a file while it comes."""


class Connection(Protocol):
    """What carries requests, in any version of HTTP."""

    def check_body(self, size: int) -> bool:
        """Tell whether a body may have `size` bytes so far; refuse its request if not."""

    def body_writer(self) -> Writer:
        """Answer what takes the rest of a body, framed for this connection, once `Request.write` was called."""

    @property
    def place(self) -> Place:
        """Where the other end is: the client, or a proxy."""

    @property
    def is_tunnel(self) -> bool:
        """Whether the request at hand is CONNECT with the protocol ``websocket`` (RFC 8441)."""

    @property
    def certificate(self) -> Certificate | None:
        """The certificate that the client has shown, if it has."""

    def upgrade(self, speaker: Upgraded, fields: Iterable[tuple[bytes, bytes]]) -> None:
        """Answer the request at hand with `fields` and no end, and have `speaker` speak from then on."""

    def end(self) -> None:
        """Close, once everything is written."""

    def abort(self) -> None:
        """Close now."""


class Visit(Protocol):
    """What logs a request when it has ended: `pushd.requestlog.Visit`."""

    detail: str | None

    def ended(self, status: int, size: int, peer: str, user: str | None) -> None:
        """Log that the request was answered."""


class _RequestLog(Protocol):
    is_wanted: bool

    def id_of(self, request: Request) -> str:
        """Answer what a request is called."""

    def begin(self, request: Request) -> Visit:
        """Answer what logs a request when it has ended."""


class _Site(Protocol):
    figures: Figures
    request_log: _RequestLog

    def head_begins(self, request: Request) -> None:
        """Learn that the head of an answer is about to be written."""


class Streamed(Protocol):
    """What sends the rest of an answer past its request."""

    @property
    def sent_bytes(self) -> int:
        """How much that was until now."""


class Request(server.Request):
    """One request, over whatever version of HTTP."""

    log = Logger()

    caller: Caller
    """Who sends it, once the gate has let it in."""

    wanted: tuple[list[Pattern], str]
    """What a subscriber wants: channels and patterns, and the position to begin at."""

    visit: Visit | None = None
    """What logs it when it has ended, if requests are logged."""

    streamed: Streamed | None = None
    """What sends the rest of its answer, if something does."""

    _body_size = 0
    _request_id: str | None = None

    # What comes

    def gotLength(self, length: int | None) -> None:
        """Override: a body begins, which is `length` bytes long if that is known."""
        is_short = length is not None and length <= _IN_MEMORY_BYTES
        self.content = BytesIO() if is_short else SpooledTemporaryFile(_IN_MEMORY_BYTES)  # noqa: SIM115

    def handleContentChunk(self, data: bytes) -> None:
        """Override: a part of the body has come."""
        self._body_size += len(data)
        if self.connection.check_body(self._body_size):
            super().handleContentChunk(data)

    def requestReceived(self, command: bytes, path: bytes, version: bytes) -> None:
        """Override: the request is complete."""
        assert self.content is not None
        self.content.seek(0)
        self.method, self.uri, self.clientproto = command, path, version
        self.path, _, query = path.partition(b"?")
        self.args = parse_qs(query, True) if query else {}
        self.process()

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
        self.prepath = []
        self.postpath = [unquote_to_bytes(segment) for segment in self.path[1:].split(b"/")]
        try:
            self.render(channel.site.getResourceFor(self))
        except Exception:  # noqa: BLE001  as twisted.web does; what a resource should not have raised
            self.processingFailed(Failure())

    def drop_body(self) -> None:
        """Close the file of a body that nobody is going to read."""
        if self.content is not None:
            self.content.close()

    @property
    def connection(self) -> Connection:
        """What the request came over. `twisted.web` calls it the channel, which is another thing here."""
        connection: Any = self.channel
        return connection  # type: ignore[no-any-return]

    @property
    def figures(self) -> Figures:
        """What has happened at the site that the request is for."""
        return cast(_Site, self.site).figures

    @property
    def request_id(self) -> str:
        """What it is called in the log, made when it is first asked for."""
        if self._request_id is None:
            self._request_id = cast(_Site, self.site).request_log.id_of(self)
        return self._request_id

    @property
    def user_name(self) -> str | None:
        """What its user is called, if somebody vouches for that."""
        caller: Caller | None = getattr(self, "caller", None)
        return None if caller is None else caller.user

    @property
    def sender_name(self) -> str:
        """What who sends it is called in the log."""
        caller: Caller | None = getattr(self, "caller", None)
        return self.connection.place.name if caller is None else caller.name

    @property
    def is_gone(self) -> bool:
        """True if the client has gone before the answer was complete."""
        return self.channel is None

    def body(self) -> bytes:
        """Answer the whole body."""
        assert self.content is not None
        body: bytes = self.content.read()
        return body

    def end_visit(self, status: int) -> None:
        """Log that it has ended with `status`, unless that was done, or is not wanted."""
        visit, self.visit = self.visit, None
        if visit is not None:
            streamed = self.streamed
            size = self.sentLength + (0 if streamed is None else streamed.sent_bytes)
            visit.ended(status, size, self.sender_name, self.user_name)

    def connectionLost(self, reason: Failure) -> None:
        """Override: the client has gone before the answer was complete."""
        if self.visit is not None:
            self.end_visit(self.code if self.startedWriting else _CLIENT_GONE)
        super().connectionLost(reason)

    def forget_head(self) -> None:
        """Keep nothing of what a subscriber asked for, nor of the head of the response, which has been written.

        For a response that has no end: this is a fourth of what such a connection takes of memory.
        """
        assert self.startedWriting
        self.requestHeaders = self.responseHeaders = Headers()
        self.args = _NO_ARGUMENTS
        self.prepath = self.postpath = _NO_SEGMENTS
        del self.wanted

    # What is answered

    def set_common_headers(self) -> None:
        """Set what every answer has."""
        self.setHeader(b"server", b"pushd")
        self.setHeader(b"date", _http_date(int(time())))
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
            cast(_Site, self.site).head_begins(self)
        AnyRequest.write(self, data)  # not that of twisted.web.server, which makes up a content type

    def processingFailed(self, reason: Failure) -> Failure:
        """Override: a resource raised what it should not have. Log it; the client learns only that."""
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
        problem = {
            "title": "Internal Server Error",
            "status": 500,
            "detail": "a fault in pushd; see its log",
            "request_id": self.request_id,
        }
        body = json_line(problem)
        self.setResponseCode(500)
        self.setHeader(b"x-request-id", self.request_id.encode("ascii"))
        self.setHeader(b"content-type", b"application/problem+json")
        self.setHeader(b"content-length", b"%d" % len(body))
        self.write(body)
        self.finish()
        return reason


@lru_cache(1)
def _http_date(time_s: int) -> bytes:
    """Write a time, in seconds since 1970, as the ``Date`` of an answer."""
    date: bytes = datetimeToString(time_s)
    return date
