"""The cache of recipients: how much of it one change of a subscription frees."""

from __future__ import annotations

from typing import Any
from unittest import TestCase

from pushd.bus.recipients import RecipientIndex
from tests.rigs.builders import patterns

NAMES = [f"c/{number}" for number in range(20_000)]


class FreeingTests(TestCase):
    """A cache with many entries that a subscription makes stale."""

    def setUp(self) -> None:
        """Fill the cache."""
        self.index: RecipientIndex[Any, str] = RecipientIndex(set(NAMES), str, lambda: 1_000_000)
        self.index.enter(patterns("c/*")[0], "first")
        for name in NAMES:
            self.index.of(name)
        self.assertEqual(self.left, 0)

    @property
    def left(self) -> int:
        """The number of stale entries that are still to be freed."""
        return sum(map(len, self.index._dropped))

    def test_a_hundred_patterns_free_no_more_than_one(self) -> None:
        for number in range(100):
            self.index.enter(patterns(f"c/*/{number}")[0], "second")
        for number in range(100):
            self.index.leave(patterns(f"c/*/{number}")[0], "second")
        self.assertGreaterEqual(self.left, 19_000)

    def test_all_are_freed_in_the_course_of_time(self) -> None:
        self.index.enter(patterns("**")[0], "second")
        for name in NAMES:
            before = self.left
            self.assertEqual(set(self.index.of(name).recipients), {"first", "second"})
            self.assertLessEqual(before - self.left, 2)
        self.assertEqual(self.left, 0)
