"""Items come in the order of their owner, owners in turns, and a mark after all that was added before it."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from pushd.bus.fair_queue import FairQueue


class FairQueueTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.queue = FairQueue[str]()

    def add(self, *items: str) -> None:
        """Add items; the owner is the first letter of each, and a mark begins with ``-``."""
        for item in items:
            self.queue.add(None if item[0] == "-" else item[0], item, is_mark=item[0] == "-")

    def take(self) -> str:
        """Take one item, and end the turn of its owner."""
        item = self.queue.first
        if not self.queue.pop():
            self.queue.next_owner()
        return item

    def take_all(self) -> list[str]:
        """Take everything, one item of each owner per turn."""
        items = []
        while self.queue:
            items.append(self.take())
        return items

    def test_owners_take_turns_in_the_order_of_their_first_items(self) -> None:
        self.add("a1", "a2", "a3", "b1", "c1", "c2")
        self.assertEqual(self.take_all(), ["a1", "b1", "c1", "a2", "c2", "a3"])

    def test_the_turn_of_an_owner_goes_on_until_it_is_ended(self) -> None:
        self.add("a1", "a2", "b1")
        self.assertFalse(self.queue.pop())
        self.assertEqual(self.queue.first, "a2")
        self.assertTrue(self.queue.pop())
        self.assertEqual(self.queue.first, "b1")
        self.assertTrue(self.queue.pop())
        self.assertFalse(self.queue)

    def test_ending_a_turn_moves_the_owner_behind_all_others(self) -> None:
        self.add("a1", "a2", "b1", "b2", "c1")
        firsts = []
        for _ in range(4):
            firsts.append(self.queue.first)
            self.queue.next_owner()
        self.assertEqual(firsts, ["a1", "b1", "c1", "a1"])
        self.assertEqual(len(self.queue), 5)

    def test_an_owner_whose_items_are_gone_begins_anew_behind_the_others(self) -> None:
        self.add("a1", "b1", "b2")
        self.assertTrue(self.queue.pop())
        self.add("a2")
        self.assertEqual(self.take_all(), ["b1", "a2", "b2"])

    def test_an_item_put_last_comes_after_the_others_of_its_owner(self) -> None:
        self.add("a1", "a2", "a3", "b1")
        self.queue.put_last()
        self.assertEqual(self.take_all(), ["b1", "a2", "a3", "a1"])

    def test_a_mark_comes_after_all_before_it_and_before_all_after_it(self) -> None:
        self.add("a1", "a2", "b1", "-1", "b2", "c1")
        self.assertEqual(self.take_all(), ["a1", "b1", "a2", "-1", "b2", "c1"])

    def test_marks_in_succession_keep_their_order(self) -> None:
        self.add("-1", "-2", "a1", "-3", "-4", "b1")
        self.assertEqual(self.take_all(), ["-1", "-2", "a1", "-3", "-4", "b1"])

    def test_what_is_after_a_mark_takes_no_turn_until_the_mark_is_gone(self) -> None:
        self.add("a1", "-1", "b1", "c1")
        self.assertEqual((self.queue.owners, len(self.queue)), (1, 4))
        self.take()
        self.assertEqual((self.queue.owners, self.queue.first), (1, "-1"))
        self.take()
        self.assertEqual((self.queue.owners, self.queue.first), (2, "b1"))

    def test_the_items_between_two_marks_take_turns(self) -> None:
        self.add("-1", "a1", "a2", "b1", "-2", "a3")
        self.assertEqual(self.take_all(), ["-1", "a1", "b1", "a2", "-2", "a3"])

    def test_owners_and_items_are_counted(self) -> None:
        self.assertEqual((self.queue.owners, len(self.queue), bool(self.queue)), (0, 0, False))
        self.add("a1", "a2", "b1")
        self.assertEqual((self.queue.owners, len(self.queue), bool(self.queue)), (2, 3, True))

    def test_only_a_mark_is_not_empty(self) -> None:
        self.add("-1")
        self.assertTrue(self.queue)
        self.assertEqual(self.take(), "-1")
        self.assertFalse(self.queue)

    def test_clearing_returns_all_items_those_after_a_mark_too(self) -> None:
        self.add("a1", "b1", "a2", "-1", "c1")
        self.assertEqual(self.queue.clear(), ["a1", "a2", "b1", "-1", "c1"])
        self.assertEqual((self.queue.owners, len(self.queue), bool(self.queue)), (0, 0, False))
