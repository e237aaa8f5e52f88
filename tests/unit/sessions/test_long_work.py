"""Long work a few steps at a time: all together takes one budget of each turn, and each is done."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from pushd.bus.turn import Turn
from pushd.bus.work import NotInMemory, Work
from pushd.errors import NotFound, Unavailable
from pushd.sessions.long_work import LongWork, unless_done


class StepsTests(SynchronousTestCase):
    """A step takes a tenth of a millisecond on a clock in hand."""

    def setUp(self) -> None:
        self.due: list[Callable[[], None]] = []
        self.spent_s = 0.0
        self.clock = Turn(lambda: self.spent_s)
        self.steps = LongWork(lambda delay_s, call: self.due.append(call), self.clock, budget_s=0.004)

    def work(self, steps: int, result: Any = None) -> Work[Any]:
        for _ in range(steps):
            self.spent_s += 0.0001
            yield None
        return result

    def turn(self) -> float:
        """Take a turn of the reactor; return how long it was."""
        before, due, self.due = self.spent_s, self.due, []
        for call in due:
            call()
        return self.spent_s - before

    def turns(self) -> Iterator[float]:
        """Take turns until nothing is left to do; return how long each was."""
        while self.due:
            yield self.turn()

    def test_what_is_short_is_done_at_once(self) -> None:
        self.assertEqual(self.successResultOf(self.steps.run(self.work(5, "done"))), "done")
        self.assertEqual(self.due, [])

    def test_however_many_there_are_a_turn_takes_no_longer_than_one_budget(self) -> None:
        before = self.spent_s
        done = [self.steps.run(self.work(500, number)) for number in range(20)]
        self.assertLess(self.spent_s - before, 0.006)
        turns = list(self.turns())
        self.assertLess(max(turns), 0.006)
        self.assertLess(len(turns), 350)
        self.assertEqual([self.successResultOf(each) for each in done], list(range(20)))
        self.assertEqual(len(self.steps), 0)

    def test_after_a_slow_step_nothing_more_is_done_in_the_turn(self) -> None:
        def reading() -> Work[None]:
            for _ in range(20):
                self.spent_s += 0.003  # a block of events from the disk
                yield None

        self.steps.run(reading())
        self.assertLess(max(self.turns()), 0.0065)

    def test_an_owner_with_many_works_delays_another_one_by_one_work(self) -> None:
        group = [self.steps.run(self.work(1000), owner="mallory") for _ in range(230)]
        one = self.steps.run(self.work(100, "done"), owner="ada")
        for _ in range(20):
            self.turn()
        self.assertEqual(self.successResultOf(one), "done")
        list(self.turns())
        for each in group:
            self.successResultOf(each)
        self.assertEqual(len(self.steps), 0)

    def test_what_begins_another_when_it_is_done_loses_nothing(self) -> None:
        again: list[Any] = []
        for _ in range(3):
            first = self.steps.run(self.work(100), owner="ada")
            first.addCallback(lambda _: again.append(self.steps.run(self.work(100, "done"), owner="ada")))
        list(self.turns())
        self.assertEqual([self.successResultOf(each) for each in again], ["done"] * 3)

    def test_many_short_ones_in_one_turn_take_no_longer_than_two_budgets(self) -> None:
        before = self.spent_s
        for _ in range(500):
            self.steps.run(self.work(10))
        self.assertLess(self.spent_s - before, 0.01)
        list(self.turns())
        self.assertEqual(len(self.steps), 0)

    def test_a_short_one_does_not_wait_for_a_long_one(self) -> None:
        self.steps.run(self.work(100_000))
        short = self.steps.run(self.work(5, "done"))
        for _ in range(2):
            self.turn()
        self.assertEqual(self.successResultOf(short), "done")

    def test_what_fails_says_why_and_the_others_go_on(self) -> None:
        def failing() -> Work[None]:
            yield from self.work(200)
            raise NotFound("not there")

        done = [self.steps.run(failing()), self.steps.run(self.work(200, 1))]
        list(self.turns())
        self.failureResultOf(done[0], NotFound)
        self.assertEqual(self.successResultOf(done[1]), 1)

    def test_nothing_more_is_done_for_a_client_that_has_gone(self) -> None:
        gone: list[bool] = []
        done = self.steps.run(self.work(100_000), lambda: bool(gone))
        self.turn()
        gone.append(True)
        self.turn()
        self.failureResultOf(done, Unavailable)
        self.assertEqual((len(self.steps), self.due), (0, []))

    def test_what_is_done_at_once_needs_no_waiting(self) -> None:
        def nothing(steps: int, error: Exception | None = None) -> Work[None]:
            yield from self.work(steps)
            if error is not None:
                raise error

        self.assertIsNone(unless_done(self.steps.run(nothing(5))))
        self.assertRaises(NotFound, lambda: unless_done(self.steps.run(nothing(5, NotFound("no")))))
        later = unless_done(self.steps.run(nothing(500)))
        failing = unless_done(self.steps.run(nothing(500, NotFound("no"))))
        assert later is not None
        assert failing is not None
        list(self.turns())
        self.assertIsNone(self.successResultOf(later))
        self.failureResultOf(failing, NotFound)


class FetchTests(SynchronousTestCase):
    """Works that wait for entries: they take no turns meanwhile."""

    def setUp(self) -> None:
        self.due: list[Callable[[], None]] = []
        self.spent_s = 0.0
        self.turn = Turn(lambda: self.spent_s)
        self.steps = LongWork(lambda delay_s, call: self.due.append(call), self.turn)
        self.fetches: list[tuple[str | None, Callable[[], bool], Callable[[Unavailable | None], None]]] = []

    def waiting(self, steps: int = 1) -> Work[str]:
        for _ in range(steps):
            yield NotInMemory("a", False, lambda: None, lambda *fetch: self.fetches.append(fetch))
        return "done"

    def test_a_work_waits_without_turns_and_goes_on_at_once_when_its_entries_are_here(self) -> None:
        done = self.steps.run(self.waiting(2), owner="ada")
        self.assertEqual(([owner for owner, _, _ in self.fetches], self.due, len(self.steps)), (["ada"], [], 1))
        self.fetches.pop()[2](None)
        self.assertNoResult(done)
        self.fetches.pop()[2](None)
        self.assertEqual((self.successResultOf(done), self.due, len(self.steps)), ("done", [], 0))

    def test_in_a_turn_that_is_over_it_waits_for_the_next(self) -> None:
        done = self.steps.run(self.waiting())
        self.turn.end_s = self.spent_s
        self.fetches.pop()[2](None)
        self.assertNoResult(done)
        self.turn.end_s = float("inf")
        self.due.pop()()
        self.assertEqual(self.successResultOf(done), "done")

    def test_others_take_their_turns_meanwhile(self) -> None:
        def busy() -> Work[str]:
            for _ in range(100):
                self.spent_s += 0.001
                yield None
            return "busy"

        first, second = self.steps.run(self.waiting()), self.steps.run(busy())
        while self.due:
            self.due.pop()()
        self.assertEqual(self.successResultOf(second), "busy")
        self.assertNoResult(first)
        self.fetches.pop()[2](None)
        self.assertEqual(self.successResultOf(first), "done")

    def test_the_error_of_a_fetch_is_raised_in_the_work(self) -> None:
        caught: list[Unavailable] = []

        def careful() -> Work[str]:
            try:
                return (yield from self.waiting())
            except Unavailable as error:
                caught.append(error)
                return (yield from self.waiting())

        done, error = self.steps.run(careful()), Unavailable("unreadable")
        self.fetches.pop()[2](error)
        self.assertEqual(caught, [error])
        self.fetches.pop()[2](error)
        self.assertIs(self.failureResultOf(done, Unavailable).value, error)

    def test_a_work_whose_client_left_ends_when_the_fetch_does(self) -> None:
        gone: list[bool] = []
        closed: list[bool] = []

        def careful() -> Work[str]:
            try:
                return (yield from self.waiting())
            except GeneratorExit:
                closed.append(True)
                raise

        done = self.steps.run(careful(), lambda: bool(gone))
        gone.append(True)
        self.assertTrue(self.fetches[0][1]())
        self.fetches.pop()[2](None)
        self.failureResultOf(done, Unavailable)
        self.assertEqual((closed, len(self.steps)), ([True], 0))
