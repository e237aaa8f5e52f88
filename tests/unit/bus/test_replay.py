"""The replay: several histories and what is held back, in the order of the log."""

from __future__ import annotations

import gc
from collections.abc import Callable
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from pushd.bus.cursors import Overtaken
from pushd.bus.event import Entry
from pushd.bus.history import MemoryHistory
from pushd.bus.partitioned_dict import PartitionedDict
from pushd.bus.replay import ENTRY_BYTES, Replay
from pushd.bus.work import Work, drain
from pushd.errors import Unavailable
from tests.rigs.builders import Kept, entry


def history_of(channel: str, *sequences: int) -> MemoryHistory:
    history = MemoryHistory(Kept(1000), 0)
    for offset, sequence in enumerate(sequences, 1):
        history.extend([entry(sequence, offset, channel=channel)])
    return history


class ReplayTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.replay = Replay()

    def rest(self) -> list[tuple[int, str]]:
        """Read to the end: the sequence and the channel of each entry."""
        found = []
        while (one := self.replay.next()) is not None:
            found.append((one.event.sequence, one.channel))
        return found

    def test_without_anything_to_read_it_is_at_its_end(self) -> None:
        self.assertEqual(self.rest(), [])
        self.replay.add(MemoryHistory(Kept(1000), 5), 0)
        self.assertEqual(self.rest(), [])

    def test_it_reads_what_came_after_the_position(self) -> None:
        self.replay.add(history_of("a", 1, 4, 6), 1)
        self.assertEqual(self.rest(), [(4, "a"), (6, "a")])

    def test_histories_are_merged_in_the_order_of_the_log(self) -> None:
        self.replay.add(history_of("a", 1, 4, 6), 0)
        self.replay.add(history_of("b", 2, 3, 7), 0)
        self.assertEqual(self.rest(), [(1, "a"), (2, "b"), (3, "b"), (4, "a"), (6, "a"), (7, "b")])

    def test_an_event_of_several_channels_comes_once(self) -> None:
        self.replay.add(history_of("a", 1, 4), 0)
        self.replay.add(history_of("b", 1, 2, 4), 0)
        self.replay.add(history_of("c", 4), 0)
        self.assertEqual([sequence for sequence, _ in self.rest()], [1, 2, 4])

    def test_no_table_of_many_cursors_grows_in_one_piece(self) -> None:
        for number in range(5000):
            self.replay.add(history_of(f"c/{number}", number + 1), 0)
        assert isinstance(self.replay._cursors, PartitionedDict)
        self.assertLess(max(map(len, self.replay._cursors.parts)), 200)
        self.assertEqual(self.replay.width, 5000)
        self.assertEqual([sequence for sequence, _ in self.rest()], list(range(1, 5001)))
        self.assertEqual(self.replay.width, 0)

    def test_an_abandoned_replay_leaves_nothing_to_the_garbage_collector(self) -> None:
        gc.collect()
        gc.disable()
        self.addCleanup(gc.enable)
        for number in range(2000):
            self.replay.add(history_of(f"c/{number}", number + 1), 0)
        for free in self.replay.clearing():
            free()
        del self.replay
        self.assertLess(gc.collect(), 100)

    def test_what_is_appended_later_is_left_to_hold(self) -> None:
        history = history_of("a", 1, 2)
        self.replay.add(history, 0)
        history.extend([entry(3)])
        self.assertEqual(self.rest(), [(1, "a"), (2, "a")])

    def test_what_is_held_comes_after_the_histories_and_in_its_order(self) -> None:
        self.replay.add(history_of("a", 1, 2), 0)
        self.replay.hold(entry(3, channel="b"))
        self.replay.hold(entry(4, channel="a"))
        self.assertEqual(self.rest(), [(1, "a"), (2, "a"), (3, "b"), (4, "a")])

    def test_what_is_both_held_and_in_a_history_comes_once(self) -> None:
        self.replay.hold(entry(3, channel="a"))
        self.replay.add(history_of("b", 1, 3), 0)
        self.assertEqual([sequence for sequence, _ in self.rest()], [1, 3])

    def test_at_its_end_it_may_be_given_more(self) -> None:
        self.replay.add(history_of("a", 1), 0)
        self.rest()
        self.replay.hold(entry(5))
        self.assertEqual(self.rest(), [(5, "a")])

    def test_held_bytes_are_those_that_wait(self) -> None:
        self.replay.add(history_of("a", 1), 0)
        self.replay.hold(entry(2, data=b"12345"))
        self.replay.hold(entry(3, data=b"123"))
        self.assertEqual(self.replay.held_bytes, 2 * ENTRY_BYTES + 8)
        seen = []
        while self.replay.next() is not None:
            seen.append(self.replay.held_bytes)
        self.assertEqual(seen, [2 * ENTRY_BYTES + 8, ENTRY_BYTES + 3, 0])

    def test_held_bytes_of_an_event_that_came_already_are_let_go_too(self) -> None:
        self.replay.hold(entry(2, channel="a", data=b"12345"))
        self.replay.hold(entry(2, channel="b", data=b"12345"))
        self.rest()
        self.assertEqual(self.replay.held_bytes, 0)

    def test_a_history_that_drops_what_was_to_come_next_overtakes_it(self) -> None:
        history = history_of("a", 1, 2, 3)
        self.replay.add(history, 0)
        history.drop()
        history.drop()
        self.assertRaises(Overtaken, self.replay.next)

    def test_a_history_that_drops_what_was_read_already_does_no_harm(self) -> None:
        history = history_of("a", 1, 2, 3)
        self.replay.add(history, 0)
        self.replay.next()
        self.replay.next()
        history.drop()
        history.drop()
        self.assertEqual(self.rest(), [(3, "a")])

    def test_what_is_held_cannot_be_overtaken(self) -> None:
        history = history_of("a", 1)
        self.replay.add(history, 0)
        for sequence in (2, 3):
            history.extend([entry(sequence)])
            self.replay.hold(entry(sequence))
        while history:
            history.drop()
        self.assertEqual([sequence for sequence, _ in self.rest()], [1, 2, 3])


