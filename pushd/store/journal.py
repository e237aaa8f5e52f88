"""The journal: events on their way into the store, all of one turn of the reactor in one transaction.

What is published waits for the end of the turn, is numbered, written in one transaction, put into the log, handed
to the subscribers and acknowledged, in this order. If it cannot be written, its publishers are told so, and it is
as if it had never been. One transaction is under way at a time; what comes meanwhile waits for the next.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from pushd.access import EVERYTHING, Grants
from pushd.archive import Given
from pushd.batch import Batch
from pushd.bus import Bus, published_before
from pushd.caller import Caller
from pushd.channel import Channel
from pushd.errors import Refused, Unavailable
from pushd.event import Draft, Entry
from pushd.publisher import Deleted, Outcome
from pushd.store.change import Change
from pushd.store.condition import Condition
from pushd.store.store import Store
from pushd.store.stored import StoredHistory
from pushd.subscription import Subscription

__all__ = ["InThread", "Journal"]

_log = Logger()

InThread = Callable[..., "Deferred[Any]"]
"""Calls a function in a thread, one at a time, and answers what it answers."""

_EVENTS_PER_BATCH, _TURN_S = 1000, 0.005
"""How many events are taken for one transaction, each counted in each of its channels, and about for how long."""

_UNMOVED_BYTES = 8 * 1024 * 1024
"""After how much the store moves what was written to its place."""

_Staged = tuple[list[list[Entry] | Given | Refused], Callable[[list[Outcome]], None]]
"""What is to become of events that were published together, and who is to be told."""

_Waiting = tuple[Sequence[Draft] | str | None, Grants, Callable[[Any], None]]
"""What is to be published together, the name of a channel to delete, or None for a mark; and who is told."""


class Journal:
    """A `pushd.publisher.Publisher` over a store."""

    def __init__(
        self,
        bus: Bus,
        store: Store,
        call_later: Callable[[float, Callable[[], None]], object],
        in_thread: InThread,
        *,
        writes_in_thread: bool,
    ) -> None:
        """Publish to `bus`, whose log is that of `store`; `call_later` is the reactor's.

        With `writes_in_thread`, transactions are made there as well, because they wait for the disk.
        """
        self._bus = bus
        self._store = store
        self._call_later = call_later
        self._in_thread = in_thread
        self._writes_in_thread = writes_in_thread
        self.condition = Condition(lambda: store.is_full)
        """Whether the store takes what is published."""
        self._waiting: deque[_Waiting] = deque()
        self._came_s = 0.0  # when the first of them did
        self._is_due = False
        self._is_busy = False
        self._is_tending = False
        self._cannot_remove = False
        self._cannot_give_back = False
        self._may_give_back = True  # until it is found that few pages are free
        self._is_ending = False
        self._refused: Refused | None = None
        self._when_idle: list[Deferred[None]] = []
        self._when_free: deque[Callable[[], None]] = deque()  # what waits for the transaction that is under way

    def publish(self, draft: Draft, caller: Caller, done: Callable[[Outcome], None]) -> None:
        """Publish an event at the end of this turn, and tell `done`."""
        self._wait(([draft], caller.grants, lambda outcomes: done(outcomes[0])))

    def publish_all(self, drafts: Sequence[Draft], caller: Caller, done: Callable[[list[Outcome]], None]) -> None:
        """Publish several events at the end of this turn, and tell `done`."""
        self._wait((drafts, caller.grants, done))

    def delete(self, name: str, caller: Caller, done: Callable[[Deleted], None]) -> None:
        """Delete a channel, after what was published before, and tell `done`."""
        self._wait((name, caller.grants, done))

    def _wait(self, waiting: _Waiting) -> None:
        if self._refused is not None:
            _refuse(waiting, self._refused)
            return
        if not self._waiting:
            self._came_s = self._bus.log.seconds()
        self._waiting.append(waiting)
        self._turn_later()

    def _turn_later(self) -> None:
        if not self._is_due and not self._is_busy:
            self._is_due = True
            self._call_later(0, self._turn)

    # One transaction

    def _turn(self) -> None:
        """Begin the next transaction."""
        self._is_due = False
        if self._is_busy:
            return
        if self._waiting:
            first, _, done = self._waiting[0]
            if first is None:
                self._waiting.popleft()
                _tell(done, None)
                self._go_on()
            elif isinstance(first, str):
                self._delete(*self._waiting.popleft())
            else:
                self._publish()
        elif self._when_idle:
            idle, self._when_idle = self._when_idle, []
            for each in idle:
                each.callback(None)

    def _publish(self) -> None:
        """Write what waits, up to the first that is no event."""
        self._store.archive.look(self._bus.log.sequence)
        batch = Batch(self._bus.log)
        staged: list[_Staged] = []
        waiting, count, until_s = self._waiting, 0, self._bus.log.seconds() + _TURN_S
        while waiting and max(count, batch.entries) < _EVENTS_PER_BATCH:
            drafts, grants, done = waiting[0]
            is_late = batch.entries >= 200 and self._bus.log.seconds() > until_s
            if drafts is None or isinstance(drafts, str) or is_late:
                break
            waiting.popleft()
            count += len(drafts)
            staged.append(([_add(batch, draft, grants) for draft in drafts], done))
        if not batch:
            self._published(batch, staged, None)
            self._go_on()
            return
        change = Change(replace(self._bus.log.state, sequence=batch.sequence))
        then = partial(self._published, batch, staged, came_s=self._came_s)
        try:
            change.add_batch(batch)
        except Refused:
            self._failed(change, Failure(), then)
        else:
            self._write(change, then)

    def _published(
        self,
        batch: Batch[Subscription],
        staged: list[_Staged],
        failure: Refused | None,
        *,
        came_s: float | None = None,
    ) -> None:
        """Hand out what is in the store now and came at `came_s`, or say why it is not."""
        if batch:
            self.condition.note(failure)
        if failure is None:
            batch.commit()
        else:
            batch.abandon()
        self._bus.figures.came_s = came_s
        for events, done in staged:
            _tell(done, [self._outcome(batch, event, failure) for event in events])
        self._bus.figures.came_s = None

    def _outcome(
        self, batch: Batch[Subscription], event: list[Entry] | Given | Refused, failure: Refused | None
    ) -> Outcome:
        """Hand an event out, if that is what is to become of it."""
        if isinstance(event, list):
            return self._bus.deliver(event) if failure is None else failure
        if isinstance(event, Refused):
            return event
        is_new = (event.channel, event.id) in batch.given  # it is published again in the turn that published it
        return failure if failure is not None and is_new else published_before(event)

    def _delete(self, name: Any, grants: Grants, done: Callable[[Deleted], None]) -> None:
        try:
            channel = self._bus.deletable(name, grants)
        except Refused as refused:
            _tell(done, refused)
            self._go_on()
            return
        if channel is None:  # it is only subscribed to
            self._bus.clear(name, None)
            _tell(done, None)
            self._go_on()
            return
        change = Change(self._bus.log.state)
        assert isinstance(channel.history, StoredHistory)
        if channel.history.is_in_store:
            change.clear(channel.history)
        self._write(change, partial(self._deleted, channel, done))

    def _deleted(
        self, channel: Channel[Subscription], done: Callable[[Deleted], None], failure: Refused | None
    ) -> None:
        self.condition.note(failure)
        if failure is None:
            self._bus.clear(channel.name, channel)
        _tell(done, failure)

    def _write(self, change: Change, then: Callable[[Refused | None], None]) -> None:
        """Make a change and call `then` with what prevented it, if anything did."""
        self._is_busy = True
        if self._writes_in_thread:
            written = self._in_thread(self._store.write, change)
            written.addCallbacks(
                lambda _: self._written(change, None, then), lambda failure: self._failed(change, failure, then)
            )
            return
        try:
            self._store.write(change)
        except Exception:  # noqa: BLE001  as in the thread: what waits must go on
            self._failed(change, Failure(), then)
        else:
            self._written(change, None, then)

    def _failed(self, change: Change, failure: Failure, then: Callable[[Refused | None], None]) -> None:
        refused = failure.value
        if not isinstance(refused, Refused):
            _log.failure("a fault in pushd while it wrote to the store", failure)
            refused = Unavailable("a fault in pushd; see its log")
        self._written(change, refused, then)

    def _written(self, change: Change, failure: Refused | None, then: Callable[[Refused | None], None]) -> None:
        if failure is None:
            change.written()
        try:
            then(failure)
        except Exception:  # noqa: BLE001  what waits must go on
            _log.failure("a fault in pushd after it wrote to the store")
        self._go_on()

    def _go_on(self) -> None:
        self._is_busy = False
        if self._when_free:
            self._when_free.popleft()()
        if self._waiting or self._when_idle:
            self._turn_later()

    # Looking after the store

    def tend(self) -> None:
        """Remove what nobody wants any more, and move what was written to its place. To be called every second."""
        if not self._is_busy:  # else there are events that the log does not have yet
            self._store.archive.look(self._bus.log.sequence)
            if self.condition.may_be_over and not self._is_ending:  # nobody may publish any more to find out
                self._write(Change(self._bus.log.state, is_trial=True), self.condition.note)
        if self._is_tending or self._is_ending:
            return
        self._is_tending = True
        if self._store.unmoved_bytes > _UNMOVED_BYTES:
            self._in_thread(self._store.checkpoint).addCallback(self._turn_over).addErrback(self._not_tended)
        else:
            self._remove_some()

    def _turn_over(self, is_moved: bool) -> None:
        """Move the rest, with nothing written meanwhile, and go on to what is to be removed."""
        if self._is_ending:
            return
        if self._is_busy:
            self._when_free.append(lambda: self._turn_over(is_moved))
            return
        self._is_busy = True

        def done(result: Any) -> Any:
            self._go_on()
            return result

        turned = self._in_thread(self._store.turn_over).addBoth(done)
        turned.addCallback(lambda _: self._remove_some()).addErrback(self._not_tended)

    def _not_tended(self, failure: Failure) -> None:
        self._is_tending = False
        if not isinstance(failure.value, Refused):
            _log.failure("a fault in pushd while it looked after the store", failure)
            return
        if not self._cannot_give_back:
            _log.error("what is free cannot be given back: {detail}", detail=failure.value.detail)
        self._cannot_give_back = True

    def _remove_some(self) -> None:
        """Remove as much as is good in one turn; go on in the next."""
        if self._is_ending:
            return
        if self._is_busy:
            self._when_free.append(self._remove_some)
            return
        archive = self._store.archive
        if not archive.has_to_remove:
            if self._may_give_back:
                self._give_back()
            else:
                self._is_tending = False
            return
        log = self._bus.log
        change = Change(log.state)
        try:
            removed = archive.removal(change)
        except Refused as refused:
            self._is_tending = False
            _log.error("cannot remove what has expired: {detail}", detail=refused.detail)
            return

        def then(failure: Refused | None) -> None:
            if failure is not None and not self._cannot_remove:
                _log.error("what was dropped cannot be removed: {detail}", detail=failure.detail)
            self._cannot_remove = failure is not None
            if failure is not None:
                self._is_tending = False
                return
            removed()
            self._may_give_back = True
            self._call_later(0, self._remove_some)

        self._write(change, then)

    def _give_back(self) -> None:
        """Give free pages back to the file system, some in each turn."""
        self._is_busy = True

        def gave(is_more: bool) -> None:
            self._may_give_back, self._cannot_give_back = is_more, False
            if is_more:
                self._call_later(0, self._remove_some)
            else:
                self._is_tending = False

        def done(result: Any) -> Any:
            self._go_on()
            return result

        work = self._in_thread if self._writes_in_thread else maybeDeferred
        work(self._store.give_back).addBoth(done).addCallback(gave).addErrback(self._not_tended)

    # The end

    def written(self) -> Deferred[None]:
        """Answer when everything that was published until now is acknowledged, or refused."""
        written: Deferred[None] = Deferred()
        self._wait((None, EVERYTHING, lambda _: written.callback(None)))
        return written

    def refuse(self, refused: Refused) -> None:
        """Refuse what waits, and what still comes. What is being written is not touched."""
        self._refused = refused
        waiting, self._waiting = self._waiting, deque()
        for one in waiting:
            _refuse(one, refused)

    def finish(self) -> Deferred[None]:
        """Look after the store no more, and answer when everything that was published is written."""
        self._is_ending = True
        finished: Deferred[None] = Deferred()
        self._when_idle.append(finished)
        self._turn_later()
        return finished


def _refuse(waiting: _Waiting, refused: Refused) -> None:
    what, _, done = waiting
    _tell(done, refused if what is None or isinstance(what, str) else [refused] * len(what))


def _tell(done: Callable[[Any], None], outcome: object) -> None:
    try:
        done(outcome)
    except Exception:  # noqa: BLE001  the others are to be told all the same
        _log.failure("a fault in pushd while it answered a publisher")


def _add(batch: Batch[Subscription], draft: Draft, grants: Grants) -> list[Entry] | Given | Refused:
    """Put an event into a batch; answer its entries, or what prevents that."""
    try:
        for name in draft.channels:
            grants.check_publish(name)
        return batch.add(draft)
    except Refused as refused:
        return refused
