"""Why pushd ends a connection or a subscription, in a form that every transport can say."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto

__all__ = ["CloseCause", "CloseReason"]


class CloseCause(Enum):
    """The kinds of reasons."""

    STOPPING = auto()
    """The daemon stops."""

    TOO_SLOW = auto()
    """The client takes events slower than they come."""

    TOO_MANY = auto()
    """The client wants something too often."""

    DELETED = auto()
    """The channel was deleted."""

    REFUSED = auto()
    """The client asked for something that it cannot have."""

    SILENT = auto()
    """The client gives no sign of life."""

    FAILED = auto()
    """A fault of pushd itself."""


@dataclass(frozen=True, slots=True)
class CloseReason:
    """One reason."""

    cause: CloseCause
    """Its kind."""

    text: str
    """One sentence that a person can act on; 120 bytes of it fit into a WebSocket close frame."""

    retry_s: float | None = None
    """How long this client is asked to wait before it comes back, in seconds, if it is asked to."""
