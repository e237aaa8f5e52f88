"""The circuit breaker: stops webhooks to an application that keeps failing."""

from __future__ import annotations

from collections.abc import Callable

__all__ = ["Breaker"]


class Breaker:
    """A circuit breaker for one URL. Each request needs a permit, and reports its outcome with it.

    ==========  ======================================  =======================================
    State       Requests                                Next state
    ==========  ======================================  =======================================
    closed      allowed                                 open after `failures` in a row
    open        denied for `pause_s`                    half-open
    half-open   one is allowed, as a test               closed if it succeeds, open if it fails
    ==========  ======================================  =======================================

    Outcomes of requests that started before the breaker opened are ignored.
    """

    def __init__(self, failures: int, pause_s: float, seconds: Callable[[], float]) -> None:
        """Open after `failures` in a row, for `pause_s`; `seconds` is a monotonic clock."""
        self._limit = failures
        self._pause_s = pause_s
        self._seconds = seconds
        self._failures = 0
        self._opens_until_s: float | None = None
        self._is_trying = False
        self._permit = 0

    @property
    def is_open(self) -> bool:
        """Whether the breaker is open or half-open."""
        return self._opens_until_s is not None

    @property
    def rest_s(self) -> float:
        """Remaining time until a request is allowed, in seconds."""
        return 0.0 if self._opens_until_s is None else max(0.0, self._opens_until_s - self._seconds())

    def permit(self) -> int | None:
        """Return a permit for one request, or None if none is allowed now."""
        if self._opens_until_s is not None:
            if self._is_trying or self._seconds() < self._opens_until_s:
                return None
            self._is_trying = True
        return self._permit

    def succeeded(self, permit: int) -> bool:
        """Called when the request with `permit` succeeded. Return whether that closes the breaker."""
        if permit != self._permit:
            return False
        self._failures = 0
        if self._opens_until_s is None:
            return False
        self._opens_until_s = None
        self._is_trying = False
        return True

    def failed(self, permit: int) -> bool:
        """Called when the request with `permit` failed. Return whether that opens a closed breaker."""
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
        """Called when the request with `permit` was cancelled; it has no outcome."""
        if permit == self._permit:
            self._is_trying = False
