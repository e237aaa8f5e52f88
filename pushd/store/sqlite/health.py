"""The condition of a store: whether it takes what is published."""

from __future__ import annotations

from collections.abc import Callable

from twisted.logger import Logger

from pushd.errors import NoRoom, Refused

__all__ = ["StoreHealth"]

_log = Logger()


class StoreHealth:
    """What came of the last transaction with events."""

    def __init__(self, is_full: Callable[[], bool]) -> None:
        """Begin well; `is_full` tells whether there is hardly any room on the disk."""
        self._is_full = is_full
        self.failure: Refused | None = None
        """Why nothing can be published now, if that is so."""

    def note(self, failure: Refused | None) -> None:
        """Take note of what prevented a transaction, if anything did. Log it when that changes."""
        if failure is not None and self.failure is None:
            _log.error("publishing is refused: {detail}", detail=failure.detail)
        elif failure is None and self.failure is not None:
            _log.info("publishing works again")
        self.failure = failure

    @property
    def may_be_over(self) -> bool:
        """Whether it is worth trying to write, while nothing can be published.

        On a full disk, there may still be room for what is tried, which is little.
        """
        failure = self.failure
        return failure is not None and not (isinstance(failure, NoRoom) and self._is_full())
