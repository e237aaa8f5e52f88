"""Asking the application: what it is asked, what its answers do, and what counts while it does not answer."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Coroutine
from itertools import count
from typing import Any, TypeVar

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.logger import capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase

from pushd.auth.webhooks.answers import Answer, NoAnswer
from pushd.auth.webhooks.authorizer import WebhookAuthorizer, new_questions
from pushd.bus.clientinfo import ClientInfo
from pushd.bus.event import Draft
from pushd.bus.grants import Identity
from pushd.errors import Forbidden, Refused, TooMany, Unauthorized, Unavailable
from tests.rigs.application import Application, answer, caller, hooks

T = TypeVar("T")

URL = "https://app.example/hook?key=hidden"
NOW = 1_700_000_000.0


class AskingTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.application = Application()
        self.outcomes = Counter[tuple[str, str]]()
        self.questions = new_questions(1000, 100)
        self.configure()

    def configure(self, **settings: Any) -> None:
        urls = {name: f"{URL}&{name}" for name in ("before_connect", "before_subscribe", "before_publish")}
        numbers = count(1)
        self.authorizer = WebhookAuthorizer(
            hooks(**{**urls, **settings}),
            self.application,
            max_event_bytes=1000,
            seconds=self.clock.seconds,
            now=lambda: NOW,
            new_id=lambda: f"m-{next(numbers)}",
            questions=self.questions,
            outcomes=self.outcomes,
        )

    def ask(self, coroutine: Coroutine[Deferred[Any], Any, T]) -> Deferred[T]:
        return Deferred.fromCoroutine(coroutine)

    def connect(self, reaction: Answer | str | None, who: ClientInfo | None = None) -> Identity:
        self.application.always(reaction)
        return self.successResultOf(self.ask(self.authorizer.before_connect(who or caller())))

    def publish(self, reaction: Answer | str | None, draft: Draft | None = None) -> Draft:
        self.application.always(reaction)
        asked = self.authorizer.before_publish(caller(), draft or Draft(("a",), b"hello", True))
        return self.successResultOf(self.ask(asked))

    def refused(self, kind: type[Refused], reaction: Answer | str | None) -> Refused:
        """Return how it is refused to subscribe."""
        self.application.always(reaction)
        asked = self.ask(self.authorizer.before_subscribe(caller(), "a/b", "latest"))
        refusal = self.failureResultOf(asked, kind).value
        assert isinstance(refusal, Refused)
        return refusal

    def logged(self, call: Callable[[], object]) -> list[str]:
        with capturedLogs() as events:
            call()
        return [formatEvent(event) for event in events]


class QuestionTests(AskingTests):
    WHO = {"connection": "c-1", "transport": "websocket", "address": "192.0.2.7", "user": "ada", "payload": [1]}

    def test_connecting(self) -> None:
        self.connect(answer(), caller(payload=[1]))
        posted = self.application.posted[0]
        self.assertEqual((posted.url, posted.id), (f"{URL}&before_connect", "m-1"))
        self.assertEqual(posted.body, {"hook": "before_connect", **self.WHO})

    def test_subscribing(self) -> None:
        self.successResultOf(self.ask(self.authorizer.before_subscribe(caller(payload=[1]), "a/*", "earliest")))
        wanted = {"hook": "before_subscribe", **self.WHO, "channel": "a/*", "since": "earliest"}
        self.assertEqual(self.application.bodies, [wanted])

    def test_publishing(self) -> None:
        self.publish(answer(), Draft(("a", "b"), "hé".encode(), True, "greeting", "i"))
        self.publish(answer(), Draft(("a",), b"\xff", False))
        who = {"hook": "before_publish", **self.WHO, "payload": None}
        text = {"channels": ["a", "b"], "data": "hé", "event": "greeting", "id": "i"}
        binary = {"channels": ["a"], "data_base64": "/w==", "event": None, "id": None}
        self.assertEqual(self.application.bodies, [{**who, **text}, {**who, **binary}])

    def test_without_a_url_nothing_is_asked_and_everything_is_allowed(self) -> None:
        self.assertTrue(
            self.authorizer.asks_connect and self.authorizer.asks_subscribe and self.authorizer.asks_publish
        )
        self.configure(before_connect=None, before_subscribe=None, before_publish=None)
        self.assertFalse(
            self.authorizer.asks_connect or self.authorizer.asks_subscribe or self.authorizer.asks_publish
        )
        who = caller()
        self.assertIs(self.connect(answer({"allow": False}), who), who.identity)
        self.publish(answer({"allow": False}))
        self.assertEqual(self.application.posted, [])


class AllowedTests(AskingTests):
    def test_an_empty_answer_or_object_changes_nothing(self) -> None:
        who = caller(payload={"x": 1}, expires_at=NOW + 5)
        for reaction in (answer(), answer(status=204), answer({}), answer({"allow": True, "reason": "why not"})):
            self.assertEqual(self.connect(reaction, who), who.identity)
            draft = Draft(("a",), b"\xff", False, "t", "i")
            self.assertEqual(self.publish(reaction, draft), draft)
        self.assertEqual(len(self.application.posted), 8)
        self.assertEqual(self.outcomes, {("before_connect", "allowed"): 4, ("before_publish", "allowed"): 4})

    def test_what_an_answer_sets_replaces_that_part_of_the_identity(self) -> None:
        who = caller("ada", "old", expires_at=NOW + 5)
        changed = self.connect(answer({"user": "bob", "payload": {"x": [1]}, "expires_in": 60.5}), who)
        self.assertEqual((changed.user, changed.payload, changed.expires_at), ("bob", {"x": [1]}, NOW + 60.5))
        self.assertIs(changed.grants, who.grants)
        changed = self.connect(answer({"user": None, "payload": None}), who)
        self.assertEqual((changed.user, changed.payload, changed.expires_at), (None, None, NOW + 5))

    def test_a_list_replaces_that_right_and_the_origin_says_so(self) -> None:
        grants = self.connect(answer({"publish": ["x/*"]})).grants
        self.assertEqual((grants.publish.texts, grants.subscribe.texts), (("x/*",), ("a/**",)))
        self.assertEqual(grants.origin, "a token with [hooks] before_connect")
        self.assertTrue(grants.wants_token)
        grants = self.connect(answer({"publish": [], "subscribe": ["**"], "operator": True})).grants
        self.assertFalse(grants.publish)
        self.assertTrue(grants.is_operator)
        error = self.assertRaises(Forbidden, grants.check_publish, "a")
        self.assertIn("[hooks] before_connect does not give publish", str(error))
        self.assertNotIn("token", str(error))

    def test_operator_alone_leaves_the_other_rights(self) -> None:
        grants = self.connect(answer({"operator": True})).grants
        self.assertEqual((grants.is_operator, grants.publish.texts), (True, ("a/**",)))
        self.assertFalse(self.connect(answer({"operator": False})).grants.is_operator)

    def test_an_event_is_changed_but_for_its_channels_and_id(self) -> None:
        draft = Draft(("a", "b"), b"\xff", False, "old", "i")
        changed = self.publish(answer({"data": "hé", "event": "new"}), draft)
        self.assertEqual(changed, Draft(("a", "b"), "hé".encode(), True, "new", "i", draft.fingerprint()))
        changed = self.publish(answer({"data_base64": "/w==", "event": None}), Draft(("a",), b"x", True, "old"))
        self.assertEqual(changed, Draft(("a",), b"\xff", False, None))
        changed = self.publish(answer({"event": "new"}), draft)
        self.assertEqual(changed, Draft(("a", "b"), b"\xff", False, "new", "i", draft.fingerprint()))


class DeniedTests(AskingTests):
    def test_allow_false_and_403_are_forbidden_with_the_reason(self) -> None:
        for reaction in (
            answer({"allow": False, "reason": "not on Sundays"}),
            answer({"reason": "not on Sundays"}, 403),
        ):
            self.assertEqual(self.refused(Forbidden, reaction).detail, "not on Sundays")
        self.assertEqual(self.outcomes, {("before_subscribe", "denied"): 2})

    def test_401_is_unauthorized_and_429_too_many(self) -> None:
        self.assertEqual(self.refused(Unauthorized, answer({"reason": "log in"}, 401)).detail, "log in")
        refusal = self.refused(TooMany, answer({"reason": "slow down"}, 429, 7))
        self.assertEqual((refusal.detail, refusal.retry_s), ("slow down", 7))
        self.assertIsNone(self.refused(TooMany, answer(status=429)).retry_s)

    def test_without_a_reason_there_is_one_of_pushd(self) -> None:
        for reaction in (
            *(answer({"allow": False}), answer({"allow": False, "reason": " \n"}), answer(status=403)),
            *(answer(b"<html>no", 403), answer({"reason": 5}, 403), answer(b"[" * 5000, 403)),
        ):
            self.assertEqual(self.refused(Forbidden, reaction).detail, "the application does not allow it")

    def test_a_reason_is_one_short_line(self) -> None:
        reason = "a\r\nSet-Cookie: x\x00\x1b[31m\u2028b\ud800\u202ec\x85" + "y" * 500
        for status, body in ((200, {"allow": False, "reason": reason}), (403, {"reason": reason})):
            detail = self.refused(Forbidden, answer(body, status)).detail
            self.assertTrue(detail.startswith("a Set-Cookie: x [31m b c yyy"), detail)
            self.assertEqual(len(detail), 200)
            self.assertTrue(detail.isprintable())

    def test_a_denial_is_no_failure(self) -> None:
        for _ in range(10):
            self.refused(TooMany, answer(status=429))
        self.assertEqual(len(self.application.posted), 10)
        self.assertEqual(self.outcomes, {("before_subscribe", "denied"): 10})


def members(name: str, *values: object) -> list[object]:
    """Return an answer for each value of a member."""
    return [{name: value} for value in values]


WRONG: dict[str, list[Answer | str]] = {
    "the status is": [answer(status=status) for status in (300, 302, 304, 400, 404, 410, 418, 500, 503)],
    "there was no answer": ["there was no answer within 2 s"],
    "not JSON": [answer(b"allow"), answer(b"{"), answer(b'{"allow":NaN}')],
    "UTF-8": [answer(b'{"reason":"\xff"}')],
    "expected a JSON object": [answer(body) for body in (b"[]", b"true", b'"x"', b"5", b"null")],
    "nested too deeply": [answer(b'{"reason":' + b"[" * 30_000 + b"]" * 30_000 + b"}")],
    "unknown member 'alow'": [answer({"alow": False})],
    "allow of the answer": [answer(body) for body in members("allow", 0, 1, "false", None, [])],
    "reason of the answer": [answer(body) for body in members("reason", None, 5)],
}

WRONG_CONNECT: dict[str, list[object]] = {
    "user of the answer": members("user", 5, "", "a\nb", "\ud800", "x" * 256, True, []),
    "nested more than 32 levels deep": [{"payload": eval("[" * deep + "1" + "]" * deep)} for deep in (33, 90)],
    "not finite": [b'{"payload":1e999}'],
    "payload of the answer has 4097 bytes": members("payload", "x" * 4095),
    "expires_in of the answer": members("expires_in", 0, -1, "60", True, None, 1e10),
    "publish of the answer is ": members("publish", None, "a", {}),
    "wanted channels and patterns, which are text": members("publish", [1], ["a", None]),
    "has 101 patterns": [{"subscribe": ["a"] * 101}],
    "subscribe of the answer: ": [{"subscribe": [value]} for value in ("", "a\n", "**/a/**/b/**/c/**/d/**")],
    "operator of the answer": members("operator", 1, None, "yes"),
    "unknown member 'data'": [{"data": "x"}],
}

WRONG_PUBLISH: dict[str, list[object]] = {
    "expected one of data": [{"data": "x", "data_base64": "eA=="}],
    "data is a JSON": members("data", 5, None, {}),
    "lone surrogate": [{"data": "\ud800"}],
    "is not base64": members("data_base64", "?", "eA", "é"),
    "[limits] event_size is 1000": [{"data": "x" * 1001}],
    "event of the answer": members("event", 5, "", "a\nb", "x" * 256),
    "unknown member 'user'": [{"user": "x"}],
}


class WrongTests(AskingTests):
    def assert_fails(self, why: str, ask: Callable[[], object]) -> None:
        self.configure()
        self.outcomes.clear()
        self.application.posted.clear()
        [line] = self.logged(ask)
        self.assertIn(why, line)
        self.assertIn("https://app.example/hook:", line)
        self.assertNotIn("hidden", line)
        self.assertEqual(len(self.application.posted), 1)
        self.assertEqual([(outcome, times) for (_, outcome), times in self.outcomes.items()], [("failed", 1)])

    def test_a_wrong_answer_to_any_question_is_a_failure(self) -> None:
        for why, reactions in WRONG.items():
            for reaction in reactions:
                with self.subTest(why, reaction=str(reaction)[:100]):
                    self.assert_fails(why, lambda: self.refused(Unavailable, reaction))  # noqa: B023

    def test_so_is_a_wrong_identity(self) -> None:
        for why, bodies in WRONG_CONNECT.items():
            for body in bodies:
                with self.subTest(why, body=str(body)[:100]):
                    self.application.always(answer(body))
                    self.assert_fails(why, self.connect_in_vain)

    def connect_in_vain(self) -> None:
        self.failureResultOf(self.ask(self.authorizer.before_connect(caller())), Unavailable)

    def test_so_is_an_event_that_nobody_may_publish(self) -> None:
        for why, bodies in WRONG_PUBLISH.items():
            for body in bodies:
                with self.subTest(why, body=str(body)[:100]):
                    self.application.always(answer(body))
                    self.assert_fails(why, self.publish_in_vain)

    def publish_in_vain(self) -> None:
        asked = self.authorizer.before_publish(caller(), Draft(("a",), b"x", True))
        self.failureResultOf(self.ask(asked), Unavailable)

    def test_a_retry_is_known_by_what_its_publisher_sent_whatever_the_application_makes_of_it(self) -> None:
        sent = Draft(("a", "b"), b"hello", True, "greeting", "i")
        for number in range(3):
            changed = self.publish(answer({"data": f"at {number} o'clock", "event": "other"}), sent)
            self.assertEqual((changed.data, changed.type), (f"at {number} o'clock".encode(), "other"))
            self.assertEqual(changed.fingerprint(), sent.fingerprint())
        self.assertEqual(self.publish(answer(), sent).fingerprint(), sent.fingerprint())
        other = self.publish(answer({"data": "at 1 o'clock"}), Draft(("a", "b"), b"bye", True, "greeting", "i"))
        self.assertNotEqual(other.fingerprint(), sent.fingerprint())

    def test_what_is_just_right_is_taken(self) -> None:
        for body in (
            {"user": "x" * 255},
            {"payload": eval("[" * 32 + "1" + "]" * 32)},
            {"payload": "x" * 4094},
            {"publish": ["a"] * 100},
            {"expires_in": 1e9},
        ):
            self.connect(answer(body))
        self.publish(answer({"data": "x" * 1000}))


class DownTests(AskingTests):
    def test_deny_is_unavailable_for_as_long_as_nothing_is_asked(self) -> None:
        refusal = self.refused(Unavailable, "no")
        self.assertEqual((refusal.status, refusal.retry_s), (503, 5))
        self.refused(Unavailable, "no")
        self.refused(Unavailable, "no")
        self.clock.advance(3)
        self.assertEqual(self.refused(Unavailable, "no").retry_s, 2)
        self.clock.advance(1.9)
        self.assertEqual(self.refused(Unavailable, "no").retry_s, 1)

    def test_allow_is_as_if_it_was_allowed_unchanged(self) -> None:
        self.configure(when_down="allow")
        who = caller()
        for _ in range(5):
            self.assertIs(self.connect("no", who), who.identity)
        draft = Draft(("a",), b"x", True)
        self.assertIs(self.publish(answer({"data": 5}), draft), draft)
        connects = {("before_connect", "failed"): 3, ("before_connect", "unasked"): 2}
        self.assertEqual(self.outcomes, {**connects, ("before_publish", "failed"): 1})
        self.assertEqual(self.refused(Forbidden, answer(status=403)).status, 403)

    def test_when_it_is_down_it_is_not_asked_until_one_question_shows_that_it_is_back(self) -> None:
        for _ in range(9):
            self.refused(Unavailable, answer(status=500))
        self.assertEqual(len(self.application.posted), 3)
        self.assertEqual(self.outcomes, {("before_subscribe", "failed"): 3, ("before_subscribe", "unasked"): 6})
        self.clock.advance(5)
        self.application.always(None)
        trial = self.ask(self.authorizer.before_subscribe(caller(), "a", "latest"))
        self.refused(Unavailable, answer())
        self.assertEqual(len(self.application.posted), 4)
        self.application.posted[-1].answered.callback(answer())
        self.successResultOf(trial)
        self.refused(Forbidden, answer(status=403))

    def test_it_is_logged_once_when_it_opens_and_once_when_it_closes(self) -> None:
        def go_down_and_up() -> None:
            for _ in range(5):
                self.refused(Unavailable, "no route")
            self.clock.advance(5)
            self.refused(Unavailable, "no route")
            self.clock.advance(5)
            self.refused(Forbidden, answer(status=403))
            self.refused(Forbidden, answer(status=403))

        lines = self.logged(go_down_and_up)
        failed = "no answer from the hook https://app.example/hook: no route"
        opened = (
            "the hook https://app.example/hook failed 3 times in a row; until it answers again, deny is its answer"
        )
        closed = "the hook https://app.example/hook answers again"
        self.assertEqual(lines, [failed, failed, failed, opened, failed, closed])

    def test_each_url_has_a_breaker_of_its_own(self) -> None:
        for _ in range(4):
            self.refused(Unavailable, "no")
        self.connect(answer())
        self.configure(before_connect=URL, before_subscribe=URL)
        for _ in range(3):
            self.refused(Unavailable, "no")
        self.application.always(answer())
        self.failureResultOf(self.ask(self.authorizer.before_connect(caller())), Unavailable)

    def test_a_question_that_nobody_waits_for_any_more_is_taken_back(self) -> None:
        for _ in range(3):
            self.refused(Unavailable, "no")
        self.clock.advance(5)
        self.application.always(None)
        trial = self.ask(self.authorizer.before_subscribe(caller(), "a", "latest"))
        before = self.outcomes.copy()
        trial.cancel()
        self.failureResultOf(trial, CancelledError)
        self.assertEqual(self.outcomes, before)
        self.refused(Forbidden, answer(status=403))

    def test_nothing_is_allowed_because_too_many_wait(self) -> None:
        self.configure(when_down="allow")
        self.application.always(None)
        for number in range(self.questions.most):
            self.ask(self.authorizer.before_subscribe(caller(f"user {number}"), "a", "latest"))
        refused = self.refused(Unavailable, None)
        self.assertEqual(
            (refused.detail, refused.retry_s),
            ("all questions to the application are in use, 1000: see [hooks] questions", 1.0),
        )

    def test_so_many_may_wait_and_more_are_not_asked_which_is_no_failure(self) -> None:
        self.application.always(None)
        waiting = [
            self.ask(self.authorizer.before_subscribe(caller(f"user {number}"), "a", "latest"))
            for number in range(self.questions.most)
        ]
        lines = self.logged(lambda: [self.refused(Unavailable, None) for _ in range(10)])
        self.assertEqual(lines, ["1000 questions wait for the application; no more are asked"])
        self.assertEqual(len(self.application.posted), 1000)
        self.assertEqual(self.outcomes, {("before_subscribe", "unasked"): 10})
        for posted in self.application.posted:
            posted.answered.callback(answer())
        for asked in waiting:
            self.successResultOf(asked)
        self.refused(Forbidden, answer(status=403))


class ShareTests(AskingTests):
    """Nobody takes all the questions that may wait for an answer."""

    def setUp(self) -> None:
        super().setUp()
        self.questions.limit(20, 25)
        self.application.always(None)

    def ask_for(self, user: str | None, hook: str = "before_subscribe") -> Deferred[Any]:
        who = caller(user)
        asked: Coroutine[Deferred[Any], Any, Any]
        if hook == "before_connect":
            asked = self.authorizer.before_connect(who)
        elif hook == "before_publish":
            asked = self.authorizer.before_publish(who, Draft(("a",), b"x", True))
        else:
            asked = self.authorizer.before_subscribe(who, "a", "latest")
        return self.ask(asked)

    def test_an_owner_has_its_share_of_them_and_is_told_so_the_others_go_on(self) -> None:
        for hook in ("before_connect", "before_subscribe", "before_publish", "before_publish", "before_connect"):
            self.ask_for("greedy", hook)
        for hook in ("before_connect", "before_subscribe", "before_publish"):
            refused = self.failureResultOf(self.ask_for("greedy", hook), TooMany).value
            self.assertEqual(refused.retry_s, 1.0)
            self.assertIn("user greedy uses its share of questions to the application, 5", refused.detail)
        self.assertEqual(len(self.application.posted), 5)
        self.assertNoResult(self.ask_for("another"))
        self.assertNoResult(self.ask_for(None))  # which is its address
        self.assertEqual(self.questions.used, 7)

    def test_a_place_is_free_again_however_the_question_ends(self) -> None:
        for end in (
            lambda posted, asked: posted.answered.callback(answer()),
            lambda posted, asked: posted.answered.callback(answer(status=403)),
            lambda posted, asked: posted.answered.errback(NoAnswer("it was cut")),
            lambda posted, asked: posted.answered.errback(ZeroDivisionError("a fault")),
            lambda posted, asked: asked.cancel(),
        ):
            asked = self.ask_for("ada")
            self.assertEqual(self.questions.used_by("user ada"), 1)
            end(self.application.posted[-1], asked)
            asked.addErrback(lambda failure: None)
            self.assertEqual((self.questions.used, self.questions.used_by("user ada")), (0, 0))

    def test_they_still_count_for_the_application_of_another_configuration(self) -> None:
        for _ in range(5):
            self.ask_for("greedy")
        self.configure(timeout_s=1)
        self.failureResultOf(self.ask_for("greedy"), TooMany)

    def test_whoever_uses_its_share_is_allowed_while_the_application_is_down(self) -> None:
        self.configure(when_down="allow")
        for _ in range(5):
            self.ask_for("greedy")
        for posted in self.application.posted[:3]:
            posted.answered.errback(NoAnswer("it was cut"))
        self.questions.limit(8, 25)  # of which two wait still
        self.assertIsNone(self.successResultOf(self.ask_for("greedy")))
        self.assertEqual(self.outcomes["before_subscribe", "unasked"], 1)
        self.assertEqual(self.questions.used_by("user greedy"), 2)

    def test_while_it_is_down_the_configuration_decides_and_not_who_asks_for_much(self) -> None:
        self.configure(when_down="allow")
        for _ in range(5):
            self.ask_for("greedy")
        self.failureResultOf(self.ask_for("greedy"), TooMany)
        for posted in self.application.posted:
            posted.answered.errback(NoAnswer("it was cut"))
        self.assertIsNone(self.successResultOf(self.ask_for("greedy")))
        self.assertEqual(self.questions.used, 0)

    def test_while_it_is_down_that_holds_for_one_with_all_its_questions_pending_too(self) -> None:
        for when_down in ("allow", "deny"):
            self.outcomes.clear()
            self.questions = new_questions(20, 25)
            self.configure(when_down=when_down, breaker_failures=1)
            for _ in range(5):
                self.ask_for("greedy")
            failing = self.ask_for("another")
            self.application.posted[-1].answered.errback(NoAnswer("it was cut"))
            failing.addErrback(lambda failure: None)
            asked, before = self.ask_for("greedy"), self.outcomes["before_subscribe", "unasked"]
            if when_down == "allow":
                self.assertIsNone(self.successResultOf(asked))
            else:
                self.failureResultOf(asked, Unavailable)
            self.assertEqual((self.questions.used, before), (5, 1))
