"""Delivery: deliver each event to all subscribers of its channels, one event after the other.

Fan-out groups receive an event at once. Many single subscribers receive it in slices, over several turns of the
reactor. A subscriber that leaves, joins a group, sends a request or receives a later event gets its pending events
first, so that every subscriber receives the events in order, each once.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from pushd.bus.counters import Counters
from pushd.bus.event import Entry
from pushd.bus.pending_deliveries import PendingDeliveries
from pushd.bus.recipients import Recipient, Recipients
from pushd.bus.slices import MOST, Later, Slice
from pushd.bus.subscriber import nothing
from pushd.bus.turn import Turn

__all__ = ["Delivery"]

_MOST_PENDING = 8
"""The number of events that may be delivered in slices at the same time. One more delivers the oldest at once:
back-pressure on the publishers, and bounded memory."""

_Audiences = list[Recipients[Recipient]]


class Delivery:
    """Delivers the events of one bus.

    ===================  ============================================================================
    Flag                 Set while
    ===================  ============================================================================
    ``is_delivering``    an event is being delivered; an event published meanwhile is queued
    ``_is_due``          the next slice is scheduled with ``call_later``
    ``is_full``          publishers have to wait: a group is full, or too many events are pending
    ===================  ============================================================================
    """

    def __init__(
        self,
        audiences_of: Callable[[list[Entry]], _Audiences],
        counters: Counters,
        seconds: Callable[[], float],
        turn: Turn,
        call_later: Later | None,
    ) -> None:
        """Start without events.

        `audiences_of` returns the recipients of each entry of an event. `counters` counts the latency, by the
        monotonic clock `seconds`. `turn` is the turn of the reactor. Without `call_later`, there are no slices.
        """
        self._audiences_of = audiences_of
        self._counters = counters
        self._seconds = seconds
        self.unwritten = 0
        """The number of events delivered but not yet written; the end of this turn writes them."""
        self._came_s = 0.0  # when the first unwritten event arrived
        self._turn = turn
        self._call_later = call_later
        self._undelivered: deque[list[Entry]] = deque()
        self._is_due = False
        self.pending = PendingDeliveries()
        """The events that are being delivered in slices."""
        self.crowded: set[Recipient] = set()
        """The fan-out groups with so many unsent bytes that publishers have to wait."""
        self.is_delivering = False
        """True while an event is being delivered."""
        self.at_hand: list[Entry] = []
        """The entries of the event that is being delivered."""
        self.drained: Callable[[], None] = nothing
        """Called when the last pending event has been delivered."""

    @property
    def is_full(self) -> bool:
        """True if publishers have to wait: back-pressure from a fan-out group or from pending events."""
        return bool(self.crowded) or len(self.pending) >= _MOST_PENDING

    def hand_out(self, entries: list[Entry], audiences: _Audiences, came_s: float | None = None) -> None:
        """Deliver an event, which arrived at `came_s`, in monotonic seconds, or now.

        An event that a subscriber publishes meanwhile is queued and delivered next.
        """
        if not self.unwritten:
            self._came_s = self._seconds() if came_s is None else came_s
        self.unwritten += 1
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
        """Deliver an event. The fast path delivers to all at once; the slow path is `_hand_out_in_slices`."""
        self.at_hand = entries
        if self._call_later is not None:
            count = 0
            for audience in audiences:
                count += len(audience.recipients)
            if count > MOST or self.pending.events:
                self._hand_out_in_slices(entries, audiences, is_large=count > MOST)
                return
        for place, entry in enumerate(entries):  # cheaper than `zip`
            for recipient in audiences[place].recipients:
                try:
                    recipient.deliver(entry)
                except Exception as error:  # noqa: BLE001  one that fails must not stop the others
                    _fail(recipient, error)
            entry.forget_frames()

    def _hand_out_in_slices(self, entries: list[Entry], audiences: _Audiences, *, is_large: bool) -> None:
        """Deliver an event to many recipients, or while other events are pending.

        Fan-out groups receive the event at once: a group has no pending events. So does a small audience, after
        the pending events of each recipient.
        """
        unserved: dict[Recipient, Entry] = {}
        for entry, audience in zip(entries, audiences, strict=True):
            for recipient in audience.recipients:
                if recipient.is_group:
                    self._hand(recipient, entry)
                elif is_large:
                    unserved[recipient] = entry
                else:
                    self.take_pending(recipient)
                    self._hand(recipient, entry)
        while unserved and len(self.pending) >= _MOST_PENDING:
            self._hand_next()
        self.pending.add(entries, unserved)

    def _hand(self, recipient: Recipient, entry: Entry) -> None:
        try:
            recipient.deliver(entry)
        except Exception as error:  # noqa: BLE001  as above
            _fail(recipient, error)

    def _hand_next(self) -> bool:
        """Make the next pending delivery; return whether there was one."""
        step = self.pending.next()
        if step is None:
            return False
        self.at_hand, recipient, entry = step
        self._hand(recipient, entry)
        return True

    def _go_on(self) -> None:
        """Deliver the next slice. Called by the reactor."""
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

    def written(self) -> None:
        """Called when all delivered events are written, except for subscribers that do not read."""
        self._counters.latency.add(self._seconds() - self._came_s, self.unwritten)
        self.unwritten = 0

    def take_pending(self, recipient: Recipient) -> bool:
        """Deliver the pending events of `recipient` now; return whether there were any."""
        steps = self.pending.of(recipient)
        before, at_hand = self.is_delivering, self.at_hand
        self.is_delivering = True
        try:
            for self.at_hand, entry in steps:
                self._hand(recipient, entry)
            if not before:
                self._hand_out_undelivered()
        finally:
            self.is_delivering, self.at_hand = before, at_hand
        return bool(steps)


def _fail(recipient: Recipient, error: Exception) -> None:
    """End the subscriptions of a recipient that raised `error`."""
    for subscription in list(recipient.subscriptions):
        subscription.fail(error)
