"""Channel names, patterns, and the tree that finds patterns by name."""

from __future__ import annotations

import unittest
from itertools import product
from typing import Any
from unittest import mock

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from pushd.bus.patterns import MAX_NAME_BYTES, MAX_REPEATS, Pattern, PatternTree, _stands_for, check_name
from pushd.errors import BadRequest
from tests.rigs.effort import examples

SEPARATORS = "/.:"


# A slow matcher, written from the words of the documentation alone.


def segments(text: str) -> list[tuple[str, str]]:
    """Split into (separator before it, segment); the first has no separator."""
    found = [("", "")]
    for character in text:
        if character in SEPARATORS:
            found.append((character, ""))
        else:
            found[-1] = (found[-1][0], found[-1][1] + character)
    return found


def means(pattern: str, name: str) -> bool:
    return fits(segments(pattern), segments(name))


def fits(pattern: list[tuple[str, str]], name: list[tuple[str, str]]) -> bool:
    if not pattern:
        return not name
    (separator, segment), rest = pattern[0], pattern[1:]
    if segment == "**":
        # For nothing: then a ** at the very beginning takes the separator after it along.
        if fits([("", rest[0][1]), *rest[1:]] if rest and separator == "" else rest, name):
            return True
        return _begins_with(name, separator) and any(fits(rest, name[n:]) for n in range(1, len(name) + 1))
    if segment == "*":
        return _begins_with(name, separator) and fits(rest, name[1:])
    return name[:1] == pattern[:1] and fits(rest, name[1:])


def _begins_with(name: list[tuple[str, str]], separator: str) -> bool:
    return bool(name) and name[0][0] == separator


def texts(*parts: str) -> st.SearchStrategy[str]:
    """Make texts of up to 6 segments, each one of `parts`."""
    more = st.lists(st.tuples(st.sampled_from(SEPARATORS), st.sampled_from(parts)), max_size=5)
    joined = st.tuples(st.sampled_from(parts), more).map(lambda t: t[0] + "".join(a + b for a, b in t[1]))
    return joined.filter(bool)


NAMES = texts("a", "b", "")
PATTERNS = texts("a", "b", "", "*", "**", "**").filter(lambda text: text.count("**") <= MAX_REPEATS)


def matched(tree: PatternTree[str], name: str) -> list[str]:
    return sorted(tree.match(name))


class NameTests(SynchronousTestCase):
    def assertRefused(self, name: str, saying: str) -> None:
        for read in (check_name, Pattern.parse):
            error = self.assertRaises(BadRequest, read, name)
            self.assertEqual(error.field, "channel")
            self.assertIn(saying, error.detail)
            error.detail.encode()  # the detail can be sent

    def test_a_name_is_answered_as_it_is(self) -> None:
        for name in ("a", "news/sport", "a.b:c", "/", "a//b", "Zürich", "😀", "a b", "a*b", "***", "a/***"):
            self.assertEqual(check_name(name), name)
            self.assertTrue(Pattern.parse(name).is_name, name)

    def test_a_star_counts_only_as_a_whole_segment(self) -> None:
        for text in ("*", "**", "a/*", "*.a", "a:**:b", "/**", "*/"):
            error = self.assertRaises(BadRequest, check_name, text)
            self.assertIn("is a pattern", error.detail)
            self.assertFalse(Pattern.parse(text).is_name, text)

    def test_a_name_has_1_to_255_bytes(self) -> None:
        self.assertEqual(MAX_NAME_BYTES, 255)
        for name in ("a", "a" * 255, "é" * 127 + "a", "😀" * 63 + "abc"):
            self.assertEqual(check_name(name), name)
        for name in ("", "a" * 256, "é" * 128, "😀" * 64):
            self.assertRefused(name, f"1 to 255 bytes of UTF-8, not {len(name.encode())}")

    def test_control_characters_and_line_breaks_are_refused(self) -> None:
        for code in (*range(0x20), *range(0x7F, 0xA0), 0x2028, 0x2029):
            self.assertRefused(f"a{chr(code)}b", "control character")
            self.assertRefused(f"a{chr(code)}", "control character")

    def test_what_is_next_to_the_control_characters_is_not_refused(self) -> None:
        for code in (0x20, 0x7E, 0xA0, 0x2027, 0x202A):
            self.assertEqual(check_name(chr(code)), chr(code))

    def test_a_lone_surrogate_is_refused(self) -> None:
        for name in ("\ud800", "a\udfffb", "\udc80"):
            self.assertRefused(name, "not valid Unicode")


