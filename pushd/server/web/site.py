"""The site: pushd's resource tree and the connections that serve it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from time import time

from twisted.internet.interfaces import IAddress, IReactorTime
from twisted.logger import Logger
from twisted.web.http import Request as AnyRequest
from twisted.web.resource import IResource
from twisted.web.server import Site

from pushd.bus import Counters
from pushd.config import Timeouts
from pushd.errors import Refused
from pushd.server.access_log import RequestLog
from pushd.server.eventsource_retry import EventSourceRetry
from pushd.server.http1.responses import HTTP1Answers
from pushd.server.http2.connection import HTTP2
from pushd.server.http2.context import Http2Context
from pushd.server.http2.hpack_decoder import Memory
from pushd.server.http2.limits import Limits
from pushd.server.incomplete_bodies import IncompleteBodies
from pushd.server.net.connection_limits import ConnectionLimiter, RateLimitedLog
from pushd.server.net.connections import Connections, WireProtocol
from pushd.server.net.timers import TimerWheel
from pushd.server.net.turns import Turns
from pushd.server.problems import answer_problem
from pushd.server.request import Request
from pushd.server.unread_responses import UnreadResponses
from pushd.server.web.header_names import bound_header_names
from pushd.server.web.negotiation import AlpnChoice, AlpnSwitch
from pushd.server.web.preload import Assets

__all__ = ["PushdSite", "Serving"]

_HELD_BYTES = 256 * 1024 * 1024
"""The default limit of incomplete bodies, for a site that shares no limit with others."""


_log = Logger()


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
"""The headers to remove when a response gets another body."""


@dataclass(frozen=True, slots=True)
class Serving:
    """The options of a site."""

    max_body_bytes: int
    """The largest request body, in bytes."""

    timeouts: Timeouts
    """The timeouts of clients."""

    logs_requests: bool = False
    """Whether every request is logged."""

    assets: Assets | None = None
    """The assets announced with pages."""

    has_demo: bool = False
    """Whether the demo page is served."""

    websocket_over_http2: bool = False
    """Whether WebSocket over an HTTP/2 stream is accepted (RFC 8441)."""

    retry_s: float = 2.0
    """The shortest time before a rejected ``EventSource`` reconnects, in seconds."""

    reconnect_spread_s: float = 5.0
    """The jitter added to that time, in seconds."""

    cors: Callable[[str], Sequence[tuple[bytes, bytes]]] = lambda origin: ()
    """Returns the CORS headers for an origin, for responses that no resource sends."""

    strict_transport_s: float = 0
    """The max-age of Strict-Transport-Security over TLS, in seconds; 0 omits the header."""


class PushdSite(Site):
    """Serves requests on every listener."""

    noisy = False

    def __init__(
        self,
        root: IResource,
        reactor: IReactorTime,
        *,
        wheel: TimerWheel,
        limiter: ConnectionLimiter,
        serving: Serving,
        is_proxy: Callable[[IAddress], bool] = lambda peer: False,
        counters: Counters | None = None,
        answers: UnreadResponses | None = None,
        now: Callable[[], float] = time,
        bodies: IncompleteBodies | None = None,
    ) -> None:
        """Serve `root` with the options of `serving`. `limiter` limits connections; timeouts are on `wheel`.

        `now` returns the time in seconds since 1970.

        Request ids from a client that `is_proxy` are trusted. `counters` counts events, `bodies` limits incomplete
        bodies, and `answers` limits unread responses.
        """
        super().__init__(root, Request, timeout=None, parsePOSTFormSubmission=False, reactor=reactor)
        self.connections = Connections()
        """The open connections."""
        self.counters = Counters() if counters is None else counters
        """The counters of the site."""
        self.bodies = IncompleteBodies(_HELD_BYTES, 100) if bodies is None else bodies
        """Limits the bytes of incomplete bodies."""
        self.comeback = EventSourceRetry(wheel.seconds)
        """Rejects EventSource clients with a stream, so that they reconnect."""
        self.turns = Turns(reactor.callLater, wheel.reactor_turn)
        """Shares the event loop fairly among connections with pipelined requests."""
        bound_header_names()
        self._wheel = wheel
        self._limiter = limiter
        self.is_proxy = is_proxy
        """Tells whether an address is that of a trusted proxy."""
        self._clock = reactor
        self._now = now
        self._memory = Memory()
        self.answers = UnreadResponses() if answers is None else answers
        """Limits the bytes of responses that clients have not read."""
        self._limited_log = RateLimitedLog(_log, wheel)
        self.configure(root, serving)

    def configure(self, root: IResource, serving: Serving) -> None:
        """Apply `serving`; the body limit, timeouts and WebSocket over HTTP/2 change for new connections only."""
        self.serving = serving
        """The current options."""
        max_body_bytes, timeouts = serving.max_body_bytes, serving.timeouts
        self.max_body_bytes = max_body_bytes
        """The largest body of any request, in bytes."""
        wheel = self._wheel
        self.comeback.configure(serving.retry_s, serving.reconnect_spread_s, serving.cors)
        self.resource = root
        http1 = partial(HTTP1Answers, max_body_bytes, timeouts, wheel, self.answers, self._limited_log)
        self.protocol = http1  # type: ignore[method-assign,assignment]
        strict_transport_s = serving.strict_transport_s
        self._strict_transport = b"max-age=%d" % strict_transport_s if strict_transport_s else None
        self._assets = serving.assets or Assets({}, hints_over_http1=False)
        self.request_log = RequestLog(serving.logs_requests, self.is_proxy, wheel.seconds)
        """Assigns request ids and logs requests."""
        self._http2 = Http2Context(
            self,
            self.connections,
            Limits(max_body_bytes, timeouts, takes_websockets=serving.websocket_over_http2),
            wheel,
            wheel.seconds,
            self._clock.callLater,
            memory=self._memory,
            answers=self.answers,
        )
        self._choice = AlpnChoice(
            self._new_http1,
            partial(HTTP2, self._http2),
            self._limiter,
            self.connections,
            wheel,
            self._now,
            timeouts.head_timeout_s,
        )

    def buildProtocol(self, addr: IAddress | None) -> AlpnSwitch:  # type: ignore[override]
        """Override: return a protocol that selects the HTTP version after the TLS handshake, if any."""
        return AlpnSwitch(self._choice)

    def _new_http1(
        self, hand_to: Callable[[WireProtocol, bytes], None], turned_away: Refused | None
    ) -> HTTP1Answers:
        http1: HTTP1Answers = super().buildProtocol(None)
        http1.hand_to, http1.turned_away = hand_to, turned_away
        return http1

    def acceptableProtocols(self) -> list[bytes]:
        """Override: return the ALPN protocols offered over TLS (RFC 7301)."""
        return [b"h2", b"http/1.1"]

    def head_begins(self, request: Request) -> None:
        """Called before the head of a response is written; adds headers for TLS and pages."""
        if self._strict_transport is not None and request.isSecure():  # TLS only: RFC 6797, 7.2
            request.setHeader(b"strict-transport-security", self._strict_transport)
        self._assets.begin(request)

    def body_begins(self, request: Request, body: bytes) -> bytes:
        """Return `body`, or a problem document if it exceeds the limit of unread responses."""
        try:
            request.connection.hold(getattr(request, "caller", None), len(body))
        except Refused as refused:
            for name in _ABOUT_BODY:
                request.responseHeaders.removeHeader(name)
            return answer_problem(request, refused)
        return body

    def log(self, request: AnyRequest) -> None:
        """Override: called when a response is complete. Count and log the request."""
        status = request.code if not isinstance(request, Request) else request.true_status or request.code
        self.counters.answered[status] += 1
        if isinstance(request, Request) and request.access_record is not None:
            request.end_visit(status)
