"""Server push: ``GET /push?channel=...``, each event a pushed response (RFC 9113, section 8.4)."""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.interfaces import IDelayedCall

from pushd.bus import Pattern, Transport
from pushd.errors import Conflict, VersionNeeded
from pushd.server import Request, RequestGuard, Stream
from pushd.sessions import Admission, SubscriberSession
from pushd.transports.http_stream import ResponseStream
from pushd.transports.ndjson import NdjsonEndpoint
from pushd.transports.server_push.session import PushSession

__all__ = ["EventPush"]


class EventPush(NdjsonEndpoint):
    """A stream on which each event is promised as ``/channels/{channel}/events/{id}``; its body has no events."""

    transport = Transport("push")

    def __init__(
        self,
        guard: RequestGuard,
        admission: Admission,
        *,
        heartbeat_s: float,
        call_later: Callable[[float, Callable[[], None]], IDelayedCall],
    ) -> None:
        """Send an idle client an empty line every `heartbeat_s` seconds. `call_later` is the reactor's."""
        super().__init__(guard, admission, heartbeat_s=heartbeat_s)
        self._call_later = call_later

    def wanted(self, request: Request) -> tuple[list[Pattern], str]:
        """Override: check that the client accepts server push, too."""
        _promising(request)
        return super().wanted(request)

    def make_session(self, request: Request, body: ResponseStream) -> SubscriberSession:
        """Override: create a session that promises events on the stream of the request."""
        return PushSession(self._sessions, _promising(request), body, request.caller, self._call_later)


def _promising(request: Request) -> Stream:
    """Return the stream of a request; raise `Refused` if it does not allow promises."""
    stream: object = request.channel
    if not isinstance(stream, Stream):
        raise VersionNeeded(
            "server push requires HTTP/2, negotiated by ALPN over TLS; /stream and /sse work over any version"
        )
    if not stream.takes_promises:
        raise Conflict(
            "the client has disabled server push (SETTINGS_ENABLE_PUSH is 0); /stream and /sse work without it"
        )
    return stream
