"""The publisher: the way into the bus, which may lead through a store and so take a while."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Protocol

from pushd.bus import Bus, Published
from pushd.caller import Caller
from pushd.errors import Refused
from pushd.event import Draft

__all__ = ["Deleted", "Direct", "Outcome", "Publisher", "Replaceable"]

Outcome = Published | Refused
"""What becomes of an event that was to be published."""

Deleted = Refused | None
"""What becomes of a channel that was to be deleted: None if it was."""


_TURN_S, _EVENTS_PER_LOOK = 0.004, 8
"""How long events are published in one turn of the reactor, and after how many the clock is read."""


class Publisher(Protocol):
    """Publishes, and says so when nothing acknowledged can be lost any more."""

    def publish(self, draft: Draft, caller: Caller, done: Callable[[Outcome], None]) -> None:
        """Publish an event of `caller` and tell `done`, now or later. Nothing was done if that is a `Refused`."""

    def publish_all(self, drafts: Sequence[Draft], caller: Caller, done: Callable[[list[Outcome]], None]) -> None:
        """Publish several events, in order, and tell `done` what became of each, now or later."""

    def delete(self, name: str, caller: Caller, done: Callable[[Deleted], None]) -> None:
        """Delete a channel and tell `done`, now or later."""


class Direct:
    """Publishes into a log that is only in memory."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus

    def publish(self, draft: Draft, caller: Caller, done: Callable[[Outcome], None]) -> None:
        """Publish an event and tell `done`, now."""
        try:
            outcome: Outcome = self._bus.publish(draft, caller.identity.grants)
        except Refused as refused:
            outcome = refused
        done(outcome)

    def publish_all(self, drafts: Sequence[Draft], caller: Caller, done: Callable[[list[Outcome]], None]) -> None:
        """Publish several events and tell `done`: now, unless that takes too long."""
        self._publish_some(drafts, caller, [], done)

    def _publish_some(
        self,
        drafts: Sequence[Draft],
        caller: Caller,
        outcomes: list[Outcome],
        done: Callable[[list[Outcome]], None],
    ) -> None:
        publish, grants = self._bus.publish, caller.grants
        call_later, seconds = self._bus.call_later, self._bus.log.seconds
        until_s = self._bus.turn.until_s(_TURN_S)
        for place, draft in enumerate(drafts):
            if not place % _EVENTS_PER_LOOK and place and call_later is not None and seconds() > until_s:
                call_later(0, partial(self._publish_some, drafts[place:], caller, outcomes, done))
                return
            try:
                outcomes.append(publish(draft, grants))
            except Refused as refused:
                outcomes.append(refused.outcome())
        done(outcomes)

    def delete(self, name: str, caller: Caller, done: Callable[[Deleted], None]) -> None:
        """Delete a channel and tell `done`, now."""
        outcome: Deleted = None
        try:
            self._bus.delete(name, caller.grants)
        except Refused as refused:
            outcome = refused
        done(outcome)


class Replaceable:
    """The publisher that clients have at the moment: whatever it is, to call it takes no step more."""

    __slots__ = ("delete", "publish", "publish_all")

    def __init__(self, publisher: Publisher) -> None:
        self.replace(publisher)

    def replace(self, publisher: Publisher) -> None:
        """Publish with `publisher` from now on."""
        self.publish = publisher.publish
        self.publish_all = publisher.publish_all
        self.delete = publisher.delete
