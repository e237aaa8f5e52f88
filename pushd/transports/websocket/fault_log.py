"""A logger for libraries that drops messages about the errors of clients."""

from __future__ import annotations

from twisted.logger import Logger

__all__ = ["FaultLog"]


class FaultLog:
    """Logs faults and nothing else.

    Autobahn warns of each protocol error and each unsolicited pong, so any client could fill the log. The reason
    for closing a connection is in pushd's log line about its end.
    """

    def __init__(self, namespace: str) -> None:
        """Create a log for `namespace`."""
        self._log = Logger(namespace=namespace)

    def ignore(self, text: str, **fields: object) -> None:
        """Log nothing."""

    trace = debug = info = warn = ignore

    def error(self, text: str, **fields: object) -> None:
        """Log a fault."""
        self._log.error(text, **fields)

    critical = failure = error
