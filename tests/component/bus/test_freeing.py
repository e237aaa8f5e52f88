"""Many entries that are dropped at once: they are gone at once, and freed in steps."""

from __future__ import annotations

from collections.abc import Generator

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from pushd.bus import history
from pushd.bus import history as entries
from pushd.bus.event import Entry
from pushd.bus.grants import EVERYTHING
from pushd.bus.history import FEW, Entries, MemoryHistory, freeing
from pushd.bus.storage import MemoryStorage
from tests.rigs.builders import BusRig, Kept, entry, patterns
from tests.rigs.daemon import DaemonTests

MANY = 50_000
STEP = 50


def some(first: int, count: int, expires_s: float = 1e9) -> list[Entry]:
    """Make entries that follow each other."""
    return [Entry(entry(offset).event, "a", offset, expires_s) for offset in range(first, first + count)]


class FreeingTests(SynchronousTestCase):
    def test_each_step_frees_a_few_the_oldest_first(self) -> None:
        gone, forgotten = some(1, 1001), list[int]()
        steps = 0
        for _ in freeing(gone, lambda one: forgotten.append(one.offset)):
            steps += 1
            self.assertEqual(len(forgotten) + len(gone), 1001)
            self.assertLessEqual(len(forgotten), STEP * steps)
        self.assertEqual((steps, gone, forgotten), (21, [], list(range(1, 1002))))

    def test_entries_give_away_many_and_keep_the_rest(self) -> None:
        for count, is_given in ((FEW, False), (FEW + 1, True), (999, True), (1000, True)):
            kept = Entries()
            kept.extend(some(1, 1000))
            gone = kept.drop_until(count + 1)
            self.assertEqual((len(gone), len(kept)), (count * is_given, 1000 - count))
            self.assertEqual(kept.at(count + 1) is None, count == 1000)


class HistoryTests(SynchronousTestCase):
    def made(self, kept: Kept) -> MemoryHistory:
        """Make a history that gives away what it drops at once."""
        self.freed: list[list[Entry]] = []
        self.forgotten: list[Entry] = []
        every = [{one.event.id for one in some(1, 5)}] * 251
        return MemoryHistory(kept, 0, every, self.forgotten.append, free=self.freed.append, event_bytes=7)

    def test_to_clear_one_of_many_looks_at_none(self) -> None:
        made = self.made(Kept(MANY))
        made.extend(some(1, MANY))
        made.clear()
        self.assertEqual((len(made), made.size_bytes, made.dropped, self.forgotten), (0, 0, MANY, []))
        self.assertEqual(list(map(len, self.freed)), [MANY])

    def test_of_too_many_some_are_dropped_each_time(self) -> None:
        kept = Kept(MANY)
        made = self.made(kept)
        made.extend(some(1, MANY))
        kept.history_size = 10
        lengths = []
        while len(made) > 10:
            before = len(made)
            made.trim(0)
            lengths.append(before - len(made))
        self.assertLessEqual(max(lengths), history._MOST_DROPPED + FEW)
        self.assertLess(len(lengths), 5)
        last = some(MANY - 9, 10)
        self.assertEqual(made.size_bytes, sum(one.event.size + 7 for one in last))

    def test_nothing_that_has_expired_is_left(self) -> None:
        made = self.made(Kept(MANY))
        made.extend(some(1, MANY - 1, 5.0) + some(MANY, 1, 9.0))
        made.trim(5.0)
        self.assertEqual((len(made), made.dropped), (1, MANY - 1))

    OPS = st.lists(
        st.tuples(st.sampled_from(("extend", "size", "bytes", "time", "clear", "drop")), st.integers(0, 30)),
        max_size=30,
    )

    @given(OPS)
    def test_it_ends_as_one_that_drops_each_by_itself(self, operations: list[tuple[str, int]]) -> None:
        self.patch(history, "FEW", 3)
        self.patch(entries, "FEW", 3)
        kept, now = Kept(1000), 0.0
        made, twin = self.made(kept), MemoryHistory(kept, 0, event_bytes=7)
        for name, number in operations:
            if name == "extend" and number:
                first = 1 + (twin.latest.offset if twin.latest is not None else twin.dropped)
                following = some(first, number, now + number % 7)
                made.extend(following)
                twin.extend(following)
            elif name == "size":
                kept.history_size = number
            elif name == "bytes":
                kept.history_bytes = number * 100
            elif name == "time":
                now += number / 10
            elif name == "clear":
                made.clear()
                twin.clear()
            elif name == "drop" and twin:
                made.drop()
                twin.drop()
            for one in made, twin:
                one.trim(now)
            shown = [(len(one), one.size_bytes, one.dropped, one.sequence, one.oldest) for one in (made, twin)]
            self.assertEqual(shown[0], shown[1])


class GivenTests(SynchronousTestCase):
    """Ids that publishers gave, of events that are freed later."""

    def setUp(self) -> None:
        self.world = BusRig(default=Kept(1000))
        self.later: list[Generator[None, None, None]] = []
        self.world.archive.later = self.later.append

    def fill(self) -> None:
        """Publish many events with ids, some of them to another channel first."""
        for number in range(FEW + 50):
            self.world.publish(*(("a",) if number % 2 else ("b", "a")), id=f"id-{number}")

    def test_an_id_is_free_as_soon_as_its_channel_was_cleared(self) -> None:
        self.fill()
        self.world.bus.delete("a", EVERYTHING)
        self.assertEqual(len(self.later), 1)
        again = self.world.publish("a", id="id-1")
        self.assertFalse(again.is_duplicate)
        self.assertEqual(again.offset, FEW + 51)
        self.assertIsNone(self.world.log.where("id-3", patterns("a")))
        self.assertIsNotNone(self.world.log.where("id-1", patterns("a")))
        self.finish()
        self.assertTrue(self.world.publish("a", id="id-1").is_duplicate, "the new one is not forgotten")

    def test_nothing_of_them_is_left_whichever_way_they_go(self) -> None:
        self.fill()
        self.world.bus.delete("a", EVERYTHING)
        self.fill()  # the same ids, while the others are being forgotten; those of "b" are there
        for name in "a", "b":
            self.world.bus.delete(name, EVERYTHING)
        self.finish()
        self.assertEqual(len(self.world.archive._given), 0)

    def finish(self) -> None:
        """Do what is to be done later, the last first."""
        while self.later:
            for _ in self.later.pop():
                pass


class DaemonFreeingTests(DaemonTests):
    config = "[pushd]\nstore = memory\n[channels]\nhistory_size = 1000000\n"

    def test_the_daemon_frees_them_with_its_other_long_work(self) -> None:
        archive = self.rig.parts.bus.log._archive
        assert isinstance(archive, MemoryStorage)
        steps = self.rig.parts.sessions.steps
        begun = len(steps)
        waits: Deferred[None] = Deferred()

        def other() -> Generator[None, None, None]:
            while not waits.called:
                yield

        self.patch(self.rig.parts.sessions.steps, "_credit_s", -1.0)
        steps.run(other())
        archive.later(freeing(some(1, 1000)))
        self.assertEqual(len(steps), begun + 2)
        waits.callback(None)
        self.rig.turn()
        self.assertEqual(len(steps), 0)
