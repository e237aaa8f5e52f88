"""Requests answered before their end (RFC 9113, section 8.1)."""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.interfaces import IDelayedCall

from pushd.server.http2.codec import Codec
from pushd.server.http2.context import Http2Context
from pushd.server.http2.errors import Code

__all__ = ["EarlyAnswers"]

_AFTER_S = 0.3
"""How long after its response an unfinished request is reset. curl 7.88 loses a response that arrives together
with the reset."""


class EarlyAnswers:
    """The early answered requests of one connection, whose streams are to be reset."""

    def __init__(self, codec: Codec, shared: Http2Context, was_reset: Callable[[], None]) -> None:
        """Reset streams of `codec`, then call `was_reset`."""
        self._codec = codec
        self._shared = shared
        self._was_reset = was_reset
        self._streams: list[int] = []
        self._call: IDelayedCall | None = None

    def answered(self, stream_id: int) -> None:
        """Called when a response is fully sent; reset the request soon if it continues."""
        if self._codec.is_open(stream_id):
            self._streams.append(stream_id)
            if self._call is None:
                self._call = self._shared.call_later(_AFTER_S, self._reset)

    def end(self) -> None:
        """Stop resetting streams: the connection has ended."""
        if self._call is not None and self._call.active():
            self._call.cancel()
        self._was_reset = _nothing  # a method of the connection: break the reference cycle

    def _reset(self) -> None:
        self._call = None
        streams, self._streams = self._streams, []
        for stream_id in streams:
            if self._codec.is_open(stream_id):
                self._codec.reset(stream_id, Code.NO_ERROR)
        self._was_reset()


def _nothing() -> None:
    """Do nothing."""
