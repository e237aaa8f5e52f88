"""The history of one channel, held against a plain list."""

from __future__ import annotations

import unittest
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from pushd.bus.event import Entry
from pushd.bus.history import MemoryHistory
from pushd.bus.partitioned_dict import PARTS
from pushd.bus.sizes import EVENT_BYTES
from tests.rigs.builders import Kept, entry


def made(kept: Kept | None = None, dropped: int = 0) -> MemoryHistory:
    """Make an empty history; it drops nothing by itself."""
    return MemoryHistory(kept or Kept(1000), dropped)


def filled(*sequences: int) -> MemoryHistory:
    """Make a history of entries at `sequences` of the log, their offsets 1, 2, 3, ..."""
    history = made()
    for offset, sequence in enumerate(sequences, 1):
        history.extend([entry(sequence, offset)])
    return history


class HistoryTests(SynchronousTestCase):
    def assertFinds(self, found: Entry | None, sequence: int | None) -> None:
        self.assertEqual(None if found is None else found.event.sequence, sequence)

    def test_what_was_dropped_is_not_held_any_more(self) -> None:
        history = filled(*range(1, 100))
        dropped = [history.drop() for _ in range(49)]
        self.assertEqual([one for one in dropped if one in history._entries], [])

    def test_an_empty_history_has_nothing_and_remembers_what_came_before_it(self) -> None:
        history = made(dropped=7)
        self.assertEqual((len(history), history.oldest, history.latest, history.dropped), (0, None, None, 7))
        self.assertEqual((history.after(0), history.at(0), history.at(1)), (None, None, None))

    def test_oldest_and_latest_are_the_ends(self) -> None:
        history = filled(3, 5, 9)
        self.assertFinds(history.oldest, 3)
        self.assertFinds(history.latest, 9)

    def test_after_answers_the_first_that_came_later(self) -> None:
        history = filled(3, 5, 9)
        for sequence, found in ((0, 3), (2, 3), (3, 5), (4, 5), (5, 9), (8, 9), (9, None), (100, None)):
            self.assertFinds(history.after(sequence), found)

    def test_at_answers_by_offset_what_is_there(self) -> None:
        history = filled(3, 5, 9)
        history.drop()
        for offset, found in ((-1, None), (0, None), (1, None), (2, 5), (3, 9), (4, None)):
            self.assertFinds(history.at(offset), found)

    def test_drop_takes_the_oldest_and_remembers_its_place(self) -> None:
        history = filled(3, 5, 9)
        self.assertFinds(history.drop(), 3)
        self.assertEqual(history.dropped, 3)
        self.assertFinds(history.oldest, 5)
        self.assertFinds(history.after(0), 5)

    def test_trim_takes_what_is_too_much_and_then_what_has_expired(self) -> None:
        kept, forgotten = Kept(4), list[int]()
        given = [{entry(offset).event.id for offset in range(9)}] * PARTS
        history = MemoryHistory(kept, 0, given, lambda entry: forgotten.append(entry.offset))
        for offset, expires_s in enumerate((10.0, 20.0, 30.0, 40.0), 1):
            event = replace(entry(offset).event, counts_name=True)  # a publisher gave its id
            history.extend([Entry(event, "a", offset, expires_s)])
        for size, seconds, dropped in ((4, 9.9, []), (3, 0.0, [1]), (3, 30.0, [2, 3])):
            kept.history_size = size
            history.trim(seconds)
            self.assertEqual(forgotten, dropped)
            forgotten.clear()
        self.assertEqual((history.dropped, history.sequence, len(history)), (3, 4, 1))
        self.assertEqual((history.expires_s, history.oldest_sequence), (40.0, 4))
        kept.history_size = 0
        history.trim(0.0)
        self.assertEqual(forgotten, [4])
        history.trim(99.0)
        self.assertEqual((history.oldest, history.dropped, history.sequence), (None, 4, 4))

    def test_trim_takes_what_is_over_the_size_in_bytes(self) -> None:
        history = made(Kept(history_bytes=2 * EVENT_BYTES + 10))
        for offset, size in enumerate((5, 5, 6, 4, 4), 1):
            history.extend([entry(offset, data=bytes(size))])
            history.trim(0.0)
        self.assertEqual((history.dropped, len(history), history.size_bytes), (3, 2, 2 * EVENT_BYTES + 8))
        history.extend([entry(6, data=bytes(1000))])
        history.trim(0.0)
        self.assertEqual((history.dropped, len(history), history.size_bytes), (6, 0, 0))
        self.assertFalse(history.holds(6))

    def test_clear_takes_everything(self) -> None:
        history = filled(3, 5, 9)
        self.assertTrue(history.holds(2))
        history.clear()
        self.assertEqual((len(history), history.dropped, history.sequence, history.size_bytes), (0, 9, 9, 0))

    def test_emptied_it_takes_entries_again(self) -> None:
        history = filled(3)
        history.drop()
        self.assertEqual((len(history), history.oldest, history.latest, history.dropped), (0, None, None, 3))
        history.extend([entry(8, 2)])
        self.assertFinds(history.at(2), 8)
        self.assertEqual(history.dropped, 3)

    def test_what_was_dropped_is_let_go_of_in_the_long_run(self) -> None:
        history = made()
        for sequence in range(1, 1001):
            history.extend([entry(sequence)])
            if sequence > 10:
                history.drop()
        self.assertEqual(len(history), 10)
        self.assertLessEqual(len(history._entries), 21)


class HistoryPropertyTests(unittest.TestCase):
    @given(st.lists(st.one_of(st.integers(1, 3), st.none()), max_size=60))
    def test_it_agrees_with_a_list_whatever_is_appended_and_dropped(self, steps: list[int | None]) -> None:
        history, kept, dropped, sequence, offset = made(), list[Entry](), 0, 0, 0
        for step in steps:
            if step is not None:
                sequence, offset = sequence + step, offset + 1
                kept.append(entry(sequence, offset))
                history.extend([kept[-1]])
            elif kept:
                oldest = kept.pop(0)
                dropped = oldest.event.sequence
                self.assertIs(history.drop(), oldest)
        self.assertEqual((len(history), history.dropped), (len(kept), dropped))
        self.assertIs(history.oldest, kept[0] if kept else None)
        self.assertIs(history.latest, kept[-1] if kept else None)
        for place in range(sequence + 2):
            later = [one for one in kept if one.event.sequence > place]
            self.assertIs(history.after(place), later[0] if later else None)
            here = [one for one in kept if one.offset == place]
            self.assertIs(history.at(place), here[0] if here else None)
