"""The state shared by the HTTP/2 connections of a site."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from twisted.internet.interfaces import IDelayedCall

from pushd.server.http2.hpack_decoder import Memory
from pushd.server.http2.hpack_encoder import FieldEncoder
from pushd.server.http2.limits import Limits
from pushd.server.net.connections import Connections
from pushd.server.net.timers import TimerWheel
from pushd.server.unread_responses import UnreadResponses

__all__ = ["Http2Context"]


@dataclass(frozen=True, slots=True)
class Http2Context:
    """Objects and limits shared by all connections of a site."""

    site: Any
    """The `twisted.web.server.Site`."""

    connections: Connections
    """The set of open connections."""

    limits: Limits
    """The limits of each connection."""

    wheel: TimerWheel
    """The timers of timeouts."""

    seconds: Callable[[], float]
    """A clock that never jumps."""

    call_later: Callable[[float, Callable[[], None]], IDelayedCall]
    """The reactor's."""

    encoder: FieldEncoder = field(default_factory=FieldEncoder)
    """Encodes header fields and caches the bytes."""

    memory: Memory = field(default_factory=Memory)
    """The size of the header block caches."""

    answers: UnreadResponses = field(default_factory=UnreadResponses)
    """The responses that clients have not read yet."""
