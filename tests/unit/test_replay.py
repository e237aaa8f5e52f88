"""The replay: several histories and what is held back, in the order of the log."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from pushd.errors import Unavailable
from pushd.event import Entry
from pushd.history import MemoryHistory
from pushd.replay import ENTRY_BYTES, Overtaken, Replay
from tests.builders import Kept, entry


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
