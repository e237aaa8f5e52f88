"""The promises of one connection: the responses on their way that nobody asked for (RFC 9113, section 8.4)."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import Enum, auto

from pushd.server.http2 import priority
from pushd.server.http2.codec import Codec
from pushd.server.http2.errors import Code
from pushd.server.http2.head import Field, Head

__all__ = ["COPIED", "MAX_PROMISED", "Answer", "Outcome", "Promises", "Told", "promised"]

MAX_PROMISED = 100
"""How many promised responses may be unfinished. nghttp2 refuses what is over 200, whatever its settings say."""

_MAX_REMEMBERED = 1000
"""Of how many finished ones it is known whom to tell that the client refused them after all."""

_REFUSALS = frozenset({Code.REFUSED_STREAM, Code.ENHANCE_YOUR_CALM})
"""Codes that are about now rather than about the response. Node says the second of what is over its limit."""

COPIED = frozenset({b"accept-encoding", b"user-agent", b"cookie", b"authorization"})
"""What a promised request has of the fields of its parent, beside its scheme and authority: what the choice of a
response may depend on, and that another request of this client would have as well. The last two are secrets of
the origin; a promise has the authority of its parent always, so they go to no other."""


class Outcome(Enum):
    """What became of a promise."""

    FINISHED = auto()
    """All of the response was sent. The client may still refuse it: then `REFUSED` or `CANCELLED` follows."""

    REFUSED = auto()
    """The client has no room for it now."""

    CANCELLED = auto()
    """The client does not want it."""

    LOST = auto()
    """The connection ended, or the response failed."""


Told = Callable[[Outcome], None]
"""Is told the outcome, while something else is going on: it must not do more than note it."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A response that is there already."""

    fields: Iterable[Field]
    """Its header section, without the status, which is 200."""

    body: bytes
    """All of it."""


def promised(authority: bytes, path: bytes, fields: Iterable[Field]) -> Head:
    """Make the request that is promised, for `path` of `authority`, as if it had come with `fields`."""
    fields = ((b"host", authority), *fields)
    return Head(b"GET", path, authority, fields, None, priority.DEFAULT, False, False)


class Promises:
    """Counts them, and tells those who promised."""

    __slots__ = ("_codec", "_paths", "_sent", "_told", "_waiting")

    def __init__(self, codec: Codec) -> None:
        """Keep within what the client of `codec` takes."""
        self._codec = codec
        self._told: dict[int, Told] = {}
        self._paths: set[bytes] = set()
        self._sent: dict[int, Told] = {}
        self._waiting: dict[Callable[[], None], None] = {}

    @property
    def room(self) -> int:
        """How many more may be made.

        Some clients (Node's) count their own requests too, so those leave less of what the client allows,
        but one.
        """
        allowed = self._codec.max_pushed
        if allowed:
            allowed = max(1, allowed - self._codec.open_requests)
        return min(MAX_PROMISED, allowed) - len(self._told)

    def made(self, stream_id: int, told: Told) -> None:
        """Learn that one was made."""
        self._told[stream_id] = told

    def finished(self, stream_id: int) -> None:
        """Learn that all of a response was sent, if it was one of these."""
        told = self._told.pop(stream_id, None)
        if told is not None:
            self._sent[stream_id] = told
            if len(self._sent) > _MAX_REMEMBERED:
                del self._sent[next(iter(self._sent))]
            told(Outcome.FINISHED)

    def lost(self, stream_id: int) -> None:
        """Learn that a response will not be completed."""
        self._end(stream_id, Outcome.LOST)

    def was_reset(self, stream_id: int, code: int) -> None:
        """Learn that the client reset a stream, maybe after its end."""
        self._end(stream_id, Outcome.REFUSED if code in _REFUSALS else Outcome.CANCELLED)

    def _end(self, stream_id: int, outcome: Outcome) -> None:
        told = self._told.pop(stream_id, None) or self._sent.pop(stream_id, None)
        if told is not None:
            told(outcome)

    def is_new(self, path: bytes) -> bool:
        """Return whether it is asked for the first time, of this connection, if the asset at `path` is new."""
        if path in self._paths or len(self._paths) >= _MAX_REMEMBERED:
            return False
        self._paths.add(path)
        return True

    # Those who wait for room

    def wait(self, call: Callable[[], None]) -> None:
        """Call `call` once when there may be room."""
        self._waiting[call] = None

    def stop_waiting(self, call: Callable[[], None]) -> None:
        """Do not call."""
        self._waiting.pop(call, None)

    def wake(self) -> None:
        """Call those who wait, if there is room."""
        if self._waiting and self.room > 0:
            waiting, self._waiting = self._waiting, {}
            for call in waiting:
                call()

    def clear(self) -> None:
        """Forget everybody: the connection has ended."""
        self._waiting.clear()
        self._sent.clear()
