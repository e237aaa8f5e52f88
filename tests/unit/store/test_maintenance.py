"""Maintenance: what is done in which order, one step at a time, and what ends it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any, cast

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.logger import capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase

from pushd.bus.turn import Turn
from pushd.errors import NoRoom, Refused
from pushd.store.sqlite.health import StoreHealth
from pushd.store.sqlite.maintenance import Maintenance


class Journal:
    """A journal whose writes succeed unless `failure` is set, and whose transactions end when `free` is called."""

    def __init__(self, done: list[str]) -> None:
        self.health = StoreHealth(lambda: False)
        self.failure: Refused | None = None
        self.busy: Deferred[None] | None = None
        self._done = done

    @asynccontextmanager
    async def alone(self) -> AsyncIterator[Any]:
        if self.busy is not None:
            await self.busy
        yield SimpleNamespace()

    async def write_alone(self, change: Any) -> None:
        self._done.append("trial" if change.is_trial else "removal")
        if self.failure is not None:
            raise self.failure


class MaintenanceTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.done: list[str] = []
        self.removals = self.pages = 0
        self.journal = Journal(self.done)
        self.store = cast(Any, SimpleNamespace)(
            log_bytes=800,
            unmoved_bytes=0,
            checkpoint=lambda: self.done.append("checkpoint"),
            turn_over=self.turn_over,
            give_back=self.give_back,
            archive=self,
        )
        self.due: list[Callable[[], None]] = []
        self.maintenance = Maintenance(
            self.journal,
            self.store,
            Turn(lambda: 0.0),
            lambda delay_s, call: self.due.append(call),
            maybeDeferred,
            gives_back_in_thread=False,
        )

    @property
    def has_to_remove(self) -> bool:
        return self.removals > 0

    def removal(self, change: Any, is_over: Callable[[], bool]) -> Callable[[], None]:
        return self.removed

    def removed(self) -> None:
        self.removals -= 1

    def turn_over(self) -> None:
        self.done.append("turn over")
        self.store.unmoved_bytes = 0

    def give_back(self) -> bool:
        self.done.append("give back")
        self.pages -= 1
        return self.pages > 0

    def turns(self) -> int:
        """Take turns until nothing is due; return how many."""
        count = 0
        while self.due:
            count += 1
            due, self.due = self.due, []
            for call in due:
                call()
        return count

    def test_a_run_checkpoints_then_removes_then_gives_pages_back_a_step_in_each_turn(self) -> None:
        self.store.unmoved_bytes, self.removals, self.pages = 101, 2, 2
        self.maintenance.tend()
        self.assertEqual(self.done, ["checkpoint", "turn over", "removal"])
        self.assertEqual(self.turns(), 3)
        self.assertEqual(self.done[2:], ["removal", "removal", "give back", "give back"])

    def test_an_idle_store_costs_one_look_for_free_pages(self) -> None:
        for _ in range(3):
            self.maintenance.tend()
            self.turns()
        self.assertEqual(self.done, ["give back"])

    def test_a_second_run_does_not_begin_before_the_first_has_ended(self) -> None:
        self.removals, self.journal.busy = 1, Deferred()
        self.maintenance.tend()
        self.maintenance.tend()
        self.assertEqual(self.done, [])
        free, self.journal.busy = self.journal.busy, None
        free.callback(None)
        self.turns()
        self.assertEqual(self.done, ["removal", "give back"])

    def test_after_a_stop_no_other_step_begins(self) -> None:
        self.removals, self.journal.busy = 5, Deferred()
        self.maintenance.tend()
        self.maintenance.stop()
        self.journal.busy.callback(None)
        self.turns()
        self.maintenance.tend()
        self.assertEqual((self.done, self.removals), ([], 5))

    def test_a_failure_ends_the_run_and_is_logged_once_until_it_works_again(self) -> None:
        self.removals, self.journal.failure = 1, NoRoom("the disk is full")
        with capturedLogs() as events:
            for _ in range(3):
                self.maintenance.tend()
                self.turns()
        self.assertEqual(
            [formatEvent(event) for event in events], ["what was dropped cannot be removed: the disk is full"]
        )
        self.assertEqual(self.removals, 1)
        self.journal.failure = None
        self.maintenance.tend()
        self.turns()
        self.removals, self.journal.failure = 1, NoRoom("again")
        with capturedLogs() as events:
            self.maintenance.tend()
        self.assertEqual(len(events), 1)

    def test_it_finds_out_that_events_can_be_published_again(self) -> None:
        self.journal.health.note(NoRoom("the disk is full"))
        self.journal.failure = NoRoom("the disk is full")
        self.maintenance.tend()
        self.assertIsNotNone(self.journal.health.failure)
        self.journal.failure = None
        self.maintenance.tend()
        self.assertIsNone(self.journal.health.failure)
        self.assertEqual(self.done.count("trial"), 2)

    def test_a_log_that_grows_fast_is_not_left_until_the_next_second(self) -> None:
        self.store.unmoved_bytes = 201
        self.maintenance.look_at_size()
        self.maintenance.look_at_size()
        self.assertEqual(self.turns(), 1)
        self.assertEqual(self.done[:2], ["checkpoint", "turn over"])

    def test_a_fault_ends_the_run_and_no_later_one(self) -> None:
        self.removals = 1
        self.journal.write_alone = None  # type: ignore[method-assign, assignment]
        self.maintenance.tend()
        self.assertEqual(len(self.flushLoggedErrors(TypeError)), 1)
        del self.journal.write_alone
        self.maintenance.tend()
        self.turns()
        self.assertEqual(self.removals, 0)
