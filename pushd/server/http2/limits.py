"""Limits of one client: sizes, timeouts, and flood budgets."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, auto

from pushd.config import Timeouts
from pushd.server.http2.errors import Code, ConnectionFault

__all__ = ["Budgets", "Kind", "Limits"]


@dataclass(frozen=True, slots=True)
class Limits:
    """The limits of one connection."""

    max_body_bytes: int
    """The largest request body."""

    timeouts: Timeouts
    """The timeouts of a slow client. The timeout of a request head also applies to the preface."""

    takes_websockets: bool = False
    """Whether a stream may become a WebSocket (RFC 8441)."""

    stall_timeout_s: float = 30.0
    """How long data may wait for a client that reads none of it."""

    drain_timeout_s: float = 1.0
    """How long requests are still accepted in a graceful shutdown, if the client does not answer the PING."""

    linger_s: float = 5.0
    """How long a client may take to close a connection that has ended."""

    max_streams: int = 250
    """The most concurrent requests."""

    max_section_bytes: int = 16 * 1024
    """The largest header section (RFC 9113, section 6.5.2). Up to four times this size gets 431."""

    max_block_frames: int = 32
    """The most frames of a header block."""

    held_body_bytes: int = 4 * 1024 * 1024
    """How much of unfinished request bodies is held before only the oldest of them may continue."""

    max_unsent_bytes: int = 32 * 1024 * 1024
    """How many response bytes may wait for a client before its new requests are refused."""

    max_waiting_control_bytes: int = 64 * 1024
    """How many bytes of replies to control frames may wait for a client that does not read."""


class Kind(Enum):
    """The kinds of frames that have a flood budget."""

    RESET = auto()
    """Streams that the client resets, or makes the server reset (CVE-2023-44487, CVE-2025-8671)."""

    SETTINGS = auto()
    PING = auto()
    EMPTY_DATA = auto()
    """Empty DATA and CONTINUATION frames."""

    PRIORITY = auto()
    """Frames with little or no effect: PRIORITY, PRIORITY_UPDATE and unknown types."""

    WINDOW_UPDATE = auto()
    """WINDOW_UPDATE frames beyond those expected for the DATA sent."""


_BUDGETS = {
    Kind.RESET: (1000, 33),
    Kind.SETTINGS: (100, 10),
    Kind.PING: (200, 20),
    Kind.EMPTY_DATA: (200, 20),
    Kind.PRIORITY: (2000, 100),
    Kind.WINDOW_UPDATE: (5000, 200),
}
"""The burst, and the refill per second."""


class _Budget:
    __slots__ = ("_at", "_burst", "_left", "_rate_s", "_seconds")

    def __init__(self, kind: Kind, seconds: Callable[[], float]) -> None:
        burst, self._rate_s = _BUDGETS[kind]
        self._burst = self._left = float(burst)
        self._seconds = seconds
        self._at = seconds()

    def spend(self) -> bool:
        """Spend one unit; return False if none is left."""
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
    """The flood budgets of one connection."""

    __slots__ = ("_budgets", "_seconds")

    def __init__(self, seconds: Callable[[], float]) -> None:
        """Read the time from `seconds`."""
        self._seconds = seconds
        self._budgets: dict[Kind, _Budget] = {}

    def spend(self, kind: Kind) -> None:
        """Charge one frame; raise `ConnectionFault` if its budget is used up."""
        budget = self._budgets.get(kind)
        if budget is None:
            budget = self._budgets[kind] = _Budget(kind, self._seconds)
        if not budget.spend():
            raise ConnectionFault(Code.ENHANCE_YOUR_CALM, f"too many: {kind.name}")

    def earn(self, kind: Kind, count: int) -> None:
        """Add `count` to a budget, up to its burst."""
        budget = self._budgets.get(kind)
        if budget is not None:
            budget.earn(count)
