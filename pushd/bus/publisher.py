"""The publisher: publish events to the bus, directly or through a store that may take some time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Protocol

from pushd.bus.bus import Bus, Published
from pushd.bus.clientinfo import ClientInfo, owner_of
from pushd.bus.event import Draft
from pushd.bus.fair_queue import FairQueue
from pushd.bus.memory_headroom import memory
from pushd.bus.work import Work, drain
from pushd.errors import OutOfMemory, Refused

__all__ = ["Deleted", "DirectPublisher", "Outcome", "Publisher", "SwappablePublisher"]

Outcome = Published | Refused
"""The result of publishing an event."""

Deleted = Refused | None
"""The result of deleting a channel: None on success."""


_TURN_S, _EVENTS_PER_LOOK = 0.004, 8
"""How long events are published in one turn of the reactor, and how many events are published per clock read."""

_END = object()


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
    """Publish to a log in memory: at once, unless back-pressure from pending deliveries delays new events.

    Waiting jobs are generators: each step publishes one event or deletes one channel, and ends the owner's turn.
    """

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._waiting: FairQueue[Work[None]] = FairQueue()
        self._is_due = False

    def _wait(self, work: Work[None], owner: str | None, *, is_mark: bool = False) -> None:
        """Queue `work` until there is room for events; do it now without `call_later`."""
        if self._bus.call_later is None:
            drain(work)
            return
        self._waiting.add(owner, work, is_mark=is_mark)
        self._go_on_later()

    def _go_on_later(self) -> None:
        if not self._is_due and self._bus.call_later is not None:
            self._is_due = True
            self._bus.call_later(0, self._go_on)

    def _go_on(self) -> None:
        """Do some steps of the waiting jobs, as far as there is room and time in this turn."""
        turn, delivery = self._bus.turn, self._bus.delivery
        until_s = turn.until_s(_TURN_S)
        try:
            while self._waiting and not delivery.is_full:
                self._step()
                if turn.seconds() >= until_s:
                    break
        finally:
            self._is_due = False
            if self._waiting:
                self._go_on_later()

    def _step(self) -> None:
        """Do one step of the job whose turn it is, and end the turn of its owner."""
        is_done = True
        try:
            is_done = next(self._waiting.first, _END) is _END
        finally:
            if not (is_done and self._waiting.pop()):
                self._waiting.next_owner()

    def publish(self, draft: Draft, caller: ClientInfo, done: Callable[[Outcome], None]) -> None:
        """Publish an event and call `done`, behind waiting jobs."""
        delivery = self._bus.delivery
        if self._waiting or delivery.crowded or (delivery.pending.events and delivery.is_full):
            work = self._publishing((draft,), caller, lambda outcomes: done(outcomes[0]))
            self._wait(work, owner_of(caller))
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
        work, delivery = self._publishing(drafts, caller, done), self._bus.delivery
        if not self._waiting and not delivery.is_full:
            until_s = self._bus.turn.until_s(_TURN_S)
            for count, _ in enumerate(work, 1):
                if delivery.crowded or (delivery.pending.events and delivery.is_full):
                    break
                if not count % _EVENTS_PER_LOOK and self._bus.turn.seconds() >= until_s:
                    break
            else:
                return
        self._wait(work, owner_of(caller))

    def _publishing(
        self, drafts: Sequence[Draft], caller: ClientInfo, done: Callable[[list[Outcome]], None]
    ) -> Work[None]:
        publish, grants = self._bus.publish, caller.grants
        outcomes: list[Outcome] = []
        for draft in drafts:
            if outcomes:
                yield None
            try:
                outcomes.append(publish(draft, grants))
            except Refused as refused:
                outcomes.append(refused.outcome())
            except MemoryError:
                memory.missed()
                outcomes.append(OutOfMemory())
        done(outcomes)

    def delete(self, name: str, caller: ClientInfo, done: Callable[[Deleted], None]) -> None:
        """Delete a channel and call `done`, after the waiting events of its owner are published."""
        if self._waiting:
            self._wait(_later(partial(self._delete, name, caller, done)), owner_of(caller))
        else:
            self._delete(name, caller, done)

    def _delete(self, name: str, caller: ClientInfo, done: Callable[[Deleted], None]) -> None:
        outcome: Deleted = None
        try:
            self._bus.delete(name, caller.grants)
        except Refused as refused:
            outcome = refused
        done(outcome)

    def when_published(self, done: Callable[[], None]) -> None:
        """Call `done` once all waiting jobs are done."""
        if self._waiting:
            self._wait(_later(done), None, is_mark=True)
        else:
            done()


def _later(call: Callable[[], None]) -> Work[None]:
    """Return the work of making one `call`, in its first step."""
    call()
    yield None


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
