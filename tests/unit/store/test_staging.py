"""A transaction has some events of each owner, in turns, and begins with the owner whose turn it is."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from pushd.bus.batch import Batch
from pushd.bus.fair_queue import FairQueue
from pushd.bus.grants import EVERYTHING
from pushd.store.sqlite.staging import stage
from pushd.store.sqlite.submission import Limit, Submission, Task
from tests.rigs.builders import BusRig, draft


class StagingTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.log = BusRig().log
        self.waiting = FairQueue[Submission | Task]()
        self.owners: dict[int, str] = {}

    def add(self, owner: str, *counts: int) -> None:
        """Let `owner` submit as many events together as each count says."""
        for count in counts:
            submission = Submission([draft("a")] * count, EVERYTHING, lambda outcomes: None)
            self.owners[id(submission)] = owner
            self.waiting.add(owner, submission)

    def stage(self, entries: int = 250) -> list[tuple[str, int]]:
        """Fill a transaction of so many entries; return the owners and counts of events, in order."""
        limit = Limit(lambda: False, lambda sends: 1, entries, 1 << 20, 1000)
        staged = stage(self.waiting, Batch(self.log), limit)
        return [(self.owners[id(submission)], len(events)) for submission, events in staged]

    def test_a_single_owner_fills_the_transaction(self) -> None:
        self.add("a", 300)
        self.assertEqual(self.stage(), [("a", 250)])
        self.assertEqual(self.stage(), [("a", 50)])
        self.assertFalse(self.waiting)

    def test_owners_share_the_80_publishers_of_a_transaction(self) -> None:
        self.add("a", 100)
        self.add("b", 100)
        self.assertEqual(self.stage(), [("a", 40), ("b", 40), ("a", 40), ("b", 40), ("a", 20), ("b", 20)])

    def test_each_of_many_owners_has_four_events_in_its_turn(self) -> None:
        names = [f"owner {number}" for number in range(100)]
        for name in names:
            self.add(name, 10)
        self.assertEqual(self.stage(entries=40), [(name, 4) for name in names[:10]])
        self.assertEqual(self.stage(entries=40), [(name, 4) for name in names[10:20]])

    def test_a_turn_counts_all_submissions_of_the_owner(self) -> None:
        self.add("a", 30, 30, 30)
        self.add("b", 1)
        self.assertEqual(self.stage(), [("a", 30), ("a", 10), ("b", 1), ("a", 20), ("a", 20), ("a", 10)])

    def test_an_owner_that_is_done_leaves_a_whole_turn_to_the_next(self) -> None:
        self.add("a", 3)
        self.add("b", 60)
        self.assertEqual(self.stage(), [("a", 3), ("b", 40), ("b", 20)])

    def test_the_next_transaction_begins_with_the_next_owner_after_a_turn_that_was_cut(self) -> None:
        self.add("a", 100)
        self.add("b", 100)
        self.assertEqual(self.stage(entries=10), [("a", 10)])
        self.assertEqual(self.stage(entries=10), [("b", 10)])
        self.assertEqual(self.stage(entries=10), [("a", 10)])

    def test_and_after_one_that_just_fits(self) -> None:
        self.add("a", 100)
        self.add("b", 100)
        self.assertEqual(self.stage(entries=40), [("a", 40)])
        self.assertEqual(self.stage(entries=40), [("b", 40)])

    def test_and_after_an_owner_that_is_done(self) -> None:
        self.add("a", 10)
        self.add("b", 100)
        self.add("c", 100)
        self.assertEqual(self.stage(entries=10), [("a", 10)])
        self.assertEqual(self.stage(entries=10), [("b", 10)])
        self.assertEqual(self.stage(entries=10), [("c", 10)])

    def test_80_publishers_are_acknowledged_after_one_transaction(self) -> None:
        self.add("a", *[1] * 100)
        self.assertEqual(self.stage(), [("a", 1)] * 80)
        self.assertEqual(self.stage(), [("a", 1)] * 20)

    def test_a_task_is_not_passed(self) -> None:
        self.add("a", 1)
        task = Task(lambda task: None, lambda failure: None)
        self.waiting.add("a", task)
        self.add("a", 1)
        self.assertEqual(self.stage(), [("a", 1)])
        self.assertIs(self.waiting.first, task)
        self.assertEqual(self.stage(), [])
