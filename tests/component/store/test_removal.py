"""What is dropped, deleted or given up stays so, also if the daemon is killed right after it."""

from __future__ import annotations

from functools import partial
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory
from unittest.mock import patch

from twisted.trial.unittest import SynchronousTestCase

from pushd.bus.bus import Published
from pushd.bus.clientinfo import DAEMON
from pushd.errors import Unavailable
from pushd.store.sqlite.check import check
from pushd.store.sqlite.transaction import Transaction
from tests.rigs.bare_store import StoreRig
from tests.rigs.builders import Kept, draft


class BudgetTests(SynchronousTestCase):
    """What one turn of the reactor does for the store, however much there is to do."""

    def setUp(self) -> None:
        directory = TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.stored = StoreRig(Path(directory.name))
        self.addCleanup(lambda: self.stored.close())
        self.changes: list[Transaction] = []
        write = self.stored.store.write

        def note(change: Transaction) -> None:
            self.changes.append(change)
            write(change)

        self.patch(self.stored.store, "write", note)

    def test_many_publishes_of_one_turn_come_into_several_transactions(self) -> None:
        told_after: list[int] = []
        for number in range(500):
            self.stored.journal.publish(
                draft(f"c/{number % 7}"), DAEMON, lambda outcome: told_after.append(len(self.changes))
            )
        self.stored.turn()
        self.assertEqual([told_after.count(each) for each in range(1, 8)], [80, 80, 80, 80, 80, 80, 20])

    def test_what_is_dropped_is_removed_within_the_time_of_a_turn(self) -> None:
        names = [f"c/{number}" for number in range(150)]
        for name in names:
            self.stored.publish(name)
        self.stored.clock.advance(2)  # until the blocks are written
        for name in names:
            channel = self.stored.log.get(name)
            assert channel is not None
            self.stored.log.clear(channel)
        archive = self.stored.store.archive
        counts = []
        for answer in (True, False):
            change = Transaction(self.stored.log.state)
            archive.removal(change, partial(bool, answer))
            counts.append(len(change.removed_blocks))
        self.assertEqual(counts, [1, 100])
        self.stored.wait(3)
        self.assertFalse(archive.has_to_remove)

    def test_a_turn_that_is_over_removes_little(self) -> None:
        for number in range(50):
            self.stored.publish(f"c/{number}")
            self.stored.log.clear(self.stored.log.existing(f"c/{number}"))
        self.changes.clear()
        self.stored.bus.turn.begin(self.stored.clock.seconds() - 1)
        self.patch(self.stored.bus.turn, "seconds", iter(count(1000)).__next__)
        self.stored.journal.tend()
        self.stored.turn()
        self.assertGreaterEqual(len(self.changes), 50)
        self.assertFalse(self.stored.store.archive.has_to_remove)


class RemovalTests(SynchronousTestCase):
    def setUp(self) -> None:
        directory = TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.directory = Path(directory.name)
        self.stored = self.open()
        self.addCleanup(lambda: self.stored.close())

    def open(self) -> StoreRig:
        kept = {"few": Kept(history_size=3), "short": Kept(history_age_s=5)}
        return StoreRig(self.directory, kept=kept, max_channels=4)

    def crash(self) -> None:
        """Kill the daemon and start it again; what is left must be whole."""
        self.stored.crash()
        checked = check(self.directory)
        assert checked is not None
        self.assertEqual(checked.damages, [])
        self.stored = self.open()

    def test_what_was_dropped_is_not_looked_for_after_a_crash(self) -> None:
        self.stored.publish_each("few", *(b"%d" % number for number in range(60)))
        self.stored.wait(2)
        self.crash()
        self.assertEqual(self.stored.datas("few"), [b"57", b"58", b"59"])

    def test_a_channel_that_was_deleted_in_the_run_that_made_it_is_empty_after_a_crash(self) -> None:
        self.stored.publish_each("a", b"1", b"2")
        before = self.stored.log.position
        outcomes: list[object] = []
        self.stored.journal.delete("a", DAEMON, outcomes.append)
        self.stored.turn()
        self.assertEqual(outcomes, [None])
        self.crash()
        self.assertEqual(self.stored.datas("a"), [])
        outcome = self.stored.publish("a")
        assert isinstance(outcome, Published)
        self.assertEqual(outcome.offset, 3)
        self.assertTrue(self.stored.read("a", since=before).recovered)
        self.assertFalse(self.stored.read("a", since=before.rpartition("-")[0] + "-1").recovered)

    def give_up(self) -> None:
        """Publish to a channel, and then to so many others that it is given up once it is empty."""
        self.stored.publish_each("short", b"1", b"2")
        self.stored.wait(6)
        for name in ("a", "b", "c", "d"):
            self.stored.publish_each(name, b"x")
        self.assertIsNone(self.stored.log.get("short"))

    def clear(self, *names: str) -> None:
        """Drop what channels have, if they are there."""
        for name in names:
            channel = self.stored.log.get(name)
            if channel is not None:
                self.stored.log.clear(channel)

    def test_a_channel_that_was_given_up_is_gone_after_a_crash(self) -> None:
        self.give_up()
        self.stored.wait(1)
        self.crash()
        self.assertIsNone(self.stored.log.get("short"))

    def test_a_channel_that_was_given_up_is_empty_if_the_daemon_is_killed_before_it_is_gone(self) -> None:
        self.stored.publish_each("short", b"1", b"2")
        self.clear("short")
        for name in ("a", "b", "c", "d"):
            self.stored.publish_each(name, b"x")
        self.assertIsNone(self.stored.log.get("short"))
        write, blocks = self.stored.store.write, list[tuple[int, int]]()

        def write_until_then(change: Transaction) -> None:
            if change.removed_channels:
                raise Unavailable("killed")
            write(change)
            blocks.extend(change.removed_blocks)

        with patch.object(self.stored.store, "write", write_until_then):
            self.stored.wait(1)
        self.assertEqual(len(blocks), 1)
        self.crash()
        self.assertEqual(self.stored.datas("short"), [])

    def make_anew(self, waits: int) -> None:
        """Give up a channel and publish to it again."""
        self.give_up()
        self.clear("a", "b", "c", "d")
        outcome = self.stored.publish("short", data=b"new")
        assert isinstance(outcome, Published), outcome
        self.assertGreater(outcome.offset, 2)
        self.stored.wait(waits)
        self.crash()
        self.assertEqual(self.stored.datas("short"), [b"new"])

    def test_a_channel_that_is_made_anew_before_the_store_has_forgotten_it(self) -> None:
        self.make_anew(0)

    def test_what_such_a_channel_had_before_is_removed(self) -> None:
        self.make_anew(2)
