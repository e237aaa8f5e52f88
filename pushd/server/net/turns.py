"""Turns: serve the pipelined requests of many connections for a few milliseconds at a time."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from twisted.logger import Logger

from pushd.bus import Turn, memory

__all__ = ["Later", "Turns"]

_BUDGET_S = 0.005
"""How long requests are served before control returns to the reactor, in seconds."""

_OVERRUN_S = 0.002
"""After a turn that is over by this much, in seconds, the waiting requests wait for the next turn, but only once.

A single request may take 9 ms, for example one with 1,500 header fields over HTTP/2.
"""

_PAUSE_S = 0.001
"""A pause of this length between two requests means that the reactor had its turn, in seconds."""

_log = Logger()

Later = Callable[[float, Callable[[], None]], object]
"""The reactor's ``callLater``."""


class Turns:
    """Shares one turn of the reactor among all connections with several buffered requests.

    A connection with more than one buffered request calls `begin`, and `may_go_on` before each further request. If
    that returns False, the connection queues with `later`, first in, first out. The fast path, and the usual case,
    is one request per read: nothing here is called.
    """

    __slots__ = (
        "_call_later",
        "_clock",
        "_has_skipped",
        "_is_due",
        "_is_turn",
        "_last_s",
        "_seconds",
        "_until_s",
        "_waiting",
    )

    def __init__(self, call_later: Later, turn: Turn) -> None:
        """Schedule with the reactor's `call_later`; measure time with its `turn`."""
        self._call_later = call_later
        self._clock = turn
        self._seconds = turn.seconds
        self._until_s = self._last_s = float("-inf")
        self._waiting: deque[tuple[Callable[[], None], Callable[[], object]]] = deque()
        self._is_due = self._is_turn = self._has_skipped = False

    def begin(self) -> None:
        """Called when a connection starts to serve several requests."""
        now = self._seconds()
        if now - self._last_s > _PAUSE_S and not self._is_turn:
            self._until_s = self._clock.until_s(_BUDGET_S)
        self._last_s = now

    def may_go_on(self) -> bool:
        """Return whether one more request may be served in this turn; call right after serving one."""
        self._last_s = now = self._seconds()
        return now < self._until_s

    @property
    def until_s(self) -> float:
        """The end of the time budget of this turn, by the monotonic clock."""
        return self._until_s

    def later(self, go_on: Callable[[], None], abort: Callable[[], object]) -> None:
        """Call `go_on` in a later turn, after the calls queued before; if it raises, log that and call `abort`."""
        self._waiting.append((go_on, abort))
        self._come()

    def _come(self) -> None:
        if not self._is_due:
            self._is_due = True
            self._call_later(0, self._turn)

    def _turn(self) -> None:
        self._is_due = False
        if not self._has_skipped and self._seconds() > self._clock.end_s + _OVERRUN_S:
            self._has_skipped = True
            self._come()
            return
        self._is_turn, self._has_skipped = True, False
        until_s = self._until_s = self._clock.until_s(_BUDGET_S)
        try:
            for _ in range(len(self._waiting)):
                go_on, abort = self._waiting.popleft()
                try:
                    go_on()
                except Exception:  # noqa: BLE001  no transport closes the connection, as for an error in a read
                    if not memory.was_missed():
                        _log.failure("a fault in pushd, in a later turn of a connection")
                    abort()
                if self._seconds() >= until_s:
                    break
        finally:
            self._is_turn = False
            self._last_s = self._seconds()
            if self._waiting:
                self._come()
