"""The health of a store: whether it accepts events."""

from __future__ import annotations

from collections.abc import Callable

from twisted.logger import Logger

from pushd.errors import NoRoom, Refused

__all__ = ["StoreHealth"]

_log = Logger()


class StoreHealth:
    """The result of the last transaction with events."""

    def __init__(self, is_full: Callable[[], bool]) -> None:
        """Start healthy; `is_full` returns whether the disk is almost full."""
        self._is_full = is_full
        self.failure: Refused | None = None
        """Why events cannot be published now; None if they can."""

    def note(self, failure: Refused | None) -> None:
        """Record the failure of a transaction, None if it succeeded. Log a change between the two."""
        if failure is not None and self.failure is None:
            _log.error("publishing is refused: {detail}", detail=failure.detail)
        elif failure is None and self.failure is not None:
            _log.info("publishing works again")
        self.failure = failure

    @property
    def may_be_over(self) -> bool:
        """Whether a trial write is worthwhile while events cannot be published.

        Not on a full disk: a trial is small and may fit where events do not.
        """
        failure = self.failure
        return failure is not None and not (isinstance(failure, NoRoom) and self._is_full())
