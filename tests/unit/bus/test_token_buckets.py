"""Token buckets: what can be taken is what has come in, and no more."""

from __future__ import annotations

from fractions import Fraction

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from pushd.bus.token_buckets import TokenBuckets


class Clock:
    def __init__(self, now: float = 0.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


class Model:
    """One bucket, in exact numbers, told by how many tokens are in it."""

    def __init__(self, rate: float, burst: int, now: float) -> None:
        self.rate, self.burst, self.left, self.at = Fraction(rate), burst, Fraction(burst), Fraction(now)

    def fill(self, now: float) -> None:
        self.left = min(Fraction(self.burst), self.left + (Fraction(now) - self.at) * self.rate)
        self.at = Fraction(now)

    def wait(self, count: int) -> Fraction:
        return max(Fraction(0), (min(count, self.burst) - self.left) / self.rate)


class BucketTests(SynchronousTestCase):
    def test_a_burst_can_be_taken_and_then_as_much_as_comes_in(self) -> None:
        clock = Clock()
        buckets = TokenBuckets(2, 3, clock)
        self.assertEqual([buckets.take("a") for _ in range(3)], [0.0] * 3)
        self.assertAlmostEqual(buckets.take("a"), 0.5)
        clock.now = 0.4
        self.assertAlmostEqual(buckets.take("a"), 0.1)
        clock.now = 0.5
        self.assertEqual(buckets.take("a"), 0.0)
        self.assertAlmostEqual(buckets.take("a"), 0.5)

    def test_it_never_has_more_than_the_burst(self) -> None:
        clock = Clock()
        buckets = TokenBuckets(100, 3, clock)
        buckets.take("a")
        clock.now = 1000.0
        self.assertEqual([buckets.take("a") == 0.0 for _ in range(4)], [True, True, True, False])

    def test_keys_have_nothing_to_do_with_each_other(self) -> None:
        buckets = TokenBuckets(1, 1, Clock())
        self.assertEqual([buckets.take(key) == 0.0 for key in "aabb"], [True, False, True, False])

    def test_more_than_the_burst_can_be_taken_from_a_full_one_and_is_owed(self) -> None:
        clock = Clock()
        buckets = TokenBuckets(1, 10, clock)
        self.assertEqual(buckets.take("a", 30), 0.0)
        self.assertAlmostEqual(buckets.take("a", 1), 21)
        clock.now = 21.0
        self.assertEqual(buckets.take("a", 1), 0.0)
        self.assertAlmostEqual(buckets.take("a", 30), 10)

    def test_a_slow_rate_is_kept(self) -> None:
        clock = Clock()
        buckets = TokenBuckets(1 / 60, 1, clock)
        taken = 0
        for second in range(600):
            clock.now = float(second)
            taken += buckets.take("a") == 0.0
        self.assertEqual(taken, 10)

    @given(
        st.sampled_from([0.1, 1 / 3, 1.0, 3.0, 7.5, 1000.0]),
        st.integers(1, 50),
        st.floats(0, 1e6),
        st.lists(st.tuples(st.floats(0, 20), st.integers(1, 60)), max_size=60),
    )
    def test_it_is_what_the_model_is(
        self, rate: float, burst: int, start: float, takes: list[tuple[float, int]]
    ) -> None:
        clock = Clock(start)
        buckets, model = TokenBuckets(rate, burst, clock), Model(rate, burst, start)
        for pause, count in takes:
            clock.now += pause
            model.fill(clock.now)
            wait = buckets.take("a", count)
            self.assertAlmostEqual(wait, float(model.wait(count)), delta=1e-5)
            if not wait:
                model.left -= count
            else:
                clock.now += wait
                model.fill(clock.now)
                self.assertEqual(buckets.take("a", count), 0.0, "what it says is true")
                model.left -= count

    @given(st.lists(st.tuples(st.floats(0, 3), st.integers(1, 5)), max_size=200))
    def test_no_more_is_taken_than_the_rate_and_the_burst(self, takes: list[tuple[float, int]]) -> None:
        clock = Clock(1e6)
        buckets = TokenBuckets(3, 5, clock)
        taken = 0
        for pause, count in takes:
            clock.now += pause
            if buckets.take("a", count) == 0.0:
                taken += count
            self.assertLessEqual(taken, 5 + 3 * (clock.now - 1e6) + 1e-4)


class OwingTests(SynchronousTestCase):
    def test_what_is_taken_without_being_there_is_owed(self) -> None:
        clock = Clock()
        buckets = TokenBuckets(2, 4, lambda: clock.now)
        buckets.owe("a", 10)
        self.assertEqual(buckets.take("a"), 3.5)
        self.assertEqual(buckets.take("b"), 0.0)
        clock.now += 3.5
        self.assertEqual(buckets.take("a"), 0.0)
        self.assertEqual(buckets.take("a"), 0.5)


class MemoryTests(SynchronousTestCase):
    def test_full_buckets_are_forgotten(self) -> None:
        clock = Clock()
        buckets = TokenBuckets(1, 10, clock)
        for number in range(100_000):
            clock.now += 0.01
            buckets.take(str(number))
        self.assertLess(len(buckets), 110, "those of the last second, in which one token comes back")

    def test_there_are_never_more_than_so_many(self) -> None:
        buckets = TokenBuckets(1, 10, Clock(), max_keys=50)
        for number in range(1000):
            buckets.take(str(number), 10)
            self.assertLessEqual(len(buckets), 50)

    def test_who_was_there_longest_ago_goes_first_and_who_is_refused_stays(self) -> None:
        clock = Clock()
        buckets = TokenBuckets(1, 1, clock, max_keys=50)
        self.assertEqual(buckets.take("greedy"), 0.0)
        for number in range(500):
            clock.now += 0.001
            buckets.take(str(number))
            self.assertGreater(buckets.take("greedy"), 0.0)
        for number in range(500, 550):
            buckets.take(str(number))
        self.assertEqual(buckets.take("greedy"), 0.0, "nobody remembers")
