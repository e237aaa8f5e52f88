"""The interface of a subscriber to the bus."""

from __future__ import annotations

from typing import Protocol

from pushd.bus.closing import CloseReason
from pushd.bus.event import Entry

__all__ = ["NO_SUBSCRIBER", "Subscriber", "discard_event", "nothing"]


class Subscriber(Protocol):
    """A receiver of events, as the bus sees it."""

    def deliver(self, entry: Entry) -> None:
        """Called with the next event. An exception ends the subscription.

        The method may publish and may end any subscription, but must not subscribe.
        """

    def close(self, reason: CloseReason) -> None:
        """Called when the subscription has ended, with the reason."""


class _NoSubscriber:
    """The subscriber of a subscription that has ended."""

    def deliver(self, entry: Entry) -> None:
        """Discard the event."""

    def close(self, reason: CloseReason) -> None:
        """Do nothing: the subscription has ended already."""


NO_SUBSCRIBER = _NoSubscriber()
"""The subscriber of a subscription that has ended."""


def nothing() -> None:
    """Do nothing: the default of a callback."""


def discard_event(entry: Entry) -> None:
    """Discard an event: the `deliver` of a subscription that has ended."""
