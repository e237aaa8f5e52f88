"""The site: the tree of everything that is served over HTTP."""

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

from pushd.bus import Counters, limit_key
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
from pushd.server.net.addresses import address_of
from pushd.server.net.connection_limits import ConnectionLimiter, RateLimitedLog
from pushd.server.net.connections import Connections, WireProtocol
from pushd.server.net.timers import TimerWheel
from pushd.server.net.turns import Turns
from pushd.server.request import Request
from pushd.server.unread_responses import UnreadResponses
from pushd.server.web.header_names import bound_header_names
from pushd.server.web.negotiation import AlpnChoice, AlpnSwitch
from pushd.server.web.preload import Assets
from pushd.server.web.resource import answer_problem

__all__ = ["PushdSite", "Serving"]

_HELD_BYTES = 256 * 1024 * 1024
"""How much of unfinished bodies is held by a site that shares no bound with others."""


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
"""The header fields of an answer that do not go with another body."""


@dataclass(frozen=True, slots=True)
class Serving:
    """How a site is served."""

    max_body_bytes: int
    """The largest body of a request."""

    patience: Timeouts
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
        wheel: TimerWheel,
        turnstile: ConnectionLimiter,
        serving: Serving,
        is_proxy: Callable[[IAddress], bool] = lambda peer: False,
        figures: Counters | None = None,
        answers: UnreadResponses | None = None,
        now: Callable[[], float] = time,
        bodies: IncompleteBodies | None = None,
    ) -> None:
        """Serve `root` as `serving` says. Clients are let in by `turnstile`; time-outs are on `wheel`.

        `now` returns the time in seconds since 1970.

        What a peer that `is_proxy` calls a request is believed. What happens is counted in `figures`, what is held
        of unfinished bodies in `bodies`, and what clients have not read in `answers`.
        """
        super().__init__(root, Request, timeout=None, parsePOSTFormSubmission=False, reactor=reactor)
        self.connections = Connections()
        """All that are open."""
        self.figures = Counters() if figures is None else figures
        """What has happened."""
        self.bodies = IncompleteBodies(_HELD_BYTES, 100) if bodies is None else bodies
        """How much of unfinished bodies is held."""
        self.comeback = EventSourceRetry(wheel.seconds)
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
        self.answers = UnreadResponses() if answers is None else answers
        """What clients have not read."""
        self._sparing = RateLimitedLog(_log, wheel)
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
        self._http2 = Http2Context(
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
        self._choice = AlpnChoice(
            self._new_http1,
            partial(HTTP2, self._http2),
            self._turnstile,
            self.connections,
            wheel,
            self._now,
            patience.head_timeout_s,
        )

    def buildProtocol(self, addr: IAddress | None) -> AlpnSwitch:  # type: ignore[override]
        """Override: which version of HTTP is spoken is known after the TLS handshake, if there is one."""
        return AlpnSwitch(self._choice)

    def _new_http1(
        self, hand_to: Callable[[WireProtocol, bytes], None], turned_away: Refused | None
    ) -> HTTP1Answers:
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
