"""Nobody waits for all that others have handed in to be written."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from pushd.bus.batch import Batch
from pushd.bus.clientinfo import ClientInfo
from pushd.bus.fair_queue import FairQueue
from pushd.bus.grants import EVERYTHING
from pushd.bus.publisher import Outcome
from pushd.store.sqlite.staging import stage
from pushd.store.sqlite.submission import Limit, Submission, Task
from tests.component.store.test_submission import JournalTestCase
from tests.rigs.builders import a_caller, draft

NOISY, HONEST = "198.51.100.1", "203.0.113.1"


def ignore(outcome: Any) -> None:
    """Do nothing."""


class FairnessTests(JournalTestCase):
    """Publishers of different owners at one journal."""

    def transactions(self) -> list[set[str]]:
        """Let the journal write everything; return the channels of each transaction."""
        for _ in range(20_000):
            if not self.stored.clock.getDelayedCalls():
                break
            self.stored.clock.advance(0)
        return [{str(channel[1]) for channel in change.channels} for change in self.changes]

    def publish_as(self, caller: ClientInfo, count: int, channel: str, *, together: bool) -> list[Outcome]:
        """Publish events as `caller`, in one submission or each in its own; return what is answered, later."""
        told: list[Outcome] = []
        if together:
            self.stored.journal.publish_all([draft(channel)] * count, caller, told.extend)
        else:
            for _ in range(count):
                self.stored.journal.publish(draft(channel), caller, told.append)
        return told

    def test_an_event_does_not_wait_for_thousands_of_another_owner(self) -> None:
        for together in (True, False):
            self.changes.clear()
            noisy = self.publish_as(a_caller(address=NOISY), 3000, f"noise/{together}", together=together)
            honest = self.publish_as(a_caller(address=HONEST), 1, f"honest/{together}", together=True)
            self.assertIn(f"honest/{together}", set.union(*self.transactions()[:2]))
            self.assertEqual((len(noisy), len(honest)), (3000, 1))

    def test_nor_for_those_of_many_owners(self) -> None:
        for number in range(60):
            self.publish_as(
                a_caller(address=f"198.51.100.{number}"), 500, f"noise/{number}", together=number % 2 == 0
            )
        self.publish_as(a_caller(address=HONEST), 1, "honest", together=True)
        self.assertIn("honest", set.union(*self.transactions()[:4]))

    def test_addresses_of_one_ipv6_network_are_one_owner(self) -> None:
        for number in range(50):
            self.publish_as(a_caller(address=f"2001:db8::{number:x}"), 100, "noise", together=False)
        self.publish_as(a_caller(address=HONEST), 1, "honest", together=True)
        self.assertIn("honest", set.union(*self.transactions()[:2]))

    def test_a_deletion_waits_for_what_its_owner_has_published_only(self) -> None:
        self.publish_as(a_caller(address=NOISY), 3000, "noise", together=False)
        self.publish_as(a_caller(address=HONEST), 1, "honest", together=True)
        told: list[int] = []
        self.stored.journal.delete(
            "honest", a_caller(address=HONEST), lambda outcome: told.append(len(self.changes))
        )
        self.transactions()
        self.assertLess(told[0], 5)

    def test_all_is_written_when_that_is_waited_for(self) -> None:
        noisy = self.publish_as(a_caller(address=NOISY), 1000, "noise", together=False)
        honest = self.publish_as(a_caller(address=HONEST), 10, "honest", together=False)
        counts: list[tuple[int, int]] = []
        self.stored.journal.when_published(lambda: counts.append((len(noisy), len(honest))))
        self.publish_as(a_caller(address=HONEST), 10, "honest", together=False)
        self.transactions()
        self.assertEqual(counts, [(1000, 10)])


class OrderTests(JournalTestCase):
    """Whatever is handed in."""

    @given(
        st.lists(
            st.tuples(st.sampled_from(["a", "b", None]), st.one_of(st.integers(1, 30), st.none(), st.just("name")))
        ),
        st.integers(1, 40),
    )
    def test_each_owner_has_its_order_and_a_mark_comes_after_all_before_it(
        self, added: list[tuple[str | None, int | str | None]], entries: int
    ) -> None:
        waiting = FairQueue[Submission | Task]()
        submissions = []
        for number, (owner, size) in enumerate(added):
            submission = (
                Submission([draft("a", data=b"%d" % number)] * size, EVERYTHING, ignore)
                if isinstance(size, int)
                else Task(ignore, ignore)
            )
            submissions.append((owner, submission))
            waiting.add(owner, submission, is_mark=size is None)
        numbers = {id(submission): number for number, (_, submission) in enumerate(submissions)}
        order: list[int] = []
        while waiting:
            if isinstance(waiting.first, Submission):
                limit = Limit(lambda: False, lambda sends: 1, entries, 1 << 20, 1000)
                staged = stage(waiting, Batch(self.stored.log), limit)
                self.assertTrue(staged)
                order += [numbers[id(submission)] for submission, events in staged for _ in events]
            else:
                order.append(numbers[id(waiting.first)])
                if not waiting.pop():
                    waiting.next_owner()
        wanted = [n for n, (_, size) in enumerate(added) for _ in range(size if isinstance(size, int) else 1)]
        self.assertEqual(sorted(order), wanted)
        by_owner = defaultdict(list)
        for number in order:
            by_owner[added[number][0]].append(number)
        for numbers_of_owner in by_owner.values():
            self.assertEqual(numbers_of_owner, sorted(numbers_of_owner))
        for place, number in enumerate(order):
            if added[number][1] is None:
                self.assertTrue(all(before < number for before in order[:place]))
                self.assertTrue(all(after > number for after in order[place + 1 :]))


class ClearTests(SynchronousTestCase):
    def test_nothing_is_left(self) -> None:
        waiting = FairQueue[Submission | Task]()
        all_of_them: list[Submission | Task] = [
            Submission([draft("a")], EVERYTHING, ignore),
            *(Task(ignore, ignore) for _ in range(3)),
        ]
        for submission, is_mark in zip(all_of_them, (False, True, False, True), strict=True):
            waiting.add("owner", submission, is_mark=is_mark)
        self.assertEqual(waiting.clear(), all_of_them)
        self.assertFalse(waiting)
