"""Rights: who may publish and who may subscribe."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from pushd.bus import patterns as channels
from pushd.bus.grants import EVERYTHING, ChannelScope, Grants
from pushd.bus.patterns import Pattern, steps_of
from pushd.errors import Forbidden, Unauthorized


def reach(*texts: str) -> ChannelScope:
    return ChannelScope([Pattern.parse(text) for text in texts])


class ReachTests(SynchronousTestCase):
    def test_scopes_of_the_same_patterns_are_equal(self) -> None:
        self.assertEqual(reach("a", "b/*"), reach("a", "b/*"))
        self.assertEqual(len({reach("a"), reach("a"), reach("a/*")}), 2)
        self.assertNotEqual(reach("a"), "a")

    def test_a_name_reaches_itself_only(self) -> None:
        self.assertTrue(reach("a/b").has("a/b"))
        for other in ("a", "a/b/c", "a/*", "**"):
            self.assertFalse(reach("a/b").has(other), other)

    def test_a_pattern_reaches_the_channels_that_it_matches_and_the_patterns_that_it_covers(self) -> None:
        for asked in ("a", "a/b", "a/b/c", "a/*", "a/**", "a/*/c"):
            self.assertTrue(reach("x", "a/**").has(asked), asked)
        for asked in ("b", "*", "**", "*/a", "a.b"):
            self.assertFalse(reach("x", "a/**").has(asked), asked)

    def test_patterns_that_only_cover_it_together_do_not_count(self) -> None:
        self.assertFalse(reach("a/*", "a/*/**").has("a/**"))

    def test_many_patterns_reach_what_each_of_them_does(self) -> None:
        few, many = reach("a/**", "b/*"), reach("a/**", "b/*", *(f"x{number}/**" for number in range(20)), "y")
        for asked in ("a", "a/b", "b", "b/c", "b/c/d", "a/*", "b/**", "c", "**"):
            self.assertEqual(many.has(asked), few.has(asked), asked)
        for asked in ("x7", "x7/a/b", "x7/*/a", "y"):
            self.assertTrue(many.has(asked), asked)
        self.assertFalse(many.has("x20/a"))

    def test_what_many_long_patterns_reach_is_found_by_walking_what_they_share_once(self) -> None:
        visits = 0

        def steps(token: str) -> tuple[str, str, str]:
            nonlocal visits
            visits += 1
            return steps_of(token)

        self.patch(channels, "steps_of", steps)
        self.patch(channels, "_stands_for", None)
        many = reach(*(f"m/**/a/**/a/**/{number}" for number in range(80)))
        self.assertFalse(many.has("m/" + "a/" * 120 + "99"))
        self.assertTrue(many.has("m/" + "a/" * 120 + "7"))
        self.assertLess(visits, 300)

    def test_two_stars_reach_everything_and_no_pattern_nothing(self) -> None:
        for asked in ("a", "a/b.c", "*", "**", "a/**"):
            self.assertTrue(reach("a", "**").has(asked))
            self.assertFalse(reach().has(asked))
        self.assertFalse(reach())


class GrantsTests(SynchronousTestCase):
    def assertForbidden(self, grants: Grants, right: str) -> None:
        error = self.assertRaises(Forbidden, getattr(grants, f"check_{right}"), "a/b")
        self.assertEqual(error.problem()["status"], 403)
        self.assertIn("a/b", error.detail)
        self.assertIn(right, error.detail)
        self.assertIn(grants.origin, error.detail)

    def test_each_right_is_given_by_itself(self) -> None:
        rights = ["publish", "subscribe", "operator"]
        for right in rights:
            grants = Grants.of([right], origin="the test")
            getattr(grants, f"check_{right}")("a/b")
            for other in rights:
                if other != right:
                    self.assertForbidden(grants, other)

    def test_patterns_give_a_right_for_the_channels_that_they_match(self) -> None:
        grants = Grants.of([], publish=[Pattern.parse("a/*")], subscribe=[Pattern.parse("b/*")])
        grants.check_publish("a/b")
        grants.check_subscribe("b/a")
        grants.check_subscribe("b/*")
        self.assertForbidden(grants, "subscribe")
        self.assertRaises(Forbidden, grants.check_publish, "b/a")

    def test_who_might_get_the_right_by_a_token_is_told_so(self) -> None:
        grants = Grants.of([], wants_token=True)
        for right in ("publish", "subscribe", "operator"):
            error = self.assertRaises(Unauthorized, getattr(grants, f"check_{right}"), "a/b")
            self.assertEqual(error.status, 401)
            self.assertIn("wanted a token", error.detail)

    def test_the_daemon_itself_may_do_everything(self) -> None:
        EVERYTHING.check_publish("a")
        EVERYTHING.check_subscribe("**")
        EVERYTHING.check_operator("list connections")
