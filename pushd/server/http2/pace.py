"""Back-pressure on the requests of one connection: a few milliseconds of processing per reactor turn."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pushd.server.http2.receiver import Incoming
from pushd.server.net.turns import Turns

__all__ = ["Pace"]

_UNREAD_BYTES = 64 * 1024
"""The most unread bytes before the transport is paused."""


class Pace:
    """Processes received bytes, and pauses the client while other connections have their turn."""

    __slots__ = ("_incoming", "_is_deferred", "_is_paused", "_take", "_transport", "_turns")

    def __init__(self, incoming: Incoming, turns: Turns, take: Callable[[], bool], transport: Any) -> None:
        """Queue bytes in `incoming`; call `take` to process them, which returns whether it is finished."""
        self._incoming = incoming
        self._turns = turns
        self._take = take
        self._transport = transport
        self._is_deferred = self._is_paused = False

    def received(self, data: bytes) -> None:
        """Process `data`, now or in a later turn."""
        self._incoming.receive(data)
        if not self._is_deferred:
            self._go_on()
        elif self._incoming.unread_bytes > _UNREAD_BYTES and not self._is_paused:
            self._is_paused = True
            self._transport.pauseProducing()

    def end(self) -> None:
        """Stop processing, and break the reference cycle with the connection."""
        self._take, self._transport = _nothing, None
        self._is_paused = False

    def _go_on(self) -> None:
        self._turns.begin()
        self._is_deferred = not self._take()
        if self._is_deferred:
            self._turns.later(self._go_on, self._transport.abortConnection)
        elif self._is_paused:
            self._is_paused = False
            self._transport.resumeProducing()


def _nothing() -> bool:
    """Return True: nothing is left to process."""
    return True
