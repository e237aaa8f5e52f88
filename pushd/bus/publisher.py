"""The publisher: publish events to the bus, directly or through a store that may take some time."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import Protocol

from pushd.bus.bus import Bus, Published
from pushd.bus.clientinfo import ClientInfo
from pushd.bus.event import Draft
from pushd.errors import Refused

__all__ = ["Deleted", "DirectPublisher", "Outcome", "Publisher", "SwappablePublisher"]

Outcome = Published | Refused
"""The result of publishing an event."""

Deleted = Refused | None
"""The result of deleting a channel: None on success."""


_TURN_S, _EVENTS_PER_LOOK = 0.004, 8
"""How long events are published in one turn of the reactor, and how many events are published per clock read."""


class Publisher(Protocol):
    """Publish events, and call back once an acknowledged event cannot be lost."""

    def publish(self, draft: Draft, caller: ClientInfo, done: Callable[[Outcome], None]) -> None:
        """Publish an event of `caller`; call `done` now or later. A `Refused` means that nothing was published."""

    def publish_all(
        self, drafts: Sequence[Draft], caller: ClientInfo, done: Callable[[list[Outcome]], None]
    ) -> None:
        """Publish several events in order; call `done` now or later with one outcome per event."""

    def delete(self, name: str, caller: ClientInfo, done: Callable[[Deleted], None]) -> None:
        """Delete a channel; call `done` now or later."""


class DirectPublisher:
    """Publish to a log in memory: at once, unless back-pressure from pending deliveries delays new events."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._waiting: deque[Callable[[], None]] = deque()
        self._is_due = False

    def _wait(self, work: Callable[[], None]) -> None:
        """Queue `work` behind waiting jobs until there is room for events; run it now without `call_later`."""
        if self._bus.call_later is None:
            work()
            return
        self._waiting.append(work)
        self._go_on_later()

    def _go_on_later(self) -> None:
        if not self._is_due and self._bus.call_later is not None:
            self._is_due = True
            self._bus.call_later(0, self._go_on)

    def _go_on(self) -> None:
        """Run some of the waiting jobs, as far as there is room and time in this turn."""
        turn, delivery = self._bus.turn, self._bus.delivery
        until_s = turn.until_s(_TURN_S)
        try:
            while self._waiting and not delivery.is_full:
                self._waiting.popleft()()
                if turn.seconds() >= until_s:
                    break
        finally:
            self._is_due = False
            if self._waiting:
                self._go_on_later()

    def publish(
        self, draft: Draft, caller: ClientInfo, done: Callable[[Outcome], None], *, has_waited: bool = False
    ) -> None:
        """Publish an event and call `done`, behind waiting jobs unless the event `has_waited`."""
        delivery = self._bus.delivery
        if not has_waited and (self._waiting or delivery.crowded or (delivery.pending.events and delivery.is_full)):
            self._wait(partial(self.publish, draft, caller, done, has_waited=True))
            return
        try:
            outcome: Outcome = self._bus.publish(draft, caller.identity.grants)
        except Refused as refused:
            outcome = refused
        done(outcome)

    def publish_all(
        self, drafts: Sequence[Draft], caller: ClientInfo, done: Callable[[list[Outcome]], None]
    ) -> None:
        """Publish several events and call `done`: in this turn, unless that takes too long."""
        if self._waiting or self._bus.delivery.is_full:
            self._wait(partial(self._publish_some, drafts, caller, [], done))
        else:
            self._publish_some(drafts, caller, [], done)

    def _publish_some(
        self,
        drafts: Sequence[Draft],
        caller: ClientInfo,
        outcomes: list[Outcome],
        done: Callable[[list[Outcome]], None],
    ) -> None:
        publish, grants, delivery = self._bus.publish, caller.grants, self._bus.delivery
        call_later, seconds = self._bus.call_later, self._bus.log.seconds
        until_s = self._bus.turn.until_s(_TURN_S)
        for place, draft in enumerate(drafts):
            if place and call_later is not None:
                is_late = not place % _EVENTS_PER_LOOK and seconds() > until_s
                if is_late or delivery.crowded or (delivery.pending.events and delivery.is_full):
                    rest = partial(self._publish_some, drafts[place:], caller, outcomes, done)
                    call_later(0, partial(self._publish_rest, rest))
                    return
            try:
                outcomes.append(publish(draft, grants))
            except Refused as refused:
                outcomes.append(refused.outcome())
        done(outcomes)

    def _publish_rest(self, rest: Callable[[], None]) -> None:
        """Continue with several events once there is room."""
        if self._bus.delivery.is_full and self._bus.call_later is not None:
            self._bus.call_later(0, partial(self._publish_rest, rest))
        else:
            rest()

    def delete(self, name: str, caller: ClientInfo, done: Callable[[Deleted], None]) -> None:
        """Delete a channel and call `done`, after waiting events are published."""
        if self._waiting:
            self._wait(partial(self._delete, name, caller, done))
        else:
            self._delete(name, caller, done)

    def _delete(self, name: str, caller: ClientInfo, done: Callable[[Deleted], None]) -> None:
        outcome: Deleted = None
        try:
            self._bus.delete(name, caller.grants)
        except Refused as refused:
            outcome = refused
        done(outcome)


class SwappablePublisher:
    """The current publisher. Its methods are bound here, so a call costs no extra step."""

    __slots__ = ("delete", "publish", "publish_all")

    def __init__(self, publisher: Publisher) -> None:
        self.replace(publisher)

    def replace(self, publisher: Publisher) -> None:
        """Publish with `publisher` from now on."""
        self.publish = publisher.publish
        self.publish_all = publisher.publish_all
        self.delete = publisher.delete
