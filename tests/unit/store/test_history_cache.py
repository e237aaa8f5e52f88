"""The cache of the latest events: how many entries a large event frees, and when."""

from __future__ import annotations

from collections.abc import Generator
from unittest import TestCase

from pushd.store.sqlite.history_cache import HistoryCache

AT_ONCE = 16


class Channel:
    """Records how far its entries were freed."""

    def __init__(self) -> None:
        self.freed: list[int] = []

    def forget_through(self, offset: int) -> None:
        """Record it."""
        self.freed.append(offset)


class FreeingTests(TestCase):
    """A cache of a thousand small events."""

    def setUp(self) -> None:
        """Fill it."""
        self.works: list[Generator[None, None, None]] = []
        self.cache = HistoryCache(1000)
        self.cache.later = self.works.append
        self.channel = Channel()
        for offset in range(1000):
            self.cache.add(self.channel, offset, 1)
        self.assertEqual((self.channel.freed, self.works), ([], []))

    def test_a_small_event_frees_one(self) -> None:
        self.cache.add(self.channel, 1000, 1)
        self.assertEqual((self.channel.freed, self.works), ([0], []))

    def test_large_events_free_few_at_once_and_the_others_in_steps(self) -> None:
        for offset in range(1000, 1003):
            self.cache.add(self.channel, offset, 300)
            self.assertLessEqual(len(self.channel.freed), (offset - 999) * AT_ONCE)
        (work,) = self.works
        before = len(self.channel.freed)
        for _ in work:
            self.assertLessEqual(len(self.channel.freed) - before, AT_ONCE)
            before = len(self.channel.freed)
        self.assertEqual(self.channel.freed, list(range(900)))
        self.assertEqual(self.cache.size_bytes, 1000)
        self.cache.add(self.channel, 1003, 1000)
        self.assertEqual(len(self.works), 2, "it frees in steps again")

    def test_one_larger_than_the_cache_leaves_it_empty(self) -> None:
        self.cache.add(self.channel, 1000, 5000)
        for _ in self.works[0]:
            pass
        self.assertEqual((len(self.channel.freed), self.cache.size_bytes), (1001, 0))
