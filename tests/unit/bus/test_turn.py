"""The turn of the reactor: all budgets share its deadline."""

from __future__ import annotations

from collections.abc import Callable

from twisted.trial.unittest import SynchronousTestCase

from pushd.bus.slices import Slice, Slices
from pushd.bus.turn import LEAST_S, LIMIT_S, Turn
from pushd.bus.work import Work
from pushd.server.net.turns import Turns
from pushd.sessions.long_work import LongWork

COST_S = 0.0001
"""The duration of one piece of work."""


class TurnTests(SynchronousTestCase):
    """Budgets, with the clock of the test."""

    def setUp(self) -> None:
        self.now = 1000.0
        self.turn = Turn(lambda: self.now)
        self.due: list[Callable[[], None]] = []

    def later(self, delay_s: float, call: Callable[[], None]) -> None:
        """Schedule a call in the next turn."""
        self.due.append(call)

    def work(self) -> int:
        """Do one piece of work; return its cost."""
        self.now += COST_S
        return 1

    def steps(self) -> Work[None]:
        """Do endless work in steps."""
        while True:
            self.work()
            yield None

    def test_without_a_beginning_there_is_no_end(self) -> None:
        self.assertEqual(self.turn.until_s(0.004), 1000.004)
        self.now += 1
        self.assertEqual(self.turn.until_s(0.004), 1001.004)

    def test_a_budget_ends_with_the_turn_but_there_is_a_little_always(self) -> None:
        self.turn.begin(self.now)
        self.assertEqual(self.turn.end_s, self.now + LIMIT_S)
        self.assertEqual(self.turn.until_s(0.004), 1000.004)
        self.now += LIMIT_S - 0.001
        self.assertAlmostEqual(self.turn.until_s(0.004), 1000.0 + LIMIT_S)
        self.now += 1
        self.assertAlmostEqual(self.turn.until_s(0.004), self.now + LEAST_S)
        self.turn.begin(self.now)
        self.assertAlmostEqual(self.turn.until_s(0.004), self.now + 0.004)

    def kinds(self) -> dict[str, Callable[[], None]]:
        """Return a function that starts endless work, for each kind of budgeted work."""
        steps, slices = LongWork(self.later, self.turn), Slices(self.later, self.turn)
        turns = Turns(self.later, self.turn)

        def requests() -> None:
            turns.begin()
            while self.work() and turns.may_go_on():
                pass
            turns.later(requests, self.fail)

        def sends() -> None:
            part = Slice(self.turn)
            while part.spend(self.work()):
                pass
            self.later(0, sends)

        return {
            "steps": lambda: self.run_in(steps),
            "slices": lambda: slices.do(iter(lambda: self.work, None)),
            "requests": requests,
            "sends": sends,
        }

    def run_in(self, steps: LongWork) -> None:
        """Begin a work that has no end."""
        steps.run(self.steps())

    def test_all_kinds_of_work_together_take_no_longer_than_a_turn_and_each_goes_on(self) -> None:
        kinds = self.kinds()
        self.turn.begin(self.now)
        for begin in (*kinds.values(), *kinds.values()):
            begin()
        for _ in range(50):
            began_s, due, self.due = self.now, self.due, []
            self.turn.begin(self.now)
            self.now += 0.005  # sockets
            for call in due:
                before_s = self.now
                call()
                self.assertGreater(self.now, before_s)
                self.assertLess(self.now - before_s, 0.006)
            self.assertLess(self.now - began_s, LIMIT_S + len(due) * (LEAST_S + 25 * COST_S))
            self.assertGreaterEqual(len(due), 4)

    def test_requests_of_one_connection_after_the_other_share_it(self) -> None:
        turns = Turns(self.later, self.turn)
        self.turn.begin(self.now)
        for _ in range(20):
            turns.begin()
            while self.work() and turns.may_go_on():
                pass
            turns.later(lambda: None, self.fail)
        self.assertLess(self.now - 1000.0, LIMIT_S + 20 * (LEAST_S + COST_S))