class Unreadable(MemoryHistory):
    """A history whose entries from an offset on cannot be read."""

    first_bad = 3

    def at(self, offset: int) -> Entry | None:
        if offset >= self.first_bad:
            raise Unavailable("cannot be read")
        return super().at(offset)

    def run(self, first: int, count: int) -> list[Entry]:
        return super().run(first, min(count, self.first_bad - first))


class FaultTests(SynchronousTestCase):
    def setUp(self) -> None:
        history = Unreadable(Kept(1000), 0)
        history.extend([entry(sequence) for sequence in range(1, 6)])
        self.replay = Replay()
        self.replay.add(history, 0)

    def test_a_run_before_what_cannot_be_read_is_answered_and_then_the_fault(self) -> None:
        self.assertEqual([one.offset for one in self.replay.run(1000)], [1, 2])
        for _ in range(2):
            self.assertRaises(Unavailable, self.replay.run, 1000)
            self.assertRaises(Unavailable, self.replay.next)

    def test_single_steps_as_well(self) -> None:
        found = [self.replay.next(), self.replay.next()]
        self.assertEqual([one and one.offset for one in found], [1, 2])
        self.assertRaises(Unavailable, self.replay.next)


class LeftToHistoriesTests(SynchronousTestCase):
    """Events published meanwhile that `read_later` leaves to their histories."""

    def setUp(self) -> None:
        self.replay = Replay()
        self.histories = {"a": history_of("a"), "b": history_of("b")}

    def leave(self, sequence: int, *, missable: str = "") -> None:
        """Publish an event to both channels and leave it to them; it may be missed in the channel `missable`."""
        entries = [
            replace(entry(sequence, channel=name), may_be_missed=name == missable) for name in self.histories
        ]
        for one in entries:
            self.histories[one.channel].extend([one])
        self.assertTrue(self.replay.read_later(entries, lambda found: self.histories[found.channel]))

    def rest(self) -> list[tuple[int, str]]:
        return [(one.event.sequence, one.channel) for one in iter(self.replay.next, None)]

    def test_they_come_once_and_in_order(self) -> None:
        for sequence in (1, 2, 3):
            self.leave(sequence)
        self.assertEqual([sequence for sequence, _ in self.rest()], [1, 2, 3])

    def test_one_that_is_gone_and_may_not_be_missed_overtakes_the_replay(self) -> None:
        self.leave(1)
        self.histories["a"].drop()
        self.assertRaises(Overtaken, self.rest)

    def test_one_that_is_gone_and_may_be_missed_is_left_out(self) -> None:
        self.leave(1, missable="b")
        self.histories["b"].drop()
        self.assertEqual(self.rest(), [(1, "a")])
        self.assertEqual(self.replay.width, 0)

    def test_after_one_that_may_be_missed_its_history_goes_on_in_the_order_of_the_log(self) -> None:
        for sequence in (1, 2, 3):
            self.leave(sequence, missable="b")
        self.histories["b"].drop()
        self.histories["b"].drop()
        self.assertEqual([sequence for sequence, _ in self.rest()], [1, 2, 3])
        self.assertEqual(self.replay.width, 0)

    def test_what_was_published_after_them_is_not_read(self) -> None:
        """It is delivered live."""
        self.leave(1, missable="b")
        self.histories["b"].drop()
        self.histories["b"].extend([entry(2, channel="b")])
        self.assertEqual(self.rest(), [(1, "a")])

    def test_one_that_cannot_be_read_ends_the_replay(self) -> None:
        self.histories["a"] = Unreadable(Kept(1000), 0)
        for sequence in (1, 2, 3):
            self.histories["a"].extend([entry(sequence)])
        one = self.histories["a"].run(1, 2)[-1]
        later = replace(one, offset=3)
        self.assertTrue(self.replay.read_later([later], lambda found: self.histories["a"]))
        for _ in range(2):
            self.assertRaises(Unavailable, self.replay.next)


