"""The circuit breaker: whether an application that failed is asked again yet."""

from __future__ import annotations

from collections.abc import Callable

__all__ = ["Breaker"]


class Breaker:
    """Closed, questions are let through. Open, none is, for a while; then one is, and decides how it goes on.

    Every question needs a permit, and says afterwards what came of it. What comes of questions from before the
    breaker opened does not count any more.
    """

    def __init__(self, failures: int, pause_s: float, seconds: Callable[[], float]) -> None:
        """Open after so many `failures` in a row, for `pause_s`; `seconds` is a clock that only goes forward."""
        self._limit = failures
        self._pause_s = pause_s
        self._seconds = seconds
        self._failures = 0
        self._opens_until_s: float | None = None
        self._is_trying = False
        self._permit = 0

    @property
    def is_open(self) -> bool:
        """Whether questions are held back, but for the one that tries."""
        return self._opens_until_s is not None

    @property
    def rest_s(self) -> float:
        """How long no question is let through, in seconds."""
        return 0.0 if self._opens_until_s is None else max(0.0, self._opens_until_s - self._seconds())

    def permit(self) -> int | None:
        """Return what a question is known by that may be asked now, or None."""
        if self._opens_until_s is not None:
            if self._is_trying or self._seconds() < self._opens_until_s:
                return None
            self._is_trying = True
        return self._permit

    def succeeded(self, permit: int) -> bool:
        """There is an answer to the question with `permit`; tell whether the breaker closes by that."""
        if permit != self._permit:
            return False
        self._failures = 0
        if self._opens_until_s is None:
            return False
        self._opens_until_s = None
        self._is_trying = False
        return True

    def failed(self, permit: int) -> bool:
        """There is none; tell whether the breaker opens by that. It does not if it only stays open."""
        if permit != self._permit:
            return False
        was_open = self.is_open
        self._failures += 1
        if was_open or self._failures >= self._limit:
            self._opens_until_s = self._seconds() + self._pause_s
            self._is_trying = False
            self._failures = 0
            self._permit += 1
        return self.is_open and not was_open

    def abandoned(self, permit: int) -> None:
        """Nobody waits for the answer any more, so that it says nothing."""
        if permit == self._permit:
            self._is_trying = False
