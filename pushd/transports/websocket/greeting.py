"""Messages that only a client of ``pushd.v1`` gets: the greeting, and a ping that a page can see."""

from __future__ import annotations

from pushd import __version__
from pushd.bus import ClientInfo
from pushd.transports.websocket.settings import WebSocketSettings
from pushd.wire import longest_message, websocket_message

__all__ = ["PING", "hello"]

PING = websocket_message({"type": "ping"})
"""The message that a page gets with a ping, which it cannot see; it needs no answer."""


def hello(settings: WebSocketSettings, caller: ClientInfo) -> bytes:
    """Return the frame of ``{"type":"hello","connection","version","heartbeat","expires"?,"limits"}``.

    ``heartbeat`` is in seconds; ``expires`` is when the rights of the client end, in seconds since 1970. The limits
    are sizes in bytes, of an event and of a message, and the number of channels and patterns.
    """
    message: dict[str, object] = {
        "type": "hello",
        "connection": caller.id,
        "version": __version__,
        "heartbeat": int(settings.heartbeat_s) if settings.heartbeat_s.is_integer() else settings.heartbeat_s,
    }
    if caller.identity.expires_at is not None:
        message["expires"] = caller.identity.expires_at
    message["limits"] = {
        "event_size": settings.max_event_bytes,
        "message_size": longest_message(settings.max_event_bytes, settings.max_channels),
        "subscriptions": settings.admission.sessions.bus.max_subscribed,
    }
    return websocket_message(message)