class RunTests(SynchronousTestCase):
    def test_a_run_ends_before_what_another_source_has_in_between(self) -> None:
        replay = Replay()
        replay.add(history_of("a", 1, 2, 5, 6), 0)
        replay.add(history_of("b", 4, 5), 0)
        self.assertEqual([one.event.sequence for one in replay.run(1000)], [1, 2])
        self.assertEqual([one.channel for one in replay.run(1000)], ["b"])

    def test_a_run_has_about_as_many_bytes_as_are_wanted(self) -> None:
        history = MemoryHistory(Kept(1000), 0)
        history.extend([entry(sequence, data=bytes(10)) for sequence in range(1, 10)])
        replay = Replay()
        replay.add(history, 0)
        self.assertEqual([len(replay.run(most)) for most in (0, 9, 10, 25)], [1, 1, 2, 3])

    def test_a_run_of_what_was_dropped_is_empty_and_next_says_so(self) -> None:
        history = history_of("a", 1, 2)
        replay = Replay()
        replay.add(history, 0)
        history.drop()
        history.drop()
        self.assertEqual(replay.run(1000), [])
        self.assertRaises(Overtaken, replay.next)

    @given(
        st.lists(st.lists(st.integers(1, 30), unique=True, max_size=20).map(sorted), min_size=1, max_size=3),
        st.lists(st.integers(20, 50), unique=True, max_size=5).map(sorted),
        st.lists(st.one_of(st.none(), st.integers(0, 8)), max_size=60),
        st.integers(0, 12),
    )
    def test_runs_and_single_steps_in_any_order_give_the_same(
        self, channels: list[list[int]], held: list[int], steps: list[int | None], since: int
    ) -> None:
        def replay() -> Replay:
            made = Replay()
            for number, sequences in enumerate(channels):
                made.add(history_of("abc"[number], *sequences), since)
            for sequence in held:
                made.hold(entry(sequence, channel="d"))
            return made

        wanted = [one.event.sequence for one in iter(replay().next, None)]
        mixed, found = replay(), list[int]()
        for step in steps:
            if step is not None:
                found += [one.event.sequence for one in mixed.run(step)]
            elif (one := mixed.next()) is not None:
                found.append(one.event.sequence)
        found += [one.event.sequence for one in iter(mixed.next, None)]
        self.assertEqual(found, wanted)
        self.assertEqual(mixed.held_bytes, 0)


def wide(prefix: str, count: int, first: int = 1) -> Replay:
    """Return a replay of so many channels with one event each."""
    replay = Replay()
    for number in range(count):
        replay.add(history_of(f"{prefix}/{number}", first + number), 0)
    return replay


def most_in_one_step(work: Work[None], measure: Callable[[], int]) -> int:
    """Do a work; return by how much `measure` grows at most in one of its steps."""
    most, before = 0, measure()
    for _ in work:
        most, before = max(most, measure() - before), measure()
    return most