class PatternTests(SynchronousTestCase):
    def assertMatches(self, pattern: str, *names: str) -> None:
        for name in names:
            self.assertTrue(Pattern.parse(pattern).matches(name), (pattern, name))
            self.assertTrue(means(pattern, name), ("the slow matcher", pattern, name))

    def assertDoesNotMatch(self, pattern: str, *names: str) -> None:
        for name in names:
            self.assertFalse(Pattern.parse(pattern).matches(name), (pattern, name))
            self.assertFalse(means(pattern, name), ("the slow matcher", pattern, name))

    def test_a_name_matches_itself_only(self) -> None:
        self.assertMatches("news/sport", "news/sport")
        self.assertDoesNotMatch("news/sport", "news", "news/sport/chess", "news.sport", "News/sport")

    def test_one_star_stands_for_one_segment(self) -> None:
        self.assertMatches("news/*", "news/sport", "news/", "news/*a")
        self.assertDoesNotMatch("news/*", "news", "news/sport/chess", "news.sport", "news/a.b", "old/sport")
        self.assertMatches("*/sport", "news/sport", "/sport")
        self.assertMatches("*", "news")
        self.assertDoesNotMatch("*", "news/sport", "/")

    def test_two_stars_stand_for_any_number_of_segments(self) -> None:
        self.assertMatches("news/**", "news", "news/sport", "news/sport/chess", "news/sport.chess", "news/")
        self.assertDoesNotMatch("news/**", "newsroom", "news.sport", "old/news")
        self.assertMatches("a/**/z", "a/z", "a/b/z", "a/b.c:d/z", "a/z/z")
        self.assertDoesNotMatch("a/**/z", "a", "z", "a/b", "a.z", "a/bz", "a/z/y")

    def test_two_stars_alone_match_every_name(self) -> None:
        self.assertMatches("**", "a", "a/b", "/", ".:/", "a.b:c", "***")

    def test_two_stars_at_the_beginning_may_stand_for_nothing(self) -> None:
        self.assertMatches("**/a", "a", "x/a", "x.y/a", "/a")
        self.assertDoesNotMatch("**/a", "x.a", ".a", "xa", "a/x")
        self.assertMatches("**//a", "/a", "x//a")

    def test_runs_of_two_stars_are_like_one(self) -> None:
        self.assertMatches("a/**/**", "a", "a/b", "a/b/c")
        self.assertMatches("**/**/**", "a", "a/b", "a.b")
        self.assertMatches("**.**/a", "a", "x/a")

    def test_each_of_two_stars_in_a_run_has_its_own_separator(self) -> None:
        self.assertMatches("a/**.**", "a", "a/b", "a.b", "a/b.c")
        self.assertDoesNotMatch("a/**.**", "a:b")

    def test_a_separator_stands_for_itself(self) -> None:
        for one in SEPARATORS:
            for other in SEPARATORS:
                check = self.assertMatches if one == other else self.assertDoesNotMatch
                check(f"a{one}*", f"a{other}b")
                check(f"a{one}b", f"a{other}b")

    def test_what_is_special_to_regular_expressions_and_globs_is_not_special_here(self) -> None:
        for name in ("a+", "[a]", "a?", "(a|b)", "^a$", "\\d", "a{2}"):
            self.assertMatches(name, name)
        self.assertDoesNotMatch("a?", "ab")
        self.assertDoesNotMatch("a*/*", "ab/c")
        self.assertMatches("a*/*", "a*/c")

    def test_a_pattern_has_at_most_255_bytes_as_well(self) -> None:
        self.assertRaises(BadRequest, Pattern.parse, "**/" + "a" * 253)
        self.assertMatches("**/" + "a" * 252, "a" * 252)


class MatchingPropertyTests(unittest.TestCase):
    @examples(400)
    @given(PATTERNS, NAMES)
    def test_a_pattern_matches_what_the_slow_matcher_says(self, pattern: str, name: str) -> None:
        self.assertEqual(Pattern.parse(pattern).matches(name), means(pattern, name))

    @examples(200)
    @given(st.lists(PATTERNS, unique=True, max_size=8), st.data())
    def test_a_tree_finds_each_pattern_that_matches_once_whatever_was_removed(
        self, filed: list[str], data: st.DataObject
    ) -> None:
        tree: PatternTree[str] = PatternTree()
        for text in filed:
            tree.add(Pattern.parse(text), text)
        while True:
            name = data.draw(NAMES)
            self.assertEqual(matched(tree, name), sorted(text for text in filed if means(text, name)))
            self.assertEqual(len(tree), len(filed))
            if not filed:
                break
            tree.remove(Pattern.parse(filed[0]), filed.pop(0))
        self.assertEqual(tree._root.children, {})

    @examples(200)
    @given(st.lists(PATTERNS, unique=True, max_size=6), st.data())
    def test_a_value_under_several_patterns_stays_until_the_last_is_removed(
        self, filed: list[str], data: st.DataObject
    ) -> None:
        tree: PatternTree[str] = PatternTree()
        for text in filed:
            tree.add(Pattern.parse(text), "value")
        while filed:
            tree.remove(Pattern.parse(filed[0]), filed.pop(0) and "value")
            name = data.draw(NAMES)
            wanted = ["value"] if any(means(text, name) for text in filed) else []
            self.assertEqual(matched(tree, name), wanted)
        self.assertEqual(tree._root.children, {})


