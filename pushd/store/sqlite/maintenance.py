"""Maintenance of the store: checkpoints, removal of expired data, and the return of free pages."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any, Protocol

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from pushd.bus import LogState, Turn
from pushd.errors import Refused
from pushd.store.sqlite.health import StoreHealth
from pushd.store.sqlite.store import Store
from pushd.store.sqlite.transaction import Transaction

__all__ = ["InThread", "Maintenance"]

_log = Logger()

InThread = Callable[..., "Deferred[Any]"]
"""Calls a function in a thread, one at a time, and returns its result."""

_REMOVAL_S = 0.002
"""How long one turn collects rows to remove. Removing them takes about as long again."""


class _Journal(Protocol):
    """The part of the journal that maintenance uses."""

    health: StoreHealth
    """Whether the store accepts events."""

    def alone(self) -> AbstractAsyncContextManager[LogState]:
        """Wait until no transaction is in progress, and start none in the context."""

    async def write_alone(self, change: Transaction) -> None:
        """Write a change within `alone`; raise `Refused` if it is not written."""


@dataclass(slots=True)
class _Trouble:
    """A step that fails until the disk has room again: one log line, however often it is tried."""

    text: str
    """The log line, with ``{detail}``."""

    is_known: bool = False
    """Whether the line has been logged since the step last succeeded."""

    def note(self, failure: Refused | None) -> None:
        """Record a failure, or None for a success."""
        if failure is not None and not self.is_known:
            _log.error(self.text, detail=failure.detail)
        self.is_known = failure is not None


class Maintenance:
    """Looks after the store, between its transactions and a little in each turn of the reactor.

    ============  ===========================================================================
    state         what happens
    ============  ===========================================================================
    idle          `tend` starts a run
    running       checkpoint, removals, free pages, in this order; `tend` has no effect
    stopped       the current step ends, and no other begins
    ============  ===========================================================================
    """

    def __init__(
        self,
        journal: _Journal,
        store: Store,
        turn: Turn,
        call_later: Callable[[float, Callable[[], None]], object],
        in_thread: InThread,
        *,
        gives_back_in_thread: bool,
    ) -> None:
        """Look after `store`, which only `journal` writes to otherwise; `call_later` is the reactor's."""
        self._journal = journal
        self._store = store
        self._turn = turn
        self._call_later = call_later
        self._in_thread = in_thread
        self._give_back: InThread = in_thread if gives_back_in_thread else maybeDeferred
        self._step_bytes = store.log_bytes // 8  # checkpoint after this many bytes
        self._tend_at_bytes = 2 * self._step_bytes  # after this many, without waiting for the next `tend`
        self._is_running = self._is_stopped = False
        self._may_give_back = True  # until few pages are found to be free
        self._removal = _Trouble("what was dropped cannot be removed: {detail}")
        self._giving_back = _Trouble("what is free cannot be given back: {detail}")

    def tend(self) -> None:
        """Start a run, unless one is in progress. To be called every second."""
        if not self._is_running and not self._is_stopped:
            self._is_running = True
            Deferred.fromCoroutine(self._run()).addErrback(self._failed)

    def look_at_size(self) -> None:
        """Called after each transaction: start a run soon if the write-ahead log grows fast."""
        if self._store.unmoved_bytes > self._tend_at_bytes:
            self._tend_at_bytes = self._store.unmoved_bytes + self._step_bytes
            self._call_later(0, self.tend)

    def stop(self) -> None:
        """Begin no other step."""
        self._is_stopped = True

    async def _run(self) -> None:
        try:
            await self._try_to_write()
            if self._store.unmoved_bytes > self._step_bytes:
                await self._checkpoint()
            while not self._is_stopped and (await self._remove_some() or await self._give_some_back()):
                await self._next_turn()
        finally:
            self._is_running = False

    def _failed(self, failure: Failure) -> None:
        _log.failure("a fault in pushd while it looked after the store", failure)

    async def _try_to_write(self) -> None:
        """If publishing fails, find out whether it would work again: maybe no publisher is left to do so."""
        health = self._journal.health
        if not health.may_be_over:
            return
        async with self._journal.alone() as state:
            try:
                await self._journal.write_alone(Transaction(state, is_trial=True))
            except Refused as refused:
                health.note(refused)
            else:
                health.note(None)

    async def _checkpoint(self) -> None:
        """Checkpoint what can be while events are written, and the rest while none is."""
        await self._in_thread(self._store.checkpoint)
        async with self._journal.alone():
            if not self._is_stopped:
                await self._in_thread(self._store.turn_over)
                self._tend_at_bytes = self._store.unmoved_bytes + 2 * self._step_bytes

    async def _remove_some(self) -> bool:
        """Remove one turn's share of expired data; return whether there was any, and it is gone."""
        archive = self._store.archive
        async with self._journal.alone() as state:
            if self._is_stopped or not archive.has_to_remove:
                return False
            change = Transaction(state)
            try:
                removed = archive.removal(change, self._turn.is_over_after(_REMOVAL_S))
            except Refused as refused:
                _log.error("cannot remove what has expired: {detail}", detail=refused.detail)
                return False
            try:
                await self._journal.write_alone(change)
            except Refused as refused:
                self._removal.note(refused)
                return False
            self._removal.note(None)
            removed()
        self._may_give_back = True
        return True

    async def _give_some_back(self) -> bool:
        """Return some free pages to the file system; return whether there may be more."""
        if not self._may_give_back or self._store.archive.has_to_remove:
            return False
        async with self._journal.alone():
            if self._is_stopped:
                return False
            try:
                self._may_give_back = await self._give_back(self._store.give_back)
            except Refused as refused:
                self._giving_back.note(refused)
                return False
        self._giving_back.note(None)
        return self._may_give_back

    def _next_turn(self) -> Deferred[None]:
        turn: Deferred[None] = Deferred()
        self._call_later(0, lambda: turn.callback(None))
        return turn
