"""Turns: what many connections want done at once is done a few milliseconds at a time."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from pushd.bus import Turn

__all__ = ["Later", "Turns"]

_BUDGET_S = 0.005
"""How long requests are served before the reactor has its turn."""

_PAUSE_S = 0.001
"""When nobody has begun or gone on for so long, the reactor has had its turn."""

Later = Callable[[float, Callable[[], None]], object]
"""The reactor's ``callLater``."""


class Turns:
    """Shares the time of one turn of the reactor among all connections with more than one request to serve.

    A connection that has read more than one request calls `begin`, and `may_go_on` before each further one. If it
    may not, it waits with `later`, which is fair: each goes to the end of the queue. With one request in each read,
    which is the ordinary case, nothing of this is called.
    """

    __slots__ = ("_call_later", "_clock", "_is_due", "_is_turn", "_last_s", "_seconds", "_until_s", "_waiting")

    def __init__(self, call_later: Later, turn: Turn) -> None:
        """Use the reactor's `call_later`, and the clock of its `turn`."""
        self._call_later = call_later
        self._clock = turn
        self._seconds = turn.seconds
        self._until_s = self._last_s = float("-inf")
        self._waiting: deque[Callable[[], None]] = deque()
        self._is_due = self._is_turn = False

    def begin(self) -> None:
        """Note that a connection begins to serve several requests."""
        now = self._seconds()
        if now - self._last_s > _PAUSE_S and not self._is_turn:
            self._until_s = self._clock.until_s(_BUDGET_S)
        self._last_s = now

    def may_go_on(self) -> bool:
        """Return whether one more request may be served in this turn; to be asked right after one was."""
        self._last_s = now = self._seconds()
        return now < self._until_s

    @property
    def until_s(self) -> float:
        """Until when in this turn there is time, by the clock that never jumps."""
        return self._until_s

    def later(self, go_on: Callable[[], None]) -> None:
        """Call `go_on` in a later turn, after those that wait already."""
        self._waiting.append(go_on)
        self._come()

    def _come(self) -> None:
        if not self._is_due:
            self._is_due = True
            self._call_later(0, self._turn)

    def _turn(self) -> None:
        self._is_due, self._is_turn = False, True
        until_s = self._until_s = self._clock.until_s(_BUDGET_S)
        try:
            for _ in range(len(self._waiting)):
                self._waiting.popleft()()
                if self._seconds() >= until_s:
                    break
        finally:
            self._is_turn = False
            self._last_s = self._seconds()
            if self._waiting:
                self._come()
