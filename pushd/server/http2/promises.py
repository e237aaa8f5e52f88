"""Server push: the promised responses of one connection (RFC 9113, section 8.4)."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import Enum, auto

from pushd.server.http2 import priority
from pushd.server.http2.codec import Codec
from pushd.server.http2.errors import Code
from pushd.server.http2.head import Field, Head

__all__ = ["COPIED", "MAX_PROMISED", "Answer", "Outcome", "Promises", "Told", "promised"]

MAX_PROMISED = 100
"""The most unfinished promised responses. nghttp2 refuses more than 200, whatever its settings are."""

_MAX_REMEMBERED = 1000
"""How many finished promises are remembered, because the client may still refuse them."""

_REFUSALS = frozenset({Code.REFUSED_STREAM, Code.ENHANCE_YOUR_CALM})
"""Codes of temporary refusals. Node sends the second for promises over its limit."""

COPIED = frozenset({b"accept-encoding", b"user-agent", b"cookie", b"authorization"})
"""The fields that a promised request copies from its parent, besides scheme and authority: those that may select
the response, and that another request of this client would have, too. The last two are secrets of the origin;
a promise always has the authority of its parent, so no other origin gets them."""


class Outcome(Enum):
    """The outcome of a promise."""

    FINISHED = auto()
    """The response is fully sent. The client may still refuse it: then `REFUSED` or `CANCELLED` follows."""

    REFUSED = auto()
    """The client has no room for the response now."""

    CANCELLED = auto()
    """The client rejected the response."""

    LOST = auto()
    """The connection ended, or the response failed."""


Told = Callable[[Outcome], None]
"""Called with the outcome, in the middle of other processing: it must only record the outcome."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A complete response."""

    fields: Iterable[Field]
    """The header section, without the status, which is 200."""

    body: bytes
    """The whole body."""


def promised(authority: bytes, path: bytes, fields: Iterable[Field]) -> Head:
    """Return the promised request for `path` of `authority`, as if received with `fields`."""
    fields = ((b"host", authority), *fields)
    return Head(b"GET", path, authority, fields, None, priority.DEFAULT, False, False)


class Promises:
    """Counts the promises of a connection, and reports their outcomes."""

    __slots__ = ("_codec", "_paths", "_sent", "_told", "_waiting")

    def __init__(self, codec: Codec) -> None:
        """Stay within the push limit of the client of `codec`."""
        self._codec = codec
        self._told: dict[int, Told] = {}
        self._paths: set[bytes] = set()
        self._sent: OrderedDict[int, Told] = OrderedDict()
        self._waiting: dict[Callable[[], None], None] = {}

    @property
    def room(self) -> int:
        """How many more promises can be made.

        Some clients (Node's) also count their own requests, so open requests reduce the client's limit, down
        to one.
        """
        allowed = self._codec.max_pushed
        if allowed:
            allowed = max(1, allowed - self._codec.open_requests)
        return min(MAX_PROMISED, allowed) - len(self._told)

    def made(self, stream_id: int, told: Told) -> None:
        """Called when a promise is made; `told` gets its outcome."""
        self._told[stream_id] = told

    def finished(self, stream_id: int) -> None:
        """Called when a response is fully sent, promised or not."""
        told = self._told.pop(stream_id, None)
        if told is not None:
            self._sent[stream_id] = told
            if len(self._sent) > _MAX_REMEMBERED:
                self._sent.popitem(last=False)
            told(Outcome.FINISHED)

    def lost(self, stream_id: int) -> None:
        """Called when a response will not be completed."""
        self._end(stream_id, Outcome.LOST)

    def was_reset(self, stream_id: int, code: int) -> None:
        """Called when the client resets a stream, maybe after its end."""
        self._end(stream_id, Outcome.REFUSED if code in _REFUSALS else Outcome.CANCELLED)

    def _end(self, stream_id: int, outcome: Outcome) -> None:
        told = self._told.pop(stream_id, None) or self._sent.pop(stream_id, None)
        if told is not None:
            told(outcome)

    def is_new(self, path: bytes) -> bool:
        """Return True on the first call for `path` on this connection, within a limit of paths."""
        if path in self._paths or len(self._paths) >= _MAX_REMEMBERED:
            return False
        self._paths.add(path)
        return True

    # Waiting for room

    def wait(self, call: Callable[[], None]) -> None:
        """Register `call`, to be called once when there may be room."""
        self._waiting[call] = None

    def stop_waiting(self, call: Callable[[], None]) -> None:
        """Unregister `call`."""
        self._waiting.pop(call, None)

    def wake(self) -> None:
        """Call the registered calls, if there is room."""
        if self._waiting and self.room > 0:
            waiting, self._waiting = self._waiting, {}
            for call in waiting:
                call()

    def clear(self) -> None:
        """Forget all calls and finished promises: the connection has ended."""
        self._waiting.clear()
        self._sent.clear()
