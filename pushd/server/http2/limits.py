"""How much a peer may make the server do: budgets against floods."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, auto

from pushd.config import Timeouts
from pushd.server.http2.errors import Code, ConnectionFault

__all__ = ["Budgets", "Kind", "Limits"]


@dataclass(frozen=True, slots=True)
class Limits:
    """What one connection may have. The defaults are meant to be good for everybody."""

    max_body_bytes: int
    """The largest body of a request."""

    patience: Timeouts
    """How long a client is waited for. The time for a head is that for its preface, too."""

    takes_websockets: bool = False
    """Whether a stream may become a WebSocket (RFC 8441)."""

    stall_timeout_s: float = 30.0
    """How long data may wait for a client that takes none of it."""

    drain_timeout_s: float = 1.0
    """How long requests are still taken once the connection is to end, if the client does not answer."""

    linger_s: float = 5.0
    """How long a client has to close a connection that has ended."""

    max_streams: int = 250
    """How many requests there may be at once."""

    max_section_bytes: int = 16 * 1024
    """The largest header section that is served, as section 6.5.2 counts; up to four times is answered with 431."""

    max_block_frames: int = 32
    """In how many frames it may come."""

    held_body_bytes: int = 4 * 1024 * 1024
    """How much of unfinished request bodies is held before only the oldest of them may go on."""

    max_unsent_bytes: int = 32 * 1024 * 1024
    """How much of responses may wait for a client before it gets no more of them."""

    max_waiting_control_bytes: int = 64 * 1024
    """How much of answers to frames may wait for a client that does not read."""


class Kind(Enum):
    """What there is a budget for."""

    RESET = auto()
    """Streams that the client resets, or makes us reset (CVE-2023-44487, CVE-2025-8671)."""

    SETTINGS = auto()
    PING = auto()
    EMPTY_DATA = auto()
    """DATA and CONTINUATION that bring nothing."""

    PRIORITY = auto()
    """Frames that change nothing or next to it: PRIORITY, PRIORITY_UPDATE, and those of unknown types."""

    WINDOW_UPDATE = auto()
    """More of them for what was sent."""


_BUDGETS = {
    Kind.RESET: (1000, 33),
    Kind.SETTINGS: (100, 10),
    Kind.PING: (200, 20),
    Kind.EMPTY_DATA: (200, 20),
    Kind.PRIORITY: (2000, 100),
    Kind.WINDOW_UPDATE: (5000, 200),
}
"""How many at once, and how many more each second."""


class _Budget:
    __slots__ = ("_at", "_burst", "_left", "_rate_s", "_seconds")

    def __init__(self, kind: Kind, seconds: Callable[[], float]) -> None:
        burst, self._rate_s = _BUDGETS[kind]
        self._burst = self._left = float(burst)
        self._seconds = seconds
        self._at = seconds()

    def spend(self) -> bool:
        """Take one; False if there is none."""
        if self._left < 1:
            now = self._seconds()
            self._left = min(self._burst, self._left + (now - self._at) * self._rate_s)
            self._at = now
            if self._left < 1:
                return False
        self._left -= 1
        return True

    def earn(self, count: int) -> None:
        self._left = min(self._burst, self._left + count)


class Budgets:
    """The budgets of one connection."""

    __slots__ = ("_budgets", "_seconds")

    def __init__(self, seconds: Callable[[], float]) -> None:
        """Take the time from `seconds`."""
        self._seconds = seconds
        self._budgets: dict[Kind, _Budget] = {}

    def spend(self, kind: Kind) -> None:
        """Allow one more; raise `ConnectionFault` if it is one too many."""
        budget = self._budgets.get(kind)
        if budget is None:
            budget = self._budgets[kind] = _Budget(kind, self._seconds)
        if not budget.spend():
            raise ConnectionFault(Code.ENHANCE_YOUR_CALM, f"too many: {kind.name}")

    def earn(self, kind: Kind, count: int) -> None:
        """Allow `count` more, up to what there is at the beginning."""
        budget = self._budgets.get(kind)
        if budget is not None:
            budget.earn(count)
