"""The collector: what it freezes, and that it leaves nothing behind."""

from __future__ import annotations

import gc
import weakref

from twisted.trial.unittest import SynchronousTestCase

from pushd.daemon.garbage_collector import FREEZE_S, FULL_S, PAUSE_S, THRESHOLDS, Collector


class Node:
    """An object in a reference cycle."""

    def __init__(self) -> None:
        self.itself = self


class Machine:
    """Simulates `gc`: examining an object takes a constant time."""

    def __init__(self, cost_s: float) -> None:
        self.cost_s = cost_s
        self.cpu_s = 0.0
        self.young = self.old = self.frozen = 0
        self.longest_s = 0.0
        self.collections = 0

    def collect(self, generation: int = 2) -> None:
        """Examine the objects of some generations."""
        examined = self.young + (self.old if generation == 2 else 0)
        self.cpu_s += examined * self.cost_s
        self.longest_s = max(self.longest_s, examined * self.cost_s)
        self.old, self.young = self.old + self.young, 0
        self.collections += 1

    def freeze(self) -> None:
        """Exclude all present objects from later collections."""
        self.frozen += self.old + self.young
        self.old = self.young = 0


class TurnsTests(SynchronousTestCase):
    """A collector that is called at the start of each turn."""

    def setUp(self) -> None:
        self.addCleanup(gc.set_threshold, *gc.get_threshold())
        self.addCleanup(gc.enable)
        self.addCleanup(gc.unfreeze)

    def collector(self, machine: Machine, *, is_disabled: bool = False) -> Collector:
        """Start a collector that examines the objects of `machine`."""
        collector = Collector(lambda: machine.cpu_s)
        if not is_disabled:
            gc.enable()
        collector.start()
        self.addCleanup(collector.stop)
        self.patch(gc, "collect", machine.collect)
        self.patch(gc, "freeze", machine.freeze)
        return collector

    def test_collections_stay_short_whatever_is_made_and_kept(self) -> None:
        for made, most_s in ((10, 2 * FULL_S), (3_000, 2 * FULL_S), (30_000, 0.0061)):
            with self.subTest(made):
                machine = Machine(1e-7)
                collector = self.collector(machine)
                for turn in range(2000):
                    machine.young += made
                    collector.look(turn * 0.006)
                self.assertEqual(machine.collections, 2000)
                self.assertLessEqual(machine.longest_s, most_s)
                self.assertLess(machine.old * machine.cost_s, FULL_S + 0.003)

    def test_what_is_kept_and_examined_quickly_is_not_frozen(self) -> None:
        machine = Machine(1e-7)
        collector = self.collector(machine)
        for turn in range(1000):
            machine.young, machine.old = 500, min(machine.old, 2_500)
            collector.look(turn * 0.006)
        self.assertEqual(machine.frozen, 0)
        self.assertLess(3_000 * machine.cost_s, FREEZE_S)

    def test_examining_everything_takes_no_more_than_examining_what_is_new(self) -> None:
        machine = Machine(1e-7)
        collector = self.collector(machine)
        made = 0
        for turn in range(10_000):
            machine.young = made = 500
            machine.old = min(machine.old, 4_000)  # just too few to be frozen
            collector.look(turn * 0.006)
        self.assertLess(machine.cpu_s, 10_000 * made * machine.cost_s * 3)

    def test_there_is_a_pause_after_each(self) -> None:
        machine = Machine(1e-7)
        collector = self.collector(machine)
        for turn in range(1000):
            collector.look(turn * PAUSE_S / 10)
        self.assertTrue(90 <= machine.collections <= 101, machine.collections)

    def test_nothing_is_collected_between_two_looks(self) -> None:
        collector = Collector(lambda: 0.0)
        collector.start()
        self.addCleanup(collector.stop)
        collector.look(1.0)
        node = Node()
        gone = weakref.ref(node)
        del node
        kept = [[one] for one in range(100_000)]
        self.assertIsNotNone(gone())
        collector.look(1.0 + PAUSE_S / 2)
        self.assertIsNotNone(gone())
        collector.look(1.0 + PAUSE_S)
        self.assertIsNone(gone())
        collector.stop()
        self.assertTrue(gc.isenabled())
        del kept

    def test_one_that_is_stopped_and_started_again_leaves_nothing_behind(self) -> None:
        machine = Machine(1e-7)
        before = list(gc.callbacks)
        collector = self.collector(machine)
        for now_s in (0.0, 1.0):
            collector.look(now_s)
            self.assertFalse(gc.isenabled())
            collector.stop()
            self.assertTrue(gc.isenabled())
            self.assertEqual(gc.callbacks, before)
            collector.start()

    def test_one_that_was_disabled_stays_so(self) -> None:
        gc.disable()
        machine = Machine(1e-7)
        collector = self.collector(machine, is_disabled=True)
        for turn in range(10):
            collector.look(turn * 1.0)
        self.assertEqual(machine.collections, 0)
        collector.stop()
        self.assertFalse(gc.isenabled())


class CollectorTests(SynchronousTestCase):
    def setUp(self) -> None:
        """Start a collector with a clock of its own."""
        self.cpu_s = 100.0
        self.step_s = 0.0
        self.before = gc.get_threshold(), list(gc.callbacks)
        self.collector = Collector(self.seconds)
        self.collector.start()
        self.addCleanup(self.collector.stop)

    def seconds(self) -> float:
        self.cpu_s += self.step_s
        return self.cpu_s

    def test_garbage_is_collected_at_the_start_and_not_frozen(self) -> None:
        self.collector.stop()
        gc.disable()
        self.addCleanup(gc.enable)
        gone = weakref.ref(Node())
        self.assertIsNotNone(gone())
        self.collector.start()
        self.assertIsNone(gone())

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
