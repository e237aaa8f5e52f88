"""How much of what is published comes into one transaction, and so into one turn of the reactor."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest.mock import patch

from twisted.trial.unittest import SynchronousTestCase

from pushd.bus.bus import Published
from pushd.bus.clientinfo import DAEMON
from pushd.bus.publisher import Outcome
from pushd.bus.subscription import Subscription
from pushd.errors import Unavailable
from pushd.store.sqlite.block import encode as encode_block
from pushd.store.sqlite.transaction import Transaction
from tests.rigs.bare_store import StoreRig
from tests.rigs.builders import Client, Kept, a_caller, draft, patterns

ENTRIES = 250
"""How many entries one transaction has, unless one event alone has more."""


class JournalTestCase(SynchronousTestCase):
    """A journal whose transactions are noted."""

    def setUp(self) -> None:
        """Open a store, and note what each transaction does."""
        directory = TemporaryDirectory(prefix="pushd-")
        self.addCleanup(directory.cleanup)
        self.stored = StoreRig(Path(directory.name), default=Kept(history_size=10_000), max_channels=10_000)
        self.addCleanup(self.stored.store.close)
        self.changes: list[Transaction] = []
        write = self.stored.store.write

        def noted(change: Transaction) -> None:
            self.changes.append(change)
            write(change)

        self.patch(self.stored.store, "write", noted)

    def publish(self, count: int, *channels: str, **more: Any) -> list[Outcome]:
        """Publish events together; each to `channels`, or to one of its own."""
        told: list[list[Outcome]] = []
        drafts = [draft(*(channels or (f"new/{number}",)), **more) for number in range(count)]
        self.stored.journal.publish_all(drafts, DAEMON, told.append)
        for _ in range(count + 10):
            self.stored.clock.advance(0)
        (outcomes,) = told
        return outcomes

    def rows(self) -> list[int]:
        """Return how many blocks each transaction wrote."""
        return [len(change.blocks) for change in self.changes]


class SubmissionTests(JournalTestCase):
    """What one transaction writes."""

    def test_what_is_published_together_takes_as_many_transactions_as_it_needs(self) -> None:
        outcomes = self.publish(2000)
        self.assertEqual(
            [one.channel for one in outcomes if isinstance(one, Published)], [f"new/{n}" for n in range(2000)]
        )
        self.assertEqual(max(self.rows()), ENTRIES)
        self.assertEqual(sum(self.rows()), 2000)

    def test_so_does_what_many_publish_at_once(self) -> None:
        told: list[Outcome] = []
        for number in range(2000):
            self.stored.journal.publish(draft(f"new/{number}"), DAEMON, told.append)
        for _ in range(20):
            self.stored.clock.advance(0)
        self.assertEqual(len(told), 2000)
        self.assertEqual(max(self.rows()), 80)  # because of what it takes to answer all of them

    def test_each_channel_of_an_event_counts(self) -> None:
        self.publish(30, *(f"m/{number}" for number in range(100)))
        self.assertLessEqual(max(self.rows()), ENTRIES + 100)

    def test_time_ends_a_transaction_before_that(self) -> None:
        self.stored.log.seconds = iter([n / 1000 for n in range(100_000)]).__next__
        self.stored.bus.turn.seconds = self.stored.log.seconds
        outcomes = self.publish(100)
        self.assertEqual(len(outcomes), 100)
        self.assertLessEqual(max(map(len, (change.blocks for change in self.changes))), 24)

    def test_so_does_much_data(self) -> None:
        self.publish(8, "a", data=bytes(300_000))
        self.assertEqual([len(change.blocks) for change in self.changes], [2] * 4)

    def test_subscribers_count_as_often_as_they_get_an_event(self) -> None:
        clients = [Client() for _ in range(100)]
        for client in clients:
            Subscription(self.stored.bus, client, a_caller()).add(patterns("new/*"), "latest")
        self.publish(100)
        self.assertEqual(max(self.rows()), 10)
        self.assertEqual([len(client.entries) for client in clients], [100] * 100)

    def test_an_event_to_many_channels_is_encoded_once(self) -> None:
        with patch("pushd.store.sqlite.transaction.encode", wraps=encode_block) as encode:
            self.publish(1, *(f"m/{number}" for number in range(100)), data=bytes(1000))
        self.assertEqual(encode.call_count, 1)

    def test_what_is_refused_half_way_is_told_in_order(self) -> None:
        told: list[list[Outcome]] = []
        drafts = [draft(f"new/{number}") for number in range(600)]
        self.stored.journal.publish_all(drafts, DAEMON, told.append)
        self.stored.clock.advance(0)
        self.stored.journal.refuse(Unavailable("going"))
        self.stored.clock.advance(0)
        (outcomes,) = told
        kinds = [isinstance(one, Published) for one in outcomes]
        self.assertEqual(kinds, [True] * kinds.count(True) + [False] * kinds.count(False))
        self.assertEqual(len(kinds), 600)
        self.assertEqual(len(self.stored.log), kinds.count(True))


class RemovalTests(JournalTestCase):
    """What one transaction removes."""

    def test_ids_count_and_not_only_blocks(self) -> None:
        for number in range(20):
            told: list[Any] = []
            drafts = [draft("a", id=f"{number}-{one}") for one in range(100)]
            self.stored.journal.publish_all(drafts, DAEMON, told.append)
            self.stored.clock.advance(0)
        self.changes.clear()
        self.stored.journal.delete("a", DAEMON, lambda outcome: None)
        self.stored.turn()
        self.stored.journal.tend()
        self.stored.turn()
        removed = [len(change.removed_ids) for change in self.changes]
        self.assertLessEqual(max(removed), 350)
        self.assertEqual(sum(removed), 2000)
        self.assertEqual(self.stored.store._rows("SELECT count(*) FROM given"), [(0,)])

    def test_channels_count_too(self) -> None:
        self.publish(1000)
        channels = [channel for name in list(self.stored.log.names()) if (channel := self.stored.log.get(name))]
        for channel in channels:
            self.stored.log.clear(channel)
        self.stored.log._give_up(channels)
        self.changes.clear()
        self.stored.journal.tend()
        self.stored.turn()
        self.assertLessEqual(max(len(change.removed_channels) for change in self.changes), ENTRIES)
        self.assertEqual(self.stored.store._rows("SELECT count(*) FROM channel"), [(0,)])