class TidyingTests(SynchronousTestCase):
    """What concerns all cursors is done in steps."""

    COUNT = 2000

    def setUp(self) -> None:
        self.asked = 0
        self.wanted = "b/"

    def is_wanted(self, name: str) -> bool:
        """Return whether a channel is wanted, and count how often that is asked."""
        self.asked += 1
        return name.startswith(self.wanted)

    def left(self, *replays: Replay) -> int:
        """Return how much is still to be freed."""
        return sum(len(each._heap) + len(each._rest) + len(each._cursors) for each in replays)

    def both(self) -> Replay:
        """Return a replay of many channels, half of which are wanted."""
        replay = wide("a", self.COUNT)
        replay.join(wide("b", self.COUNT, self.COUNT))
        drain(replay.tidying(self.is_wanted))
        return replay

    def rest(self, replay: Replay) -> list[str]:
        """Read to the end."""
        return [one.channel for one in iter(replay.next, None)]

    def test_what_is_not_wanted_is_left_out_a_few_in_each_step(self) -> None:
        replay = self.both()
        replay.leave_out()
        self.assertEqual((self.asked, replay.is_tidy, replay.width), (0, False, 2 * self.COUNT))
        work = replay.tidying(self.is_wanted)
        self.assertLessEqual(most_in_one_step(work, lambda: self.asked), 8)
        self.assertEqual((self.asked, replay.is_tidy, replay.width), (2 * self.COUNT, True, self.COUNT))
        self.assertEqual(self.rest(replay), [f"b/{number}" for number in range(self.COUNT)])

    def test_another_is_joined_a_few_cursors_in_each_step(self) -> None:
        replay, other = wide("a", self.COUNT), wide("b", self.COUNT)
        replay.join(other)
        self.assertEqual((replay.is_tidy, replay.width, other.width), (False, self.COUNT, self.COUNT))
        self.assertLessEqual(most_in_one_step(replay.tidying(self.is_wanted), lambda: replay.width), 20)
        self.assertEqual((replay.is_tidy, replay.width, other.width), (True, 2 * self.COUNT, 0))
        self.assertEqual(len(self.rest(replay)), self.COUNT)  # the same events

    def test_it_is_cut_a_few_cursors_in_each_step(self) -> None:
        replay = wide("a", self.COUNT)
        self.assertLessEqual(most_in_one_step(replay.cutting(10), lambda: -replay.width), 8)
        self.assertEqual(self.rest(replay), [f"a/{number}" for number in range(10)])

    def test_held_events_are_looked_at_a_few_in_each_step(self) -> None:
        replay = Replay()
        for sequence in range(1, self.COUNT + 1):
            replay.hold(entry(sequence, channel="a/1" if sequence % 2 else "b/1"))
        replay.leave_out()
        self.assertLessEqual(most_in_one_step(replay.tidying(self.is_wanted), lambda: self.asked), 8)
        self.assertEqual((replay.held, replay.held_bytes), (self.COUNT // 2, self.COUNT // 2 * (ENTRY_BYTES + 1)))
        self.assertEqual(self.rest(replay), ["b/1"] * (self.COUNT // 2))

    def test_what_ceases_to_be_wanted_meanwhile_is_left_out_too(self) -> None:
        replay = self.both()
        replay.leave_out()
        work = replay.tidying(self.is_wanted)
        for _ in range(900):
            next(work)
        self.wanted = "b/1"
        replay.leave_out()
        drain(work)
        self.assertEqual({name[:3] for name in self.rest(replay)}, {"b/1"})

    def test_two_works_at_once_do_it_together(self) -> None:
        replay = self.both()
        replay.join(wide("b2", 100))
        replay.leave_out()
        first = replay.tidying(self.is_wanted)
        for _ in range(300):
            next(first)
        drain(replay.tidying(self.is_wanted))
        self.assertTrue(replay.is_tidy)
        self.assertEqual(list(first), [])
        self.assertEqual(len(self.rest(replay)), self.COUNT)

    def test_what_is_published_between_the_steps_comes_once(self) -> None:
        histories = {f"b/{number}": history_of(f"b/{number}", number + 1) for number in range(100)}
        replay, other = wide("a", 100), Replay()
        for history in histories.values():
            other.add(history, 0)
        replay.join(other)
        replay.leave_out()
        sequence, work = 1000, replay.tidying(self.is_wanted)
        for step, _ in enumerate(work):
            for name in (f"b/{step % 100}", f"c/{step}"):
                sequence += 1
                one = entry(sequence, 2 + step // 100, channel=name)
                history = histories.setdefault(name, MemoryHistory(Kept(1000), 0))
                history.extend([one])
                if name.startswith("b/") and step % 3:
                    self.assertTrue(replay.read_later([one], lambda found: histories[found.channel]))
                elif name.startswith("b/"):
                    replay.hold(one)
        found = [one.event.sequence for one in iter(replay.next, None)]
        self.assertEqual(found, sorted({*range(1, 101), *range(1001, sequence, 2)}))

    def test_it_is_freed_in_slices_whatever_was_still_to_be_done(self) -> None:
        for steps in (0, 50, 200, 700):
            with self.subTest(steps):
                replay = wide("a", self.COUNT)
                others = [wide("b", self.COUNT), wide("c", self.COUNT)]
                for other in others:
                    replay.join(other)
                replay.leave_out()
                work = replay.tidying(self.is_wanted)
                for _ in range(steps):
                    next(work)
                work.close()

                before = self.left(replay, *others)
                for call in replay.clearing():
                    call()
                    after = self.left(replay, *others)
                    self.assertLessEqual(before - after, 200)
                    before = after
                self.assertLessEqual(before, 450)

    def test_of_many_held_events_no_more_are_left_to_their_histories_than_is_needed(self) -> None:
        asked = 0

        def find(one: Entry) -> MemoryHistory:
            nonlocal asked
            asked += 1
            return history

        history, replay = history_of("a", *range(1, 4001)), Replay()
        for one in history.run(1, 4000):
            replay.hold(one)
        replay.hold_less(find, replay.held_bytes - 1)
        self.assertLessEqual(asked, 500)
        self.assertEqual(replay.held, 4000 - asked)
        self.assertEqual([one.event.sequence for one in iter(replay.next, None)], list(range(1, 4001)))
