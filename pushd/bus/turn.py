"""The turn of the reactor: one deadline that all time budgets share, so that their sum stays bounded.

A turn serves sockets, and then makes the calls that are due: requests, long jobs, deliveries, the store. Each has a
budget of a few milliseconds. Without a common deadline, these budgets would add up in a turn where all have work.
With it, jobs late in a turn do little and continue in the next one.
"""

from __future__ import annotations

from collections.abc import Callable

__all__ = ["LEAST_S", "LIMIT_S", "Turn"]

LIMIT_S = 0.009
"""How long a turn may take, in seconds; the job running at that time is the last full job of the turn."""

LEAST_S = 0.0004
"""The time for each kind of job in a turn that is over, in seconds, so that all of them make progress."""


class Turn:
    """The deadline of the current turn. Without calls of `begin`, as with a reactor without epoll, no turn ends."""

    __slots__ = ("end_s", "seconds")

    def __init__(self, seconds: Callable[[], float]) -> None:
        """Use `seconds`, a monotonic clock."""
        self.seconds = seconds
        """The clock."""
        self.end_s = float("inf")
        """The deadline of the turn, by the clock."""

    @property
    def is_over(self) -> bool:
        """Whether the turn has reached its deadline."""
        return self.seconds() >= self.end_s

    def begin(self, now_s: float) -> None:
        """Start a turn. Called when the reactor has waited for I/O until `now_s`."""
        self.end_s = now_s + LIMIT_S

    def until_s(self, budget_s: float) -> float:
        """Return the deadline in this turn of a job with the budget `budget_s`: at least `LEAST_S` from now."""
        now_s = self.seconds()
        return min(now_s + budget_s, max(self.end_s, now_s + LEAST_S))

    def is_over_after(self, budget_s: float) -> Callable[[], bool]:
        """Return a function that returns whether `budget_s` of this turn is used up."""
        until_s, seconds = self.until_s(budget_s), self.seconds
        return lambda: seconds() >= until_s
