"""WebSocket: ``GET /ws``, with JSON messages both ways or, with ``format=raw``, the bare data."""

from __future__ import annotations

from typing import ClassVar

from twisted.web.server import NOT_DONE_YET

from pushd.bus import Pattern, Publisher, Transport
from pushd.config import Timeouts
from pushd.errors import BadRequest, Refused
from pushd.server import IncompleteBodies, Request, RequestGuard, Turns, parameter, since_of, subscribed_patterns
from pushd.sessions import Admission
from pushd.transports.endpoint import SubscribeEndpoint
from pushd.transports.websocket.connection import new_connection, new_factory
from pushd.transports.websocket.handshake import Handshake, accept_connect, accept_upgrade
from pushd.transports.websocket.protocol import JsonProtocol, RawProtocol
from pushd.transports.websocket.settings import WebSocketSettings
from pushd.wire import longest_message

__all__ = ["WebSocket"]

_PARAMETERS = frozenset({"channel", "since", "format"})


class WebSocket(SubscribeEndpoint):
    """The opening handshake. An invalid request gets an HTTP error, before the connection is upgraded."""

    transport = Transport("websocket", has_own_starts=True)
    parameters: ClassVar = {"GET": _PARAMETERS, "CONNECT": _PARAMETERS}

    def __init__(
        self,
        guard: RequestGuard,
        admission: Admission,
        publisher: Publisher,
        *,
        max_event_bytes: int,
        max_channels: int,
        heartbeat_s: float,
        ping_timeout_s: float,
        timeouts: Timeouts,
        bodies: IncompleteBodies,
        turns: Turns,
    ) -> None:
        """Accept events of up to `max_event_bytes` for `publisher`, each to up to `max_channels`.

        A client is pinged every `heartbeat_s`, and closed if it then sends nothing for `ping_timeout_s`. `timeouts`
        limits the time of a message, and `bodies` counts the bytes of incomplete ones. `turns` shares the time
        among clients with many messages.
        """
        super().__init__(guard, admission)
        self._factory = new_factory(timeouts, admission.sessions.wheel, bodies, turns)
        self._max_message_bytes = longest_message(max_event_bytes, max_channels)
        self._settings = WebSocketSettings(
            guard, admission, publisher, max_event_bytes, max_channels, heartbeat_s, ping_timeout_s
        )

    def refuse(self, request: Request, refused: Refused) -> bytes:
        """Override: close the connection after a rejected handshake, as nothing else may follow it."""
        if request.clientproto == b"HTTP/1.1":
            request.connection.finish()
        return super().refuse(request, refused)

    def wanted(self, request: Request) -> tuple[list[Pattern], str]:
        """Override: channels are optional in the query, as commands can subscribe; check the handshake, too."""
        is_raw = _format(request) == "raw"
        has_channels = is_raw or b"channel" in request.args
        wanted = subscribed_patterns(request) if has_channels else [], since_of(request, "latest")
        request.found = is_raw, (accept_connect if request.method == b"CONNECT" else accept_upgrade)(request)
        return wanted

    def render_GET(self, request: Request) -> int:
        """Accept a handshake over HTTP/1.1 (RFC 6455, section 4.2)."""
        return self._open(request)

    def render_CONNECT(self, request: Request) -> int:
        """Accept a handshake over HTTP/2 (RFC 8441, section 5)."""
        return self._open(request)

    def _open(self, request: Request) -> int:
        """Subscribe to the channels in the query, accept the handshake, and upgrade the connection."""
        handshake: Handshake
        is_raw, handshake = request.found
        max_bytes = self._settings.max_event_bytes if is_raw else self._max_message_bytes
        websocket = new_connection(self._factory, max_bytes, request.caller.place)
        protocol = RawProtocol if is_raw else JsonProtocol
        dialogue = protocol(websocket, self._settings, request.caller, speaks_v1=handshake.speaks_v1)
        websocket.listener = dialogue
        try:
            dialogue.subscribe(*request.wanted)
        except Refused:
            dialogue.session.ended()
            raise
        dialogue.ping_later()
        fields = handshake.fields
        if request.access_record is not None:
            dialogue.access_record, request.access_record = request.access_record, None
            fields.append((b"X-Request-ID", request.request_id.encode("ascii")))
        request.connection.upgrade(websocket, fields)
        return NOT_DONE_YET


def _format(request: Request) -> str:
    text = parameter(request, "format")
    if text is None:
        return "json"
    if text not in ("json", "raw"):
        raise BadRequest(f"format is {text!r}; expected json or raw", "format")
    return text
