"""The connection of a session that has ended."""

from __future__ import annotations

from pushd.bus import CloseReason
from pushd.server import Writer

__all__ = ["GONE"]


class ClosedConnection:
    """The connection of a session that has ended."""

    client_name = "a client that has gone"

    @property
    def writer(self) -> Writer:
        """Raise `AssertionError`: a session that has ended writes nothing."""
        raise AssertionError("the session has ended")

    def close(self, reason: CloseReason) -> None:
        """Do nothing: the connection has ended."""

    def abort(self) -> None:
        """Do nothing: the connection has ended."""


GONE = ClosedConnection()
