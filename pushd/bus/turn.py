"""The turn of the reactor: one clock that all budgets share, so that their sum stays bounded.

A turn serves sockets, and then makes the calls that are due: requests, long works, deliveries, the store. Each of
them has a budget of some milliseconds. Without a common end, those budgets add up in a turn in which all of them
have work; with it, those that come late in a turn do little, and go on in the next one.
"""

from __future__ import annotations

from collections.abc import Callable

__all__ = ["LEAST_S", "LIMIT_S", "Turn"]

LIMIT_S = 0.009
"""How long a turn may take, in seconds; what is being done then is the last of the turn."""

LEAST_S = 0.0004
"""How much time there is for each kind of work in a turn that has used its time: so all of them make progress."""


class Turn:
    """Knows when the turn began. Unless somebody calls `begin`, as with a reactor without epoll, no turn ends."""

    __slots__ = ("end_s", "seconds")

    def __init__(self, seconds: Callable[[], float]) -> None:
        """Use `seconds`, a clock that never jumps."""
        self.seconds = seconds
        """The clock."""
        self.end_s = float("inf")
        """When the turn has used its time, by the clock."""

    @property
    def is_over(self) -> bool:
        """Return whether the turn has used its time."""
        return self.seconds() >= self.end_s

    def begin(self, now_s: float) -> None:
        """Begin a turn: the reactor has waited for events, until `now_s`."""
        self.end_s = now_s + LIMIT_S

    def until_s(self, budget_s: float) -> float:
        """Return until when a work that may take `budget_s` may go on in this turn; it has a little time always."""
        now_s = self.seconds()
        return min(now_s + budget_s, max(self.end_s, now_s + LEAST_S))
