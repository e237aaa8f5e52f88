"""The index of names: what it finds is what a sorted list would have."""

from __future__ import annotations

from unittest import TestCase
from unittest.mock import patch

from hypothesis import given
from hypothesis import strategies as st

from pushd.bus import name_index as names
from pushd.bus.name_index import NameIndex

NAMES = st.text("ab/\U0010ffff", min_size=1, max_size=5)


class NameIndexTests(TestCase):
    @given(st.lists(st.tuples(st.booleans(), NAMES)), NAMES | st.just(""), NAMES | st.just(""), st.integers(1, 9))
    def test_it_finds_names_by_their_beginnings(
        self, changes: list[tuple[bool, str]], prefix: str, after: str, count: int
    ) -> None:
        index, wanted = NameIndex(), set[str]()
        with patch.object(names, "_BLOCK", 4):
            for is_added, name in changes:
                if is_added and name not in wanted:
                    index.add(name)
                    wanted.add(name)
                elif name in wanted:
                    index.remove(name)
                    wanted.remove(name)
        found = [name for name in sorted(wanted) if name.startswith(prefix) and name > after]
        self.assertEqual(index.some(prefix, after, count), found[:count])
        self.assertEqual(len(index), len(wanted))
        self.assertEqual(list(index._lasts), [block[-1] for block in index._blocks])
        self.assertTrue(all(len(block) <= 4 for block in index._blocks))

    def test_it_counts_about_how_many_there_are(self) -> None:
        index = NameIndex()
        for number in range(20_000):
            index.add(f"{'ab'[number % 2]}/{number}")
        for prefix, count in (("", 20_000), ("a/", 10_000), ("b/1", 5556), ("c", 0)):
            self.assertLessEqual(abs(index.count(prefix) - count), 2000, prefix)
