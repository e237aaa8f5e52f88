"""Many patterns at once: the same is found as by one after the other, at a cost that has a bound."""

from __future__ import annotations

from itertools import product
from unittest.mock import patch

from hypothesis import HealthCheck, given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from pushd.bus import many_patterns as manypatterns
from pushd.bus.many_patterns import BLOCK_BITS, ManyPatterns, _Block
from pushd.bus.patterns import MAX_REPEATS, Pattern, PatternTree
from tests.rigs.effort import examples

MARKS = "/."
SEGMENTS = st.sampled_from(["a", "b", "*", "**", ""])


def texts(segments: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    """Return names or patterns of some `segments`."""
    first = segments.filter(bool)
    rest = st.lists(st.tuples(st.sampled_from(MARKS), segments), max_size=7)
    return st.tuples(first, rest).map(lambda both: both[0] + "".join(mark + one for mark, one in both[1]))


PATTERNS = texts(SEGMENTS).filter(lambda text: text.count("**") <= MAX_REPEATS)
NAMES = texts(st.sampled_from(["a", "b", ""]))


class MatchTests(SynchronousTestCase):
    @examples(150, suppress_health_check=[HealthCheck.too_slow])
    @given(
        st.lists(st.tuples(PATTERNS, st.sampled_from("xyz")), max_size=12),
        st.lists(NAMES, min_size=5),
        st.randoms(),
    )
    def test_it_finds_what_a_tree_and_each_pattern_find_whatever_was_removed(
        self, filed: list[tuple[str, str]], names: list[str], random: object
    ) -> None:
        many: ManyPatterns[str] = ManyPatterns()
        tree: PatternTree[str] = PatternTree()
        with patch.object(manypatterns, "BLOCK_BITS", 24):
            for text, value in filed:
                for one in (many, tree):
                    one.add(Pattern.parse(text), value)
            random.shuffle(filed)  # type: ignore[attr-defined]
            while True:
                for name in names:
                    found = list(many.match(name))
                    self.assertEqual(sorted(found), sorted(tree.match(name)), name)
                    self.assertEqual(len(set(found)), len(found))
                    self.assertEqual(
                        set(found), {value for text, value in filed if Pattern.parse(text).matches(name)}
                    )
                self.assertEqual(len(many), len(filed))
                if not filed:
                    break
                text, value = filed.pop()
                for one in (many, tree):
                    one.remove(Pattern.parse(text), value)
        self.assertEqual((many._places, sum(block.used for block in many._blocks)), ({}, 0))


class CostTests(SynchronousTestCase):
    """In steps of blocks, each of which is a few operations on integers of 2 KiB."""

    def setUp(self) -> None:
        self.many: ManyPatterns[str] = ManyPatterns()
        stars = ["/a", "/*", "/a/**/a", "/a"]
        self.texts = ["*/a" + "".join(rest) for rest in product(stars, repeat=6)][:2000]
        self.texts = [text for text in self.texts if text.count("**") <= MAX_REPEATS]

    def steps(self, name: str) -> int:
        """Count how many blocks are asked for how many places that fit."""
        count = 0

        def with_empty(block: _Block[str], places: int) -> int:
            nonlocal count
            count += 1
            return original(block, places)

        original = _Block._with_empty
        with patch.object(_Block, "_with_empty", with_empty):
            list(self.many.match(name))
        return count

    def test_2000_patterns_that_all_fit_cost_a_step_of_each_block_for_each_token(self) -> None:
        for text in self.texts:
            self.many.add(Pattern.parse(text), text)
        bits = sum(len(Pattern.parse(text).paths[0]) + 1 for text in set(self.texts))
        blocks = bits // (BLOCK_BITS - 256) + 1
        self.assertLessEqual(len(self.many._blocks), blocks)
        self.assertGreater(self.steps("a" + "/a" * 127), 100)
        self.assertLessEqual(self.steps("a" + "/a" * 127), 129 * blocks)

    def test_patterns_with_one_star_cost_no_step(self) -> None:
        for text in ("a/*", "*/b", "a/**", "*", "**", "a.*:b"):
            self.many.add(Pattern.parse(text), text)
        self.assertEqual((self.steps("a/b"), self.many._blocks), (0, []))
        self.assertEqual(set(self.many.match("a/b")), {"a/*", "*/b", "a/**", "**"})

    def test_who_comes_and_goes_leaves_no_bits_behind(self) -> None:
        for turn in range(5):
            for text in self.texts:
                self.many.add(Pattern.parse(f"{text}/{turn}"), text)
            for text in self.texts[:-3]:
                self.many.remove(Pattern.parse(f"{text}/{turn}"), text)
        self.assertLessEqual(len(self.many._blocks), 2)
        self.assertLess(sum(block.size for block in self.many._blocks), 2 * BLOCK_BITS)
        self.assertEqual(len(self.many), 15)
