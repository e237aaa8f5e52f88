"""Reading the past in a thread: what the daemon does meanwhile, and what becomes of what is read."""

from __future__ import annotations

from collections.abc import Callable

from twisted.trial.unittest import SynchronousTestCase

from pushd.bus import NotInMemory
from pushd.bus.clientinfo import ClientInfo
from pushd.bus.closing import CloseCause
from pushd.bus.grants import EVERYTHING
from pushd.bus.replaying import Done
from pushd.bus.turn import Turn
from pushd.bus.work import Work
from pushd.errors import Unavailable
from pushd.sessions.long_work import LongWork
from pushd.store.sqlite import reader
from pushd.store.sqlite.schema import OFFSETS
from tests.rigs.builders import Kept, catch_up, datas, patterns
from tests.rigs.stored import StoredBusRig, directory


class ReadingTests(SynchronousTestCase):
    """A store of which nothing is in memory but what was just published."""

    def setUp(self) -> None:
        self.patch(reader, "_CHUNK_OFFSETS", 4)
        self.rig = StoredBusRig(
            self.enterContext(directory()),
            fetches=True,
            recent_bytes=1,
            max_held_bytes=10_000,
            kept={"few": Kept(4), "latest": Kept(4, on_overflow="latest")},
        )
        self.addCleanup(self.rig.end)
        self.steps = LongWork(self.rig.turns.call_later, Turn(self.rig.seconds))
        self.rig.bus.do_later = self.do_later

    def do_later(self, work: Work[None], is_gone: Callable[[], bool], caller: ClientInfo, done: Done) -> None:
        self.steps.run(work, is_gone).addCallbacks(done, lambda failure: done(failure.value))

    def publish(self, channel: str, *numbers: int) -> None:
        for number in numbers:
            self.rig.publish(channel, data=b"%d" % number)

    def fetch(self) -> int:
        """Let what is read be read; return how often."""
        count = 0
        while self.rig.fetching:
            self.rig.fetching.work()
            self.rig.fetching.answer()
            self.rig.settle()
            count += 1
        return count

    def test_a_replay_reads_chunk_by_chunk_in_the_thread_and_misses_nothing(self) -> None:
        self.publish("a", *range(20))
        client, subscription, start = self.rig.subscribe("a", since="earliest")
        self.assertTrue(start.recovered)
        reads = 0
        while subscription.is_replaying:
            catch_up(subscription)
            self.assertEqual(subscription.is_readable, not self.rig.fetching and subscription.is_replaying)
            reads += self.fetch()
        self.assertEqual(client.datas, [b"%d" % number for number in range(20)])
        self.assertEqual(reads, 6)  # 1 to 3, 4 to 7, 8 to 11, 12 to 15, 16 to 19, 20

    def test_many_who_replay_the_same_wait_for_one_read(self) -> None:
        self.publish("a", 1, 2, 3)
        clients = [self.rig.subscribe("a", since="earliest") for _ in range(50)]
        for _, subscription, _ in clients:
            catch_up(subscription)
        self.assertEqual(self.fetch(), 1)
        for client, subscription, _ in clients:
            catch_up(subscription)
            self.assertEqual(client.datas, [b"1", b"2", b"3"])

    def test_what_is_dropped_and_removed_while_it_is_read_is_not_called_damaged(self) -> None:
        for name, wanted, causes in (("few", [], [CloseCause.TOO_SLOW]), ("latest", [5, 6, 7, 8], [])):
            self.publish(name, 1, 2, 3, 4)
            client, subscription, _ = self.rig.subscribe(name, since="earliest")
            self.assertFalse(subscription.advance())
            self.publish(name, 5, 6, 7, 8)
            self.rig.tend()
            while subscription.is_replaying:
                self.fetch()
                catch_up(subscription)
            self.assertEqual(client.causes, causes)
            self.assertEqual(client.datas, [b"%d" % number for number in wanted])

    def test_a_position_is_found_in_the_thread_and_known_from_then_on(self) -> None:
        self.publish("a", *range(20))
        history = self.rig.log.by_name["a"].history
        for sequence in (7, 11):
            self.assertRaises(NotInMemory, history.after, sequence)
            done = self.steps.run(
                self.rig.bus.reading(patterns("a"), f"{self.rig.log.position[:10]}-{sequence}", 2, EVERYTHING)
            )
            self.assertGreater(self.fetch(), 0)
            page = self.successResultOf(done)
            self.assertEqual(datas(page.entries), [b"%d" % sequence, b"%d" % (sequence + 1)])
            found = history.after(sequence)
            self.assertEqual(found and found.offset, sequence + 1)
        self.assertEqual(self.fetch(), 0)

    def test_a_place_that_was_found_and_dropped_since_is_the_oldest(self) -> None:
        self.publish("latest", 1, 2, 3, 4)
        history = self.rig.log.by_name["latest"].history
        missing = self.assertRaises(NotInMemory, history.after, 2)
        missing.load()
        self.publish("latest", 5, 6, 7)
        missing = self.assertRaises(NotInMemory, history.after, 2)
        missing.load()
        found = history.after(2)
        self.assertEqual(found and found.offset, 4)

    def test_an_event_that_cannot_be_read_ends_the_replay_after_those_before_it(self) -> None:
        self.publish("a", *range(1, 10))
        self.rig.store._writer.execute("UPDATE block SET checksum = 1 WHERE place % ? = 6", (OFFSETS,))
        client, subscription, _ = self.rig.subscribe("a", since="earliest")
        while subscription.is_replaying:
            catch_up(subscription)
            self.fetch()
        self.assertEqual(client.datas, [b"1", b"2", b"3"])
        (reason,) = client.reasons
        self.assertIn("event 6 of channel 'a' cannot be read: its checksum is another", reason.text)

    def test_a_closed_store_says_so_to_whoever_still_reads(self) -> None:
        self.publish("a", 1, 2, 3)
        done = self.steps.run(self.rig.bus.reading(patterns("a"), "earliest", 2, EVERYTHING))
        self.rig.close()
        self.fetch()
        self.failureResultOf(done, Unavailable)
        self.rig.open()
