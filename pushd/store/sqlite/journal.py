"""The journal: writes events to the store, all events of one reactor turn in one transaction.

Events wait for the end of the turn, are numbered, written in one transaction, appended to the log, delivered to the
subscribers and acknowledged, in this order. If the write fails, the publishers get the error and the events are
discarded. One transaction is in progress at a time; later events wait for the next.
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from typing import Any

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from pushd.bus import (
    Batch,
    Bus,
    Channel,
    ClientInfo,
    Deleted,
    Draft,
    FairQueue,
    Grants,
    LogState,
    Outcome,
    Subscription,
    owner_of,
    published_before,
)
from pushd.errors import Refused, Unavailable
from pushd.store.sqlite.health import StoreHealth
from pushd.store.sqlite.history import SqliteHistory
from pushd.store.sqlite.maintenance import Maintenance
from pushd.store.sqlite.staging import stage
from pushd.store.sqlite.store import Store
from pushd.store.sqlite.submission import Limit, Staged, Submission, Task
from pushd.store.sqlite.transaction import Transaction

__all__ = ["InThread", "SqlitePublisher"]

_log = Logger()

InThread = Callable[..., "Deferred[Any]"]
"""Calls a function in a thread, one at a time, and returns its result."""

_EVENTS_PER_BATCH, _TURN_S = 250, 0.002
"""The most events in one transaction, counted once per channel, and about how long it is filled, in seconds.
Writing, keeping, delivering and acknowledging them takes twice as long, in the same turn of the reactor."""

_TURN_IN_THREAD_S = 0.004
"""How long it is filled if transactions run in the thread: waiting for the disk is worth a larger batch."""

_BYTES_PER_BATCH, _SENDS_PER_BATCH = 512 * 1024, 1000
"""The most data in one transaction, unless a single event is larger, and the most sends of its events."""

_BYTES_IN_TURN = 1280 * 1024
"""The most bytes written in the reactor's thread. More takes over 2 ms and is written in the other thread."""


