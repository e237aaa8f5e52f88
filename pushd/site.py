"""The site: the tree of everything that is served over HTTP."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from io import BytesIO
from os.path import commonpath, realpath
from pathlib import Path
from time import time
from typing import IO, cast
from urllib.parse import unquote_to_bytes

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IAddress, IReactorTime
from twisted.logger import Logger
from twisted.web.http import Request as AnyRequest
from twisted.web.resource import IResource, Resource
from twisted.web.server import Site
from twisted.web.static import File
from twisted.web.util import redirectTo

from pushd.answers import Answers
from pushd.assets import Assets
from pushd.bus.clientaddress import limit_key
from pushd.bus.counters import Figures
from pushd.bus.shares import Shares
from pushd.comeback import Comeback
from pushd.config.timeouts import Patience
from pushd.connections import Connections, Speaker
from pushd.errors import Refused
from pushd.headernames import bound_header_names
from pushd.heldbodies import HeldBodies
from pushd.http1answers import HTTP1Answers
from pushd.http2.connection import HTTP2
from pushd.http2.decoding import Memory
from pushd.http2.limits import Limits
from pushd.http2.shared import Shared
from pushd.http2.switch import Choice, Switch
from pushd.openfile import OpenFile
from pushd.peer import address_of
from pushd.request import Request
from pushd.requestlog import RequestLog
from pushd.resource import Answering, Missing, answer_problem
from pushd.sparing import Sparing
from pushd.turns import Turns
from pushd.turnstile import Turnstile
from pushd.wheel import Wheel

__all__ = ["PushdSite", "Serving", "StaticFiles", "tree"]


_HELD_BYTES = 256 * 1024 * 1024
"""How much of unfinished bodies is held by a site that shares no bound with others."""
_log = Logger()

_WHOLE_BYTES = 64 * 1024
"""The largest file that is read at once. Of larger ones, as much is held at a time, and counts as an answer."""

_ABOUT_BODY = (
    b"content-type",
    b"content-length",
    b"content-range",
    b"accept-ranges",
    b"cache-control",
    b"etag",
    b"last-modified",
    b"event-id",
    b"event-type",
    b"event-position",
)
"""The header fields of an answer that do not go with another body."""


@dataclass(frozen=True, slots=True)
class Serving:
    """How a site is served."""

    max_body_bytes: int
    """The largest body of a request."""

    patience: Patience
    """How long clients are waited for."""

    logs_requests: bool = False
    """Whether every request is logged."""

    assets: Assets | None = None
    """What goes with pages."""

    has_demo: bool = False
    """Whether it has the demo page."""

    websocket_over_http2: bool = False
    """Whether a WebSocket can be a stream of HTTP/2."""

    retry_s: float = 2.0
    """How long an ``EventSource`` that is refused for now waits at least, in seconds."""

    reconnect_spread_s: float = 5.0
    """Up to how much longer, which is left to chance."""

    cors: Callable[[str], Sequence[tuple[bytes, bytes]]] = lambda origin: ()
    """Returns the fields by which a page of an origin may read an answer that no resource gives."""

    strict_transport_s: float = 0
    """For how long who comes over TLS is told to come back in no other way, in seconds; 0: that is not said."""


class PushdSite(Site):
    """What answers on every listener."""

    noisy = False

    def __init__(
        self,
        root: IResource,
        reactor: IReactorTime,
        *,
        wheel: Wheel,
        turnstile: Turnstile,
        serving: Serving,
        is_proxy: Callable[[IAddress], bool] = lambda peer: False,
        figures: Figures | None = None,
        answers: Answers | None = None,
        now: Callable[[], float] = time,
        bodies: HeldBodies | None = None,
    ) -> None:
        """Serve `root` as `serving` says. Clients are let in by `turnstile`; time-outs are on `wheel`.

        `now` returns the time in seconds since 1970.

        What a peer that `is_proxy` calls a request is believed. What happens is counted in `figures`, what is held
        of unfinished bodies in `bodies`, and what clients have not read in `answers`.
        """
        super().__init__(root, Request, timeout=None, parsePOSTFormSubmission=False, reactor=reactor)
        self.connections = Connections()
        """All that are open."""
        self.figures = Figures() if figures is None else figures
        """What has happened."""
        self.bodies = HeldBodies(_HELD_BYTES, 100) if bodies is None else bodies
        """How much of unfinished bodies is held."""
        self.comeback = Comeback(wheel.seconds)
        """Who is told to come back in a stream."""
        self.turns = Turns(reactor.callLater, wheel.reactor_turn)
        bound_header_names()
        """What shares the time among connections with several requests at once."""
        self._wheel = wheel
        self._turnstile = turnstile
        self._is_proxy = is_proxy
        self._clock = reactor
        self._now = now
        self._memory = Memory()
        self.answers = Answers() if answers is None else answers
        """What clients have not read."""
        self._sparing = Sparing(_log, wheel)
        self.configure(root, serving)

    def configure(self, root: IResource, serving: Serving) -> None:
        """Serve `root` as `serving` says: bodies, patience and WebSockets over HTTP/2 on connections to come."""
        self.serving = serving
        """How it is served."""
        max_body_bytes, patience = serving.max_body_bytes, serving.patience
        wheel = self._wheel
        self.comeback.configure(serving.retry_s, serving.reconnect_spread_s, serving.cors)
        self.resource = root
        http1 = partial(HTTP1Answers, max_body_bytes, patience, wheel, self.answers, self._sparing)
        self.protocol = http1  # type: ignore[method-assign,assignment]
        strict_transport_s = serving.strict_transport_s
        self._strict_transport = b"max-age=%d" % strict_transport_s if strict_transport_s else None
        self._assets = serving.assets or Assets({}, hints_over_http1=False)
        self.request_log = RequestLog(serving.logs_requests, self._is_proxy, wheel.seconds)
        """What calls the requests by names, and logs them."""
        self._http2 = Shared(
            self,
            self.connections,
            Limits(max_body_bytes, patience, takes_websockets=serving.websocket_over_http2),
            wheel,
            wheel.seconds,
            self._clock.callLater,
            memory=self._memory,
            answers=self.answers,
            owner_of_peer=self.owner_of_peer,
        )
        self._choice = Choice(
            self._new_http1,
            partial(HTTP2, self._http2),
            self._turnstile,
            self.connections,
            wheel,
            self._now,
            patience.head_timeout_s,
        )

    def buildProtocol(self, addr: IAddress | None) -> Switch:  # type: ignore[override]
        """Override: which version of HTTP is spoken is known after the TLS handshake, if there is one."""
        return Switch(self._choice)

    def _new_http1(self, hand_to: Callable[[Speaker, bytes], None], turned_away: Refused | None) -> HTTP1Answers:
        http1: HTTP1Answers = super().buildProtocol(None)
        http1.hand_to, http1.turned_away = hand_to, turned_away
        return http1

    def acceptableProtocols(self) -> list[bytes]:
        """Override: what can be spoken over TLS (RFC 7301)."""
        return [b"h2", b"http/1.1"]

    def head_begins(self, request: Request) -> None:
        """Learn that the head of an answer is about to be written."""
        if self._strict_transport is not None and request.isSecure():  # else it must not be said: RFC 6797, 7.2
            request.setHeader(b"strict-transport-security", self._strict_transport)
        self._assets.begin(request)

    def owner_of_peer(self, peer: IAddress) -> str | None:
        """Return what a connection counts for before it is known who speaks; None for a proxy."""
        return None if self._is_proxy(peer) else limit_key(address_of(peer))

    def body_begins(self, request: Request, body: bytes) -> bytes:
        """Return `body`, which is about to be sent, or the reason why there is no room for it until it is read."""
        try:
            request.connection.hold(getattr(request, "caller", None), len(body))
        except Refused as refused:
            for name in _ABOUT_BODY:
                request.responseHeaders.removeHeader(name)
            return answer_problem(request, refused)
        return body

    def log(self, request: AnyRequest) -> None:
        """Override: a request was answered."""
        status = request.code if not isinstance(request, Request) else request.true_status or request.code
        self.figures.answered[status] += 1
        if isinstance(request, Request) and request.visit is not None:
            request.end_visit(status)


class StaticFiles(Answering, File):  # type: ignore[misc]
    """The files of a directory, without listings and without those whose names begin with a dot.

    Links are followed as long as they lead to files of the directory. Nothing else than files is served: who opens
    a named pipe waits for who writes to it.
    """

    childNotFound = Missing()  # type: ignore[assignment]

    fields: Sequence[tuple[bytes, bytes]] = ()
    """The header fields that the answers have beside those of every answer."""

    root: str | None = None
    """The path of the directory; None for itself."""

    _files: Shares | None = None
    _owner: str | None = None

    def createSimilarFile(self, path: str) -> StaticFiles:
        """Override: make what serves a file in the directory."""
        file: StaticFiles = super().createSimilarFile(path)
        file.fields, file.root = self.fields, self.root or self.path
        return file

    @property
    def _is_served(self) -> bool:
        root = realpath(self.root or self.path)
        return commonpath((root, realpath(self.path))) == root and (self.isdir() or self.isfile())

    def admit(self, request: Request) -> Deferred[None] | None:
        """Override: everybody is let in."""
        for name, value in self.fields:
            request.setHeader(name, value)
        return None

    def directoryListing(self) -> IResource:
        """Override: there are no listings."""
        return Missing()

    def openForReading(self) -> IO[bytes]:
        """Override: read a small file as a whole, so that a client that does not read holds no open file.

        Larger ones are open as long as they are sent, and count.
        """
        if self.getsize() > _WHOLE_BYTES and self._files is not None:
            return OpenFile(self.path, self._files, self._owner)
        file: IO[bytes] = File.openForReading(self)
        with file:
            return BytesIO(file.read(_WHOLE_BYTES))

    def render_GET(self, request: AnyRequest) -> bytes | int:
        """Override: a Range that cannot be read counts as none (RFC 9110, section 14.2)."""
        if isinstance(request, Request):
            self._files = cast(PushdSite, request.site).answers.files
            self._owner = limit_key(request.connection.place.address)
        ranges = request.requestHeaders.getRawHeaders(b"range", [])
        if not all(value.isascii() for value in ranges):
            request.requestHeaders.removeHeader(b"range")
        answer: bytes | int = File.render_GET(self, request)
        return answer

    def redirect(self, request: AnyRequest) -> bytes:
        """Override: the path of a directory ends in a slash. A token in the query is not said again."""
        parts = [part for part in request.uri.partition(b"?")[2].split(b"&") if part and not _is_token(part)]
        location = request.path + b"/" + (b"?" + b"&".join(parts) if parts else b"")
        body: bytes = redirectTo(location, request)  # type: ignore[arg-type]
        return body

    def getChild(self, path: bytes, request: AnyRequest) -> IResource:
        """Override: hide what is hidden, but ``.well-known`` (RFC 8615)."""
        if not _is_file_name(path):
            return Missing()
        child: IResource = File.getChild(self, path, request)
        return Missing() if isinstance(child, StaticFiles) and not child._is_served else child


def _is_token(part: bytes) -> bool:
    return unquote_to_bytes(part.partition(b"=")[0]) == b"access_token"


def _is_file_name(segment: bytes) -> bool:
    """Tell whether a segment of a path, decoded, may be the name of a file that is served."""
    if segment.startswith(b".") and segment != b".well-known":
        return False
    try:
        return not set(segment.decode()) & {"/", "\0"}
    except UnicodeDecodeError:
        return False


class _Root(Resource):
    """The root of a site without pages."""

    def getChild(self, path: bytes, request: AnyRequest) -> IResource:
        """Override: there is nothing else."""
        return Missing()


def tree(
    children: dict[bytes, IResource], files: Path | None, fields: Sequence[tuple[bytes, bytes]] = ()
) -> IResource:
    """Make the root of the site: the endpoints by their first segment, and `files` for everything else.

    Answers with files have `fields`.
    """
    root: Resource = _Root()
    if files is not None:
        root = StaticFiles(str(files))
        root.fields = fields
    for segment, resource in children.items():
        root.putChild(segment, resource)
    return root
