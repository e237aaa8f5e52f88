"""The reasons why pushd ends a connection or a subscription, independent of the transport."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto

__all__ = ["CloseCause", "CloseReason"]


class CloseCause(Enum):
    """The kinds of close reasons."""

    STOPPING = auto()
    """The daemon shuts down."""

    TOO_SLOW = auto()
    """The client receives events slower than they are published."""

    TOO_MANY = auto()
    """The client exceeded a rate limit or its share of a limit."""

    DELETED = auto()
    """The channel was deleted."""

    REFUSED = auto()
    """A message was rejected, a permission ended, or an operator closed the connection."""

    SILENT = auto()
    """The client missed the ping timeout."""

    FAILED = auto()
    """An internal error in pushd."""


@dataclass(frozen=True, slots=True)
class CloseReason:
    """The reason why one connection or subscription ends."""

    cause: CloseCause
    """The kind of the reason."""

    text: str
    """One sentence that a person can act on; 120 bytes of it fit into a WebSocket close frame."""

    retry_s: float | None = None
    """The seconds that the client should wait before it reconnects, None if not specified."""
