"""What the HTTP/2 connections of a site have in common."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from twisted.internet.interfaces import IAddress, IDelayedCall

from pushd.server.http2.hpack_decoder import Memory
from pushd.server.http2.hpack_encoder import FieldEncoder
from pushd.server.http2.limits import Limits
from pushd.server.net.connections import Connections
from pushd.server.net.timers import TimerWheel
from pushd.server.unread_responses import UnreadResponses

__all__ = ["Http2Context"]


@dataclass(frozen=True, slots=True)
class Http2Context:
    """What all connections of a site have in common."""

    site: Any
    """The `twisted.web.server.Site`."""

    connections: Connections
    """Where each enters itself."""

    limits: Limits
    """What each may have."""

    wheel: TimerWheel
    """For time-outs."""

    seconds: Callable[[], float]
    """A clock that never jumps."""

    call_later: Callable[[float, Callable[[], None]], IDelayedCall]
    """The reactor's."""

    encoder: FieldEncoder = field(default_factory=FieldEncoder)
    """Remembers the bytes of fields."""

    memory: Memory = field(default_factory=Memory)
    """How much they remember of header blocks."""

    answers: UnreadResponses = field(default_factory=UnreadResponses)
    """What their clients have not read."""

    owner_of_peer: Callable[[IAddress], str | None] = lambda peer: None
    """Returns what a connection counts for before it is known who sends a request."""