class SqlitePublisher:
    """A `pushd.bus.publisher.Publisher` that writes to a store."""

    def __init__(
        self,
        bus: Bus,
        store: Store,
        call_later: Callable[[float, Callable[[], None]], object],
        in_thread: InThread,
        *,
        writes_in_thread: bool,
    ) -> None:
        """Publish to `bus`, whose log is in `store`; `call_later` is the reactor's.

        With `writes_in_thread`, transactions run in the thread, too, because they wait for the disk.
        """
        self._bus = bus
        self._store = store
        self._call_later = call_later
        self._in_thread = in_thread
        self._writes_in_thread = writes_in_thread
        self.health = StoreHealth(lambda: store.is_full)
        """Whether the store accepts events."""
        self._waiting: FairQueue[Submission | Task] = FairQueue()
        self._came_s = 0.0  # when the first waiting submission arrived
        self._is_due = self._is_busy = False
        self._refused: Refused | None = None
        self._when_idle: list[Deferred[None]] = []
        self._when_free: deque[Deferred[None]] = deque()  # maintenance that waits for the current transaction
        self._maintenance = Maintenance(
            self, store, bus.turn, call_later, in_thread, gives_back_in_thread=writes_in_thread
        )

    def publish(self, draft: Draft, caller: ClientInfo, done: Callable[[Outcome], None]) -> None:
        """Publish an event at the end of this turn; call `done` with its outcome."""
        self._wait(Submission((draft,), caller.grants, lambda outcomes: done(outcomes[0])), owner_of(caller))

    def publish_all(
        self, drafts: Sequence[Draft], caller: ClientInfo, done: Callable[[list[Outcome]], None]
    ) -> None:
        """Publish several events at the end of this turn; call `done` with their outcomes, in order."""
        self._wait(Submission(drafts, caller.grants, done), owner_of(caller))

    def delete(self, name: str, caller: ClientInfo, done: Callable[[Deleted], None]) -> None:
        """Delete a channel, after earlier submissions of the same owner; call `done` with the outcome."""
        self._wait(Task(partial(self._delete, name, caller.grants), done), owner_of(caller))

    def _wait(self, submission: Submission | Task, owner: str | None = None, *, is_mark: bool = False) -> None:
        if self._refused is not None:
            submission.refuse(self._refused)
            return
        if not self._waiting:
            self._came_s = self._bus.log.seconds()
        self._waiting.add(owner, submission, is_mark=is_mark)
        self._turn_later()

    def _turn_later(self) -> None:
        if not self._is_due and not self._is_busy:
            self._is_due = True
            self._call_later(0, self._turn)

    # One transaction

    def _turn(self) -> None:
        """Start the next transaction."""
        self._is_due = False
        if self._is_busy:
            return
        if self._waiting:
            first = self._waiting.first
            if isinstance(first, Task):
                if not self._waiting.pop():
                    self._waiting.next_owner()
                first.run(first)
            elif self._bus.delivery.is_full:
                self._turn_later()  # deliver earlier events first, some in each turn
            else:
                self._publish()
        elif self._when_idle:
            idle, self._when_idle = self._when_idle, []
            for each in idle:
                each.callback(None)

    def _publish(self) -> None:
        """Write some waiting events of each owner, up to the first submission without events."""
        self._store.archive.look(self._bus.log.sequence)
        batch, limit = Batch(self._bus.log), self._limit()
        staged = stage(self._waiting, batch, limit)
        if not batch:
            self._published(batch, staged, None)
            self._go_on()
            return
        change = Transaction(replace(self._bus.log.state, sequence=batch.sequence))
        then = partial(self._published, batch, staged, came_s=self._came_s)
        try:
            change.add_batch(batch)
        except Refused:
            self._failed(change, Failure(), then)
        else:
            self._write(change, then)

    def _limit(self) -> Limit:
        """Return the limit of the next transaction."""
        return Limit(
            self._bus.turn.is_over_after(_TURN_IN_THREAD_S if self._writes_in_thread else _TURN_S),
            self._bus.sends_of,
            entries=_EVENTS_PER_BATCH,
            size_bytes=_BYTES_PER_BATCH,
            sends=_SENDS_PER_BATCH,
        )

    def _published(
        self,
        batch: Batch[Subscription],
        staged: list[tuple[Submission, list[Staged]]],
        failure: Refused | None,
        *,
        came_s: float | None = None,
    ) -> None:
        """Deliver the stored events, which arrived at `came_s`, or report the `failure` to their publishers."""
        if batch:
            self.health.note(failure)
        if failure is None:
            batch.commit()
        else:
            batch.abandon()
        for submission, events in staged:
            submission.note([self._outcome(batch, event, failure, came_s) for event in events])

    def _outcome(
        self, batch: Batch[Subscription], event: Staged, failure: Refused | None, came_s: float | None
    ) -> Outcome:
        """Deliver an event if it is new and stored; return its outcome."""
        if isinstance(event, list):
            return self._bus.deliver(event, came_s) if failure is None else failure
        if isinstance(event, Refused):
            return event
        is_new = (event.channel, event.id) in batch.given  # first published in this batch
        return failure if failure is not None and is_new else published_before(event)

    def _delete(self, name: str, grants: Grants, task: Task) -> None:
        try:
            channel = self._bus.deletable(name, grants)
        except Refused as refused:
            self._done(task, refused)
            return
        if channel is None:  # the channel has subscribers only
            self._bus.clear(name, None)
            self._done(task, None)
            return
        change = Transaction(self._bus.log.state)
        assert isinstance(channel.history, SqliteHistory)
        if channel.history.is_in_store:
            change.clear(channel.history)
        self._write(change, partial(self._deleted, channel, task))

    def _deleted(self, channel: Channel[Subscription], task: Task, failure: Refused | None) -> None:
        self.health.note(failure)
        if failure is None:
            self._bus.clear(channel.name, channel)
        task.tell(failure)

    def _done(self, task: Task, failure: Refused | None) -> None:
        task.tell(failure)
        self._go_on()

    def _write(self, change: Transaction, then: Callable[[Refused | None], None]) -> None:
        """Write a change and call `then` with the failure, or None."""
        self._is_busy = True
        if self._writes_in_thread or change.data_bytes > _BYTES_IN_TURN:
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

    def _failed(self, change: Transaction, failure: Failure, then: Callable[[Refused | None], None]) -> None:
        self._written(change, _refused(failure), then)

    def _written(
        self, change: Transaction, failure: Refused | None, then: Callable[[Refused | None], None]
    ) -> None:
        if failure is None:
            change.written()
            self._maintenance.look_at_size()
        try:
            then(failure)
        except Exception:  # noqa: BLE001  what waits must go on
            _log.failure("a fault in pushd after it wrote to the store")
        self._go_on()

    def _go_on(self) -> None:
        self._is_busy = False
        if self._when_free:
            self._when_free.popleft().callback(None)
        if self._waiting or self._when_idle:
            self._turn_later()

    # Maintenance

    def tend(self) -> None:
        """Remove expired data and checkpoint the store. To be called every second."""
        if not self._is_busy:  # else the log lacks the events being written
            self._store.archive.look(self._bus.log.sequence)
        self._maintenance.tend()

    @asynccontextmanager
    async def alone(self) -> AsyncIterator[LogState]:
        """Wait until no transaction is in progress, and start none in the context; return the state of the log."""
        if self._is_busy:
            free: Deferred[None] = Deferred()
            self._when_free.append(free)
            await free
        self._is_busy = True
        try:
            yield self._bus.log.state
        finally:
            self._go_on()

    async def write_alone(self, change: Transaction) -> None:
        """Write a change within `alone`; raise `Refused` if it is not written."""
        try:
            if self._writes_in_thread:
                await self._in_thread(self._store.write, change)
            else:
                self._store.write(change)
        except Exception:  # noqa: BLE001  what waits must go on
            raise _refused(Failure()) from None
        change.written()

    # Shutdown

    def when_published(self, done: Callable[[], None]) -> None:
        """Call `done` once all events published so far are acknowledged or refused."""
        self._wait(Task(partial(self._done, failure=None), lambda _: done()), is_mark=True)

    def refuse(self, refused: Refused) -> None:
        """Refuse waiting and future submissions; the current transaction continues."""
        self._refused = refused
        for one in self._waiting.clear():
            one.refuse(refused)

    def finish(self) -> Deferred[None]:
        """Stop maintenance; return a Deferred that fires once all published events are written."""
        self._maintenance.stop()
        finished: Deferred[None] = Deferred()
        self._when_idle.append(finished)
        self._turn_later()
        return finished


def _refused(failure: Failure) -> Refused:
    """Return why a transaction was not written; log a fault in pushd."""
    if isinstance(failure.value, Refused):
        return failure.value
    _log.failure("a fault in pushd while it wrote to the store", failure)
    return Unavailable("a fault in pushd; see its log")
