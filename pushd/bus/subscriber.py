"""The subscriber, as the bus knows it."""

from __future__ import annotations

from typing import Protocol

from pushd.bus.closing import CloseReason
from pushd.bus.event import Entry

__all__ = ["NOBODY", "Subscriber", "take_nothing"]


class Subscriber(Protocol):
    """What the bus knows of who is subscribed."""

    def deliver(self, entry: Entry) -> None:
        """Take the next event; what it raises ends the subscription.

        It may publish, and end its own subscription or others', but not subscribe.
        """

    def close(self, reason: CloseReason) -> None:
        """Learn that the subscription has ended, and why."""


class _Nobody:
    """The subscriber of a subscription that has ended."""

    def deliver(self, entry: Entry) -> None:
        """Take no event."""

    def close(self, reason: CloseReason) -> None:
        """Do nothing: it has ended."""


NOBODY = _Nobody()
"""The subscriber of a subscription that has ended."""


def take_nothing(entry: Entry) -> None:
    """Take an event for a subscription that has ended."""
