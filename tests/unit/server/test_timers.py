"""The wheel: alarms that ring late rather than early, and each once."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from unittest import TestCase

from hypothesis import example, given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from pushd.server.net.timers import Timer, TimerWheel

DELAYS = st.floats(0, 50)


class TimerWheelRig:
    """A wheel whose clock the test sets, and what rang when."""

    def __init__(self, time: float = 0.0) -> None:
        self.time = time
        self.wheel = TimerWheel(lambda: self.time)
        self.rang: list[tuple[str, float]] = []

    def set(self, delay_s: float, name: str = "it", then: Callable[[], object] = lambda: None) -> Timer:
        """Set an alarm that writes down that it rang, and does something `then`."""

        def ring() -> None:
            self.rang.append((name, self.time))
            then()

        return self.wheel.call_in(delay_s, ring)

    def turn_at(self, time: float) -> None:
        """Let it be `time`, and turn the wheel."""
        self.time = time
        self.wheel.turn()

    def turn_until(self, time: float) -> None:
        """Turn the wheel each second until `time`."""
        while self.time < time:
            self.turn_at(self.time + 1)

    @property
    def names(self) -> list[str]:
        """What rang, in order."""
        return [name for name, _ in self.rang]


def fault() -> None:
    """What a faulty call does."""
    raise ZeroDivisionError("a fault")


class WheelCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.rig = TimerWheelRig()

    def assertRang(self, *names: str) -> None:
        self.assertEqual(self.rig.names, list(names))

    def assertSet(self, count: int) -> None:
        self.assertEqual(len(self.rig.wheel), count)


class RingTests(WheelCase):
    def test_an_alarm_does_not_ring_before_its_time(self) -> None:
        self.rig.set(5)
        self.rig.turn_until(4)
        self.rig.turn_at(4.999)
        self.assertRang()

    def test_an_alarm_rings_at_most_a_second_after_its_time_if_the_wheel_turns_on_the_second(self) -> None:
        self.rig.set(5)
        self.rig.turn_until(6)
        self.assertEqual(self.rig.rang, [("it", 6.0)])

    def test_an_alarm_rings_once(self) -> None:
        self.rig.set(1)
        self.rig.turn_until(100)
        self.assertRang("it")

    def test_alarms_ring_in_the_order_of_their_seconds_and_in_one_as_they_were_set(self) -> None:
        for delay, name in ((5, "e"), (2, "b"), (2, "c"), (0, "a"), (3, "d")):
            self.rig.set(delay, name)
        self.rig.turn_until(10)
        self.assertRang(*"abcde")

    def test_no_delay_is_the_next_second(self) -> None:
        self.rig.set(0)
        self.rig.turn_at(0.9)
        self.assertRang()
        self.rig.turn_at(1)
        self.assertRang("it")

    def test_it_counts_the_alarms_that_are_set(self) -> None:
        for delay in (0, 0, 3, 3.5):
            self.rig.set(delay)
        self.assertSet(4)
        self.rig.turn_until(2)
        self.assertSet(2)
        self.rig.turn_until(5)
        self.assertSet(0)

    def test_it_keeps_nothing_of_what_rang_or_was_cancelled(self) -> None:
        for delay in range(10):
            self.rig.set(delay)
            self.rig.set(delay).cancel()
        self.rig.turn_until(11)
        self.assertEqual(self.rig.wheel._slots, {})


class CancelTests(WheelCase):
    def test_a_cancelled_alarm_does_not_ring(self) -> None:
        self.rig.set(1, "cancelled").cancel()
        self.rig.set(1, "other")
        self.assertSet(1)
        self.rig.turn_until(5)
        self.assertRang("other")

    def test_it_may_be_cancelled_again_and_after_it_rang(self) -> None:
        early, late = self.rig.set(1), self.rig.set(1)
        early.cancel()
        early.cancel()
        self.rig.turn_until(5)
        late.cancel()
        self.assertRang("it")
        self.assertSet(0)

    def test_a_call_may_cancel_one_that_is_due_with_it(self) -> None:
        self.rig.set(1, "first", lambda: second.cancel())
        second = self.rig.set(1, "second")
        self.rig.set(1, "third")
        self.rig.turn_until(5)
        self.assertRang("first", "third")

    def test_a_call_may_cancel_itself_and_what_rang_already(self) -> None:
        def cancel() -> None:
            first.cancel()
            second.cancel()

        first = self.rig.set(1, "first")
        second = self.rig.set(1, "second", cancel)
        self.rig.set(1, "third")
        self.rig.turn_until(5)
        self.assertRang("first", "second", "third")
        self.assertSet(0)

    def test_a_call_may_cancel_one_of_a_later_second_of_the_same_turn(self) -> None:
        self.rig.set(1, "first", lambda: second.cancel())
        second = self.rig.set(3, "second")
        self.rig.turn_at(10)
        self.assertRang("first")


class FreedTests(WheelCase):
    def test_an_alarm_that_was_cancelled_or_has_rung_forgets_what_it_called(self) -> None:
        for ends in (Timer.cancel, Timer.ring):
            call = _Call()
            gone = weakref.ref(call)
            alarm = TimerWheel(lambda: 0.0).call_in(1, call)
            call.alarm = alarm  # a cycle
            del call
            ends(alarm)
            self.assertIsNone(gone())


class _Call:
    alarm: Timer | None = None

    def __call__(self) -> None:
        """Do nothing."""


class SetWithinACallTests(WheelCase):
    def test_an_alarm_set_by_a_call_rings_in_a_later_turn(self) -> None:
        self.rig.set(1, "outer", lambda: self.rig.set(0, "inner"))
        self.rig.turn_at(2)
        self.assertRang("outer")
        self.assertSet(1)
        self.rig.turn_at(3)
        self.assertRang("outer", "inner")

    def test_a_call_that_sets_itself_again_does_not_hold_up_the_turn(self) -> None:
        def again() -> None:
            self.rig.set(0, "it", again)

        again()
        for time in range(1, 6):
            self.rig.turn_at(time)
            self.assertEqual(len(self.rig.rang), time)

    def test_after_a_leap_an_alarm_is_set_from_now_on_and_not_from_the_second_being_rung(self) -> None:
        self.rig.set(1, "outer", lambda: self.rig.set(5, "inner"))
        self.rig.turn_at(100)
        self.rig.turn_until(105)
        self.assertRang("outer")
        self.rig.turn_until(106)
        self.assertRang("outer", "inner")


class FaultTests(WheelCase):
    def test_what_a_call_raises_comes_out_of_the_turn(self) -> None:
        self.rig.set(1, then=fault)
        self.assertRaises(ZeroDivisionError, self.rig.turn_at, 2)

    def test_a_call_that_raises_is_not_made_again(self) -> None:
        self.rig.set(1, then=fault)
        self.assertRaises(ZeroDivisionError, self.rig.turn_at, 2)
        self.assertSet(0)
        self.rig.turn_until(9)
        self.assertRang("it")

    def test_the_others_ring_at_the_next_turn(self) -> None:
        self.rig.set(1, "before")
        self.rig.set(1, "faulty", fault)
        self.rig.set(1, "after")
        self.rig.set(2, "later")
        self.assertRaises(ZeroDivisionError, self.rig.turn_at, 3)
        self.assertRang("before", "faulty")
        self.assertSet(2)
        self.rig.turn_at(4)
        self.assertRang("before", "faulty", "after", "later")

    def test_the_others_ring_even_if_the_clock_stands_still_meanwhile(self) -> None:
        self.rig.set(1, "faulty", fault)
        self.rig.set(1, "after")
        self.assertRaises(ZeroDivisionError, self.rig.turn_at, 2)
        self.rig.turn_at(2)
        self.assertRang("faulty", "after")

    def test_an_alarm_set_between_a_fault_and_the_next_turn_rings_in_time(self) -> None:
        self.rig.set(1, "faulty", fault)
        self.assertRaises(ZeroDivisionError, self.rig.turn_at, 5)
        self.rig.set(1, "new")
        self.rig.turn_until(6)
        self.assertRang("faulty")
        self.rig.turn_until(7)
        self.assertRang("faulty", "new")


class ClockTests(WheelCase):
    def test_while_the_clock_stands_still_nothing_rings(self) -> None:
        self.rig.set(0)
        for _ in range(10):
            self.rig.turn_at(0)
        self.assertRang()
        self.assertSet(1)

    def test_after_a_leap_everything_that_is_due_rings_in_one_turn_in_its_order(self) -> None:
        for delay, name in ((300, "d"), (20, "b"), (21, "c"), (1, "a"), (4000, "e")):
            self.rig.set(delay, name)
        self.rig.turn_at(3600)
        self.assertRang(*"abcd")

    def test_a_clock_that_begins_anywhere_makes_no_difference(self) -> None:
        for begin in (0.0, 0.999, 12345.678, 1e9):
            rig = TimerWheelRig(begin)
            rig.set(5)
            rig.turn_at(begin + 4.99)
            self.assertEqual(rig.names, [])
            rig.turn_at(begin + 6)
            self.assertEqual(rig.names, ["it"])

    def test_an_alarm_that_is_set_while_the_clock_is_behind_the_wheel_rings_all_the_same(self) -> None:
        self.rig.turn_at(10)
        self.rig.time = 5
        self.rig.set(1)
        self.rig.turn_until(11)
        self.assertRang("it")

    def test_turning_more_often_than_each_second_does_no_harm(self) -> None:
        self.rig.set(2)
        for tenth in range(1, 40):
            self.rig.turn_at(tenth / 10)
        self.assertEqual(self.rig.rang, [("it", 3.0)])


class AnyAlarmTests(TestCase):
    @given(st.floats(0, 1e6), st.lists(st.tuples(DELAYS, st.floats(0, 3))))
    def test_none_rings_early_and_none_waits_for_more_than_the_next_turn_after_its_second(
        self, begin: float, steps: list[tuple[float, float]]
    ) -> None:
        """Alarms are set at any time, and the wheel is turned after steps of any length."""
        rig = TimerWheelRig(begin)
        dues: dict[str, float] = {}
        for number, (delay, step) in enumerate(steps):
            dues[str(number)] = rig.time + delay
            rig.set(delay, str(number))
            rig.turn_at(rig.time + step)
            for name, due in dues.items():
                self.assertTrue(name in rig.names or rig.time < due + 1, (name, due, rig.time))
        for name, time in rig.rang:
            self.assertGreaterEqual(time, dues[name])
        self.assertEqual(len(rig.wheel), len(dues) - len(rig.rang))

    @given(st.lists(DELAYS))
    def test_turned_on_the_second_none_is_more_than_a_second_late(self, delays: list[float]) -> None:
        rig = TimerWheelRig()
        for number, delay in enumerate(delays):
            rig.set(delay, str(number))
        rig.turn_until(52)
        self.assertEqual(len(rig.rang), len(delays))
        for name, time in rig.rang:
            self.assertTrue(0 <= time - delays[int(name)] <= 1)

    @given(st.floats(0, 1e3), DELAYS)
    @example(0.9, 1.2)
    def test_turned_every_second_none_is_more_than_two_seconds_late(self, begin: float, delay: float) -> None:
        rig = TimerWheelRig(begin)
        rig.set(delay)
        rig.turn_until(begin + delay + 3)
        ((_, time),) = rig.rang
        self.assertLessEqual(time - (begin + delay), 2)
