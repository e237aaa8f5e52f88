"""What a library logs with that would log what clients do wrong."""

from __future__ import annotations

from twisted.logger import Logger

__all__ = ["FaultLog"]


class FaultLog:
    """Logs faults and nothing else.

    Autobahn warns of each frame that breaks the protocol, and of each pong that nobody asked for: any client could
    fill the log. Why pushd closed a connection is in the line about its end.
    """

    def __init__(self, namespace: str) -> None:
        """Log as `namespace`."""
        self._log = Logger(namespace=namespace)

    def ignore(self, text: str, **fields: object) -> None:
        """Log nothing."""

    trace = debug = info = warn = ignore

    def error(self, text: str, **fields: object) -> None:
        """Log a fault."""
        self._log.error(text, **fields)

    critical = failure = error
