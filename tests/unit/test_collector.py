"""The collector: what it freezes, and that it leaves nothing behind."""

from __future__ import annotations

import gc
import weakref

from twisted.trial.unittest import SynchronousTestCase

from pushd.collector import THRESHOLDS, Collector


class Node:
    """Something in a cycle."""

    def __init__(self) -> None:
        self.itself = self


class CollectorTests(SynchronousTestCase):
    def setUp(self) -> None:
        """Start it, on a clock of its own."""
        self.cpu_s = 0.0
        self.step_s = 0.0
        self.before = gc.get_threshold(), list(gc.callbacks)
        self.collector = Collector(self.seconds)
        self.collector.start()
        self.addCleanup(self.collector.stop)

    def seconds(self) -> float:
        self.cpu_s += self.step_s
        return self.cpu_s

    def test_it_sets_thresholds_and_freezes_what_is_there(self) -> None:
        self.assertEqual(gc.get_threshold(), THRESHOLDS)
        self.assertGreater(gc.get_freeze_count(), 10_000)

    def test_what_survives_a_long_collection_is_frozen_and_a_short_one_freezes_nothing(self) -> None:
        kept = [Node() for _ in range(1000)]
        frozen = gc.get_freeze_count()
        gc.collect()
        self.assertLessEqual(gc.get_freeze_count(), frozen)
        self.step_s = 1.0
        gc.collect(1)
        self.assertLessEqual(gc.get_freeze_count(), frozen)
        gc.collect()
        self.assertGreaterEqual(gc.get_freeze_count(), frozen + 1000)
        del kept

    def test_what_was_frozen_is_never_examined_again(self) -> None:
        self.step_s = 1.0
        node = Node()
        gone = weakref.ref(node)
        gc.collect()
        del node
        for _ in range(10):
            gc.collect()
        self.assertIsNotNone(gone())

    def test_it_can_be_stopped_and_all_is_as_it_was(self) -> None:
        self.collector.stop()
        self.assertEqual((gc.get_threshold(), gc.callbacks), self.before)
        self.assertEqual(gc.get_freeze_count(), 0)
