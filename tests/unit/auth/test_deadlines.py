"""Timeouts of webhooks: expired requests are cancelled in order, a few at a time."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from pushd.auth.deadlines import Deadlines
from pushd.bus.slices import END_COST, MOST


class DeadlineTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.deadlines = Deadlines(self.clock, 2)
        self.cancelled: list[int] = []

    def begin(self, number: int) -> Deferred[Any]:
        """Add a request to the deadlines; return its Deferred."""
        waiting: Deferred[Any] = Deferred()
        self.deadlines.add(waiting)

        def end(failure: Any) -> None:
            failure.trap(CancelledError)
            self.assertFalse(self.deadlines.done(waiting))
            self.cancelled.append(number)

        waiting.addErrback(end)
        return waiting

    def test_of_a_thousand_that_end_at_once_few_are_cancelled_in_a_turn(self) -> None:
        for number in range(1000):
            self.begin(number)
        self.assertEqual(len(self.clock.getDelayedCalls()), 1)
        self.clock.advance(1.9)
        self.assertEqual(self.cancelled, [])
        self.clock.advance(0.1)
        while len(self.cancelled) < 1000:
            before = len(self.cancelled)
            self.clock.advance(0)
            self.assertEqual(len(self.cancelled) - before, MOST // END_COST)
        self.assertEqual(self.cancelled, list(range(1000)))
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_each_has_its_own_time(self) -> None:
        for number in range(3):
            self.begin(number)
            self.clock.advance(0.5)
        for cancelled in ([0], [0, 1], [0, 1, 2]):
            self.clock.advance(0.5)
            self.assertEqual(self.cancelled, cancelled)

    def test_a_request_that_is_done_leaves_the_others_their_time(self) -> None:
        first, _ = self.begin(1), self.begin(2)
        self.assertTrue(self.deadlines.done(first))
        self.clock.advance(2)
        self.assertEqual(self.cancelled, [2])

    def test_who_is_done_in_time_leaves_nothing_behind(self) -> None:
        first, second = self.begin(1), self.begin(2)
        self.assertTrue(self.deadlines.done(first))
        self.assertFalse(self.deadlines.done(first))
        self.assertTrue(self.deadlines.done(second))
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.clock.advance(5)
        self.assertEqual(self.cancelled, [])
