"""Requests that were answered before they were read to their end (RFC 9113, section 8.1)."""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.interfaces import IDelayedCall

from pushd.server.http2.codec import Codec
from pushd.server.http2.context import Http2Context
from pushd.server.http2.errors import Code

__all__ = ["EarlyAnswers"]

_AFTER_S = 0.3
"""How long after the response a request that is not read is reset. curl 7.88 loses a response that comes together
with the reset."""


class EarlyAnswers:
    """Those of one connection, whose streams are to be reset."""

    def __init__(self, codec: Codec, shared: Http2Context, was_reset: Callable[[], None]) -> None:
        """Reset streams of `codec`, and call `was_reset` after that."""
        self._codec = codec
        self._shared = shared
        self._was_reset = was_reset
        self._streams: list[int] = []
        self._call: IDelayedCall | None = None

    def answered(self, stream_id: int) -> None:
        """Learn that all of the response was sent: if the request goes on, it is reset soon."""
        if self._codec.is_open(stream_id):
            self._streams.append(stream_id)
            if self._call is None:
                self._call = self._shared.call_later(_AFTER_S, self._reset)

    def end(self) -> None:
        """Reset nothing any more: the connection has ended."""
        if self._call is not None and self._call.active():
            self._call.cancel()
        self._was_reset = _nothing  # which is the connection's: a cycle

    def _reset(self) -> None:
        self._call = None
        streams, self._streams = self._streams, []
        for stream_id in streams:
            if self._codec.is_open(stream_id):
                self._codec.reset(stream_id, Code.NO_ERROR)
        self._was_reset()


def _nothing() -> None:
    """Do nothing."""
