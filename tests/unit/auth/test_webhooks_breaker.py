"""The circuit breaker: when questions are let through."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from pushd.auth.webhooks.breaker import Breaker


class BreakerTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.breaker = Breaker(3, 5, self.clock.seconds)

    def ask(self) -> int:
        permit = self.breaker.permit()
        assert permit is not None
        return permit

    def fail_so_often(self, times: int) -> list[bool]:
        return [self.breaker.failed(self.ask()) for _ in range(times)]

    def test_it_opens_after_so_many_failures_in_a_row_and_says_so_once(self) -> None:
        self.assertEqual(self.fail_so_often(3), [False, False, True])
        self.assertTrue(self.breaker.is_open)
        self.assertIsNone(self.breaker.permit())

    def test_a_success_between_them_begins_the_row_again(self) -> None:
        self.fail_so_often(2)
        self.assertFalse(self.breaker.succeeded(self.ask()))
        self.assertEqual(self.fail_so_often(2), [False, False])
        self.assertFalse(self.breaker.is_open)

    def test_after_the_pause_one_question_is_let_through(self) -> None:
        self.fail_so_often(3)
        self.clock.advance(4.9)
        self.assertIsNone(self.breaker.permit())
        self.assertAlmostEqual(self.breaker.rest_s, 0.1)
        self.clock.advance(0.1)
        self.ask()
        self.assertIsNone(self.breaker.permit())
        self.assertEqual(self.breaker.rest_s, 0)

    def test_its_success_closes_the_breaker(self) -> None:
        self.fail_so_often(3)
        self.clock.advance(5)
        self.assertTrue(self.breaker.succeeded(self.ask()))
        self.assertFalse(self.breaker.is_open)
        self.assertEqual(self.fail_so_often(3), [False, False, True])

    def test_its_failure_opens_it_for_as_long_again(self) -> None:
        self.fail_so_often(3)
        self.clock.advance(5)
        self.assertFalse(self.breaker.failed(self.ask()))
        self.assertEqual(self.breaker.rest_s, 5)
        self.assertIsNone(self.breaker.permit())
        self.clock.advance(5)
        self.assertTrue(self.breaker.succeeded(self.ask()))

    def test_if_nobody_waits_for_its_answer_another_one_is_let_through(self) -> None:
        self.fail_so_often(3)
        self.clock.advance(5)
        self.breaker.abandoned(self.ask())
        self.assertTrue(self.breaker.succeeded(self.ask()))

    def test_what_comes_of_questions_from_before_it_opened_does_not_count(self) -> None:
        early = [self.ask() for _ in range(3)]
        self.fail_so_often(3)
        self.assertFalse(self.breaker.succeeded(early[0]))
        self.assertFalse(self.breaker.failed(early[1]))
        self.assertEqual(self.breaker.rest_s, 5)
        self.clock.advance(5)
        self.ask()
        self.breaker.abandoned(early[2])
        self.assertIsNone(self.breaker.permit())

    @given(st.lists(st.tuples(st.sampled_from(["ok", "bad", "gone"]), st.integers(0, 6)), max_size=60))
    def test_it_never_lets_two_questions_try_and_never_stays_open_for_ever(
        self, steps: list[tuple[str, int]]
    ) -> None:
        clock = Clock()
        breaker = Breaker(2, 5, clock.seconds)
        row = 0
        for outcome, pause_s in steps:
            permit = breaker.permit()
            if breaker.is_open:
                self.assertIsNone(breaker.permit())
            if permit is None:
                self.assertGreater(breaker.rest_s, 0)
            elif outcome == "ok":
                breaker.succeeded(permit)
                row = 0
                self.assertFalse(breaker.is_open)
            elif outcome == "bad":
                row += 1
                breaker.failed(permit)
                self.assertEqual(breaker.is_open, row >= 2)
            else:
                breaker.abandoned(permit)
            clock.advance(pause_s)