COVER_NAMES = [
    first + "".join(rest)
    for length in range(4)
    for first in "ax"
    for rest in product(("/a", "/x", ".a", ".x"), repeat=length)
]
"""Every name of up to four of these segments: ``x`` stands for whatever a pattern does not name."""

COVER_PATTERNS = st.lists(st.sampled_from(["a", "*", "**"]), min_size=1, max_size=4).flatmap(
    lambda segments: st.lists(st.sampled_from("/."), min_size=len(segments) - 1, max_size=len(segments) - 1).map(
        lambda marks: "".join(mark + segment for mark, segment in zip(["", *marks], segments, strict=True))
    )
)

SHORT_NAMES = [
    first + "".join(rest)
    for length in range(4)
    for first in "ax"
    for rest in product(("/a", "/x", ".a", ".x", ":x"), repeat=length)
]
"""Names enough to tell whether a pattern of up to three segments covers another."""

SHORT_PATTERNS = COVER_PATTERNS.filter(lambda text: text.count("/") + text.count(".") < 3)


class CoveringTests(unittest.TestCase):
    @given(COVER_PATTERNS, COVER_PATTERNS)
    def test_what_a_covered_pattern_matches_is_matched_by_what_covers_it(self, wide: str, asked: str) -> None:
        if Pattern.parse(wide).covers(Pattern.parse(asked)):
            missed = [
                name
                for name in COVER_NAMES
                if Pattern.parse(asked).matches(name) and not Pattern.parse(wide).matches(name)
            ]
            self.assertEqual(missed, [])

    @given(SHORT_PATTERNS, SHORT_PATTERNS)
    def test_a_pattern_covers_just_those_whose_every_name_it_matches(self, wide: str, asked: str) -> None:
        is_covered = all(means(wide, name) for name in SHORT_NAMES if means(asked, name))
        self.assertEqual(Pattern.parse(wide).covers(Pattern.parse(asked)), is_covered)

    @given(COVER_PATTERNS)
    def test_a_pattern_covers_itself_and_everything_is_covered_by_two_stars(self, text: str) -> None:
        self.assertTrue(Pattern.parse(text).covers(Pattern.parse(text)))
        self.assertTrue(Pattern.parse("**").covers(Pattern.parse(text)))

    def test_examples(self) -> None:
        for wide, asked, is_covered in [
            ("a/*", "a/b", True),
            ("a/*", "a/**", False),
            ("a/**", "a/*", True),
            ("a/**", "a", True),
            ("a/**", "a/**/b", True),
            ("a/**", "a/**.b", False),  # it may be a.b
            ("a/*", "a.*", False),
            ("**/b", "a/**/b", True),
            ("*", "**", False),
            ("**", "a.*:**", True),
            ("a/*/c", "a/b/*", False),
        ]:
            with self.subTest(f"{wide} and {asked}"):
                self.assertEqual(Pattern.parse(wide).covers(Pattern.parse(asked)), is_covered)

    def test_a_long_pattern_is_compared_in_steps_that_grow_with_its_length(self) -> None:
        visits = 0

        def stands_for(token: str, other: str) -> bool:
            nonlocal visits
            visits += 1
            return _stands_for(token, other)

        with mock.patch("pushd.bus.patterns._stands_for", stands_for):
            for asked in (
                "public/" + "*/" * 100 + "**/a/**/a/**/a/**",
                "public/**/a/**/a/**/a/" + "*/" * 100 + "**",
            ):
                self.assertTrue(Pattern.parse("public/**").covers(Pattern.parse(asked)))
        self.assertLess(visits, 1000)

    def test_the_worst_pattern_is_compared_in_little_time(self) -> None:
        stars = "**" + "/*" * 50 + ".**" + ":*" * 20 + "/**"
        asked = "**" + "/*" * 60 + ".**" + ":*" * 20 + "/**" + ".**"
        visits = 0

        class Counted(str):
            __slots__ = ()

            def __eq__(self, other: object) -> bool:
                nonlocal visits
                visits += 1
                return str.__eq__(self, other)

            __hash__ = str.__hash__

        wide = Pattern.parse(stars)
        counted = Pattern(wide.text, tuple(tuple(map(Counted, path)) for path in wide.paths), False)
        counted.covers(Pattern.parse(asked))
        self.assertLess(visits, 50_000)

    def test_a_pattern_has_two_stars_four_times_at_most(self) -> None:
        Pattern.parse("**/a/**/a/**/a/**")
        Pattern.parse("/".join(["**"] * 20))  # a run is like one
        for text in ("**/a/**/a/**/a/**/a/**", "**.**:**/**.**"):
            with self.assertRaises(BadRequest) as caught:
                Pattern.parse(text)
            self.assertIn("more than 4 times **", caught.exception.detail)


class PatternTreeTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.tree: PatternTree[str] = PatternTree()

    def test_what_is_filed_under_several_matching_patterns_comes_once(self) -> None:
        for text in ("a/*", "a/**", "**", "**/b", "*/*"):
            self.tree.add(Pattern.parse(text), "one")
        self.assertEqual(list(self.tree.match("a/b")), ["one"])

    def test_many_values_under_one_pattern_are_removed_one_by_one(self) -> None:
        pattern = Pattern.parse("**/a")
        self.tree.add(pattern, "one")
        self.tree.add(pattern, "two")
        self.tree.remove(pattern, "one")
        self.assertEqual((matched(self.tree, "x/a"), matched(self.tree, "a")), (["two"], ["two"]))

    def test_two_ways_to_write_the_same_are_removed_one_by_one(self) -> None:
        for kept, removed in (("a/**", "a/**/**"), ("*", "**/*"), ("**/*", "*"), ("**/*", "**.*")):
            tree: PatternTree[str] = PatternTree()
            tree.add(Pattern.parse(kept), "one")
            tree.add(Pattern.parse(removed), "one")
            tree.remove(Pattern.parse(removed), "one")
            name = kept.replace("/**", "").replace("**/", "").replace("*", "b")
            self.assertEqual(matched(tree, name), ["one"], (kept, removed))
            tree.remove(Pattern.parse(kept), "one")
            self.assertEqual(tree._root.children, {})

    def test_removing_a_pattern_leaves_the_longer_and_the_shorter_ones(self) -> None:
        for text in ("a/*", "a/*/c", "a/*/c/**"):
            self.tree.add(Pattern.parse(text), text)
        self.tree.remove(Pattern.parse("a/*/c"), "a/*/c")
        self.assertEqual(matched(self.tree, "a/b"), ["a/*"])
        self.assertEqual(matched(self.tree, "a/b/c"), ["a/*/c/**"])


class CostTests(SynchronousTestCase):
    """The longest patterns and names, in visits of nodes and not in seconds."""

    def visits(self, tree: PatternTree[str], name: str) -> int:
        """Count how often a search looks at a node."""
        count = 0

        class Counted(dict[str, Any]):
            def get(self, key: str, default: Any = None) -> Any:
                nonlocal count
                count += 1
                return super().get(key, default)

        def watch(node: Any) -> None:
            node.children = Counted(node.children)
            for child in node.children.values():
                watch(child)

        watch(tree._root)
        list(tree.match(name))
        return count

    def test_the_worst_pattern_costs_at_most_its_nodes_for_each_segment(self) -> None:
        for unit in ("/**/a", "/*/**", "/**/*", "/**", "/a/**", "/**.**"):
            repeats = 1 if unit == "/**" else MAX_REPEATS // unit.count("**")  # a run is like one
            stars = ("/*" * 10 + unit) * repeats
            pattern = ("a" + stars + "/*" * 255)[:253].rpartition("/")[0] + "/b"
            name = "a" + "/a" * 127
            tree: PatternTree[str] = PatternTree()
            tree.add(Pattern.parse(pattern), "one")
            visits = self.visits(tree, name)
            nodes, tokens = len(segments(pattern)) + 1, len(segments(name))
            self.assertEqual(len(name), 255)
            self.assertGreater(visits, 0)
            self.assertLess(visits, 16 * nodes * tokens, pattern)

    def test_patterns_that_begin_otherwise_cost_nothing(self) -> None:
        tree: PatternTree[str] = PatternTree()
        tree.add(Pattern.parse("a/*"), "a")
        alone = self.visits(tree, "a/b")
        for number in range(1000):
            tree.add(Pattern.parse(f"x{number}/**"), str(number))
        self.assertEqual(self.visits(tree, "a/b"), alone)

    def test_a_thousand_subscribers_of_one_pattern_cost_no_more_visits_than_one(self) -> None:
        tree: PatternTree[str] = PatternTree()
        tree.add(Pattern.parse("a/**"), "a")
        alone = self.visits(tree, "a/b")
        for number in range(1000):
            tree.add(Pattern.parse("a/**"), str(number))
        self.assertEqual(self.visits(tree, "a/b"), alone)
