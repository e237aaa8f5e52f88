"""Delivery: every event to every subscriber in its audience, one event after the other.

Groups are handed an event at once. Of other subscribers, if they are many, some are handed it in each turn of the
reactor. One that leaves, joins a group, asks for something or gets a later event meanwhile is handed it first: so
each gets the events in their order, each once.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from pushd.bus.event import Entry
from pushd.bus.pending_deliveries import PendingDeliveries
from pushd.bus.recipients import Recipients
from pushd.bus.slices import MOST, Later, Slice
from pushd.bus.subscription import Group, Subscription
from pushd.bus.turn import Turn

__all__ = ["Delivery"]

_MOST_PENDING = 8
"""How many events may wait to be handed out in slices. Of more, the first is handed out at once: whoever publishes
faster than that waits, and memory stays bounded."""

_Recipient = Subscription | Group
_Audiences = list[Recipients[_Recipient]]


class Delivery:
    """Hands out the events of one bus."""

    def __init__(
        self,
        audiences_of: Callable[[list[Entry]], _Audiences],
        failed: Callable[[_Recipient, Exception], None],
        turn: Turn,
        call_later: Later | None,
    ) -> None:
        """Begin with nothing to hand out.

        `audiences_of` returns who gets each entry of an event; `failed` is called in an ``except`` with a recipient
        that raised. `turn` is the turn of the reactor, `call_later` the reactor's: without it, no slices.
        """
        self._audiences_of = audiences_of
        self._failed = failed
        self._turn = turn
        self._call_later = call_later
        self._undelivered: deque[list[Entry]] = deque()
        self._is_due = False
        self.pending = PendingDeliveries()
        """The events that are being handed out in slices."""
        self.crowded: set[Group] = set()
        """The groups for which so much waits to be sent that publishers have to wait."""
        self.is_delivering = False
        """True while events are handed out."""
        self.at_hand: list[Entry] = []
        """The entries of the event that is being handed out."""
        self.drained: Callable[[], None] = _nothing
        """Called when no event is being handed out in slices any more."""

    @property
    def is_full(self) -> bool:
        """Whether so much waits that publishers have to wait: the next event would not be handed out in slices."""
        return bool(self.crowded) or len(self.pending) >= _MOST_PENDING

    def hand_out(self, entries: list[Entry], audiences: _Audiences) -> None:
        """Hand out an event. A subscriber may publish: that event has its turn after the one at hand."""
        if self.is_delivering:
            self._undelivered.append(entries)
            return
        self.is_delivering = True
        try:
            self._hand_out(entries, audiences)
            if self._undelivered:
                self._hand_out_undelivered()
        finally:
            self.is_delivering = False
            self.at_hand = []
            if self.pending.events:
                self._end()

    def _hand_out_undelivered(self) -> None:
        while self._undelivered:
            entries = self._undelivered.popleft()
            self._hand_out(entries, self._audiences_of(entries))

    def _end(self) -> None:
        self.is_delivering = False
        self.at_hand = []
        self.pending.tidy()
        if self.pending and not self._is_due and self._call_later is not None:
            self._is_due = True
            self._call_later(0, self._go_on)

    def _hand_out(self, entries: list[Entry], audiences: _Audiences) -> None:
        self.at_hand = entries
        if self._call_later is not None:
            count = 0
            for audience in audiences:
                count += len(audience.recipients)
            if count > MOST or self.pending.events:
                self._hand_out_in_slices(entries, audiences, is_large=count > MOST)
                return
        for place, entry in enumerate(entries):  # costs less than `zip`
            for recipient in audiences[place].recipients:
                try:
                    recipient.deliver(entry)
                except Exception as error:  # noqa: BLE001  one that fails must not stop the others
                    self._failed(recipient, error)
            entry.forget_frames()

    def _hand_out_in_slices(self, entries: list[Entry], audiences: _Audiences, *, is_large: bool) -> None:
        """Hand out an event that is for many, or that is published while another is being handed out.

        Groups get it at once: who is in a group has got every event before it. So does a small audience, of which
        each first gets what is pending for it.
        """
        unserved: dict[Subscription, Entry] = {}
        for entry, audience in zip(entries, audiences, strict=True):
            for recipient in audience.recipients:
                if not isinstance(recipient, Subscription):
                    self._hand(recipient, entry)
                elif is_large:
                    unserved[recipient] = entry
                else:
                    self.take_pending(recipient)
                    self._hand(recipient, entry)
        while unserved and len(self.pending) >= _MOST_PENDING:
            self._hand_next()
        self.pending.add(entries, unserved)

    def _hand(self, recipient: _Recipient, entry: Entry) -> None:
        try:
            recipient.deliver(entry)
        except Exception as error:  # noqa: BLE001  as above
            self._failed(recipient, error)

    def _hand_next(self) -> bool:
        """Make the next pending delivery. Return whether there was any."""
        step = self.pending.next()
        if step is None:
            return False
        self.at_hand, subscription, entry = step
        self._hand(subscription, entry)
        return True

    def _go_on(self) -> None:
        """Hand out the next slice."""
        self._is_due = False
        self.is_delivering = True
        part = Slice(self._turn)
        try:
            while self._hand_next() and part.spend():
                pass
            self._hand_out_undelivered()
        finally:
            self._end()
        if not self.pending:
            self.drained()

    def take_pending(self, subscription: Subscription) -> bool:
        """Hand `subscription` now what is pending for it. Return whether there was anything."""
        steps = self.pending.of(subscription)
        before, at_hand = self.is_delivering, self.at_hand
        self.is_delivering = True
        try:
            for self.at_hand, entry in steps:
                self._hand(subscription, entry)
            if not before:
                self._hand_out_undelivered()
        finally:
            self.is_delivering, self.at_hand = before, at_hand
        return bool(steps)


def _nothing() -> None:
    """Tell nobody."""
