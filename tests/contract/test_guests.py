"""How subscribers come in and go, over whatever transport: limits, the application that is asked and told."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar

from pushd.auth.webhooks.answers import changed_identity
from pushd.bus.grants import Grants, Identity
from pushd.bus.patterns import Pattern
from pushd.daemon.integrations import Integrations
from pushd.errors import Forbidden, Unauthorized, Unavailable
from tests.rigs.daemon import STARTED, DaemonTests, query
from tests.rigs.http2_client import Http2Client
from tests.rigs.http_client import Response
from tests.rigs.outsiders import Answers, Ask, Later, Notes, Registry, a_user, deny
from tests.rigs.subscribers import (
    JsonSubscriber,
    JsonTunnelSubscriber,
    PollSubscriber,
    PushSubscriber,
    RawSubscriber,
    RawTunnelSubscriber,
    SseSubscriber,
    StreamSubscriber,
    Subscriber,
)

if TYPE_CHECKING:
    _Base = DaemonTests
else:
    _Base = object

STRANGER = "198.51.100.7"
OPERATOR = {"Authorization": "Bearer boss"}
ROOM = "[channels:room/**]\npresence = events\n"


class GuestRules(_Base):
    """What holds for who comes in."""

    kind: type[Subscriber]
    transport: ClassVar[str]
    can_be_slow: ClassVar[bool] = True
    rate: ClassVar[str] = "connect"
    """Which option limits how often one comes."""

    config = "[site]\ndemo = no\n[auth]\nanonymous = publish, subscribe\n"

    def begin(
        self, config: str = "", *, tokens: Registry | None = None, answers: Answers | None = None
    ) -> tuple[Answers, Notes]:
        """Start a daemon that has to do with somebody."""
        answers, self.notes = answers or Answers(), Notes()
        self.world = Integrations(tokens or Registry(), answers, self.notes)
        self.start(self.config + config)
        self.before = self.rig.traces
        return answers, self.notes

    def come(
        self, *channels: str, token: str | None = None, since: str | None = None, reads: bool = True
    ) -> Subscriber:
        """Connect a subscriber."""
        subscriber = self.kind(self.rig, channels or ("news",), since, token=token, reads=reads)
        self.rig.turn()
        return subscriber

    def as_operator(self, method: str, path: str, **parameters: str) -> Response:
        """Make a request that an operator may make, from this machine."""
        address, self.rig.comes_from = self.rig.comes_from, "127.0.0.1"
        target = f"{path}?{query(**parameters)}" if parameters else path
        response = self.rig.request(method, target, headers=OPERATOR)
        self.rig.comes_from = address
        return response

    @property
    def connections(self) -> list[dict[str, Any]]:
        """Return who is connected."""
        found: list[dict[str, Any]] = self.as_operator("GET", "/connections").json["connections"]
        return found

    def assert_refused(self, subscriber: Subscriber, status: int, says: str, field: str | None = None) -> Response:
        """The subscriber was not let in; return what it was told."""
        refusal = subscriber.refusal
        assert refusal is not None, f"let in: {subscriber.rig.traces}"
        self.assert_problem(refusal, status, says=says, field=field)
        return refusal

    def assert_nothing_happened(self) -> None:
        """Nobody was let in, nobody was told that, and nothing is left of it."""
        self.assertEqual(self.notes.said, [])
        self.assertEqual(self.rig.traces.sessions, 0)
        self.assertEqual(self.rig.traces.subscribers, 0)
        self.assertEqual(self.rig.traces.channels, self.before.channels)

    def ends(self) -> dict[str, tuple[str, Callable[[Subscriber], object]]]:
        """Return how a subscriber can end, with what is said of it."""
        return {
            "it goes": ("the client has gone", lambda one: one.disconnect()),
            "an operator": (
                "closed by an operator",
                lambda one: self.as_operator("DELETE", f"/connections/{self.connections[0]['connection']}"),
            ),
            "an operator, of all": (
                "closed by an operator",
                lambda one: self.as_operator("DELETE", "/connections", user="user-a"),
            ),
            "the channel": (
                "the channel was deleted",
                lambda one: self.as_operator("DELETE", "/channels/news"),
            ),
            "its token": ("the token has expired; come back with a new one", lambda one: self.rig.wait(35)),
            "the daemon": ("the server is going away", lambda one: self.rig.stop()),
        }

    # Limits

    def test_an_address_has_no_more_subscribers_than_it_may(self) -> None:
        self.begin("[limits]\nconnections_per_address = 2\n")
        self.rig.comes_from = STRANGER
        first, _ = self.come(), self.come()
        refusal = self.assert_refused(self.come(), 429, "connections_per_address")
        self.assertEqual(refusal.header("retry-after"), "10")
        self.assertIn(STRANGER, refusal.json["detail"])
        self.rig.comes_from = "198.51.100.8"
        self.assertIsNone(self.come().refusal)
        first.disconnect()
        self.rig.turn()
        self.rig.comes_from = STRANGER
        self.assertIsNone(self.come().refusal)
        self.assert_refused(self.come(), 429, "connections_per_address")

    def test_a_user_has_no_more_subscribers_than_it_may_wherever_it_is(self) -> None:
        self.begin("[limits]\nconnections_per_user = 2\n")
        first = self.come(token="user-a")
        self.rig.comes_from = STRANGER
        self.come(token="user-a")
        refusal = self.assert_refused(self.come(token="user-a"), 429, "connections_per_user")
        self.assertEqual(refusal.header("retry-after"), "10")
        self.assertIsNone(self.come(token="user-b").refusal)
        self.assertIsNone(self.come().refusal)
        first.disconnect()
        self.rig.turn()
        self.assertIsNone(self.come(token="user-a").refusal)
        self.assert_refused(self.come(token="user-a"), 429, "connections_per_user")

    def test_the_room_of_one_that_has_ended_is_another_s_however_it_ended(self) -> None:
        for how, (_, end) in self.ends().items():
            if how == "the daemon":
                continue  # nobody comes after it
            with self.subTest(how):
                identities = {"a": a_user("user-a", expires_at=STARTED + 30), "b": a_user("user-a")}
                limits = "[limits]\nconnections_per_user = 1\nconnections_per_address = 1\nheartbeat = 5s\n"
                self.begin(limits, tokens=Registry(identities))
                self.rig.comes_from = STRANGER
                one = self.come(token="a")
                self.assertIsNone(one.refusal)
                self.assert_refused(self.come(token="b"), 429, "connections_per_address")
                end(one)
                self.rig.wait(15)
                self.assertEqual(self.rig.traces.sessions, 0)
                one.socket_connection.disconnect()  # which may go on without it
                self.assertIsNone(self.come(token="b").refusal)
                self.assert_refused(self.come(token="b"), 429, "connections_per_address")

    def test_as_many_come_in_a_second_as_configured(self) -> None:
        self.begin(f"[limits]\n{self.rate}_rate = 2\n{self.rate}_burst = 3\n")
        self.rig.comes_from = STRANGER
        for _ in range(3):
            self.assertIsNone(self.come().refusal)
        refusal = self.assert_refused(self.come(), 429, f"{self.rate}_rate")
        self.assertEqual(refusal.header("retry-after"), "1")
        self.rig.comes_from = "198.51.100.8"
        self.assertIsNone(self.come().refusal, "another address")
        self.rig.comes_from = STRANGER
        self.rig.reactor.advance(0.5)
        self.assertIsNone(self.come().refusal, "after half a second")
        self.assert_refused(self.come(), 429, f"{self.rate}_rate")
        self.assertIsNone(self.come(token="boss").refusal, "an operator")
        self.rig.reactor.advance(1.5)
        for _ in range(3):
            self.assertIsNone(self.come().refusal)
        self.assert_refused(self.come(), 429, f"{self.rate}_rate")

    # What is told

    def test_it_is_told_that_one_comes_and_why_it_goes(self) -> None:
        for how, (reason, end) in self.ends().items():
            with self.subTest(how):
                tokens = Registry({"a": a_user("user-a", expires_at=STARTED + 30)})
                self.begin("[limits]\nheartbeat = 5s\npoll_timeout = 60s\n", tokens=tokens)
                one = self.come("news", "sport/*", token="a")
                came = [("connect", 1), ("subscribe", 1, "news"), ("occupied", "news"), ("subscribe", 1, "sport/*")]
                self.assertEqual(self.notes.said, came)
                end(one)
                self.rig.wait(15)
                self.assertEqual(
                    self.notes.said[4:8],
                    [
                        ("unsubscribe", 1, "news"),
                        ("vacated", "news"),
                        ("unsubscribe", 1, "sport/*"),
                        ("disconnect", 1, reason),
                    ],
                )
                self.assertEqual([note for note in self.notes.said[8:] if note != ("close",)], [])

    def test_it_is_told_of_one_that_is_too_slow(self) -> None:
        if not self.can_be_slow:
            return
        self.begin("[limits]\noutbox = 10KiB\n")
        slow = self.come(reads=False)
        for _ in range(30):
            self.rig.publish("news", b"x" * 10_000)
            self.rig.turn()
        self.rig.wait(40)
        said = [note[0] for note in self.notes.of(1)]
        self.assertEqual(said, ["connect", "subscribe", "unsubscribe", "disconnect"])
        self.assertIn("too slow", self.notes.of(1)[-1][1])
        self.assertEqual(self.notes.events("news"), ["occupied", "vacated"])
        self.assertEqual(self.rig.traces.sessions, 0)
        slow.connection.start_reading()

    def test_nothing_is_told_of_one_that_is_refused(self) -> None:
        narrow = {"narrow": a_user("narrow", subscribe="news")}
        self.begin(
            "[limits]\nsubscriptions = 2\nchannels = 1\nconnections_per_user = 1\n" + ROOM, tokens=Registry(narrow)
        )
        self.assert_refused(self.come("room/1", "sport", token="narrow"), 403, "no right to subscribe")
        self.assert_refused(self.come("room/1", "b", "c"), 400, "subscriptions", "channel")
        self.assert_refused(self.come("room/1", token="nobody"), 401, "nobody knows this token")
        self.rig.turn()
        self.assert_nothing_happened()
        self.assert_refused(self.come("b", "room/1"), 503, "[limits] channels")
        self.rig.turn()
        self.assert_nothing_happened()

    # The application is asked

    def answering(
        self, decide: Callable[[Ask], object], *, connect: bool = False, subscribe: bool = False
    ) -> Answers:
        """Start a daemon that asks."""
        answers = Answers(decide, asks_connect=connect, asks_subscribe=subscribe)
        self.begin(ROOM, answers=answers)
        return answers

    def test_the_application_may_refuse_who_comes(self) -> None:
        answers = self.answering(deny(Forbidden("not before noon")), connect=True)
        self.assert_refused(self.come("room/1"), 403, "not before noon")
        self.assertEqual([ask.kind for ask in answers.asked], ["connect"])
        self.assertEqual(answers.asked[0].caller.transport.name, self.transport)
        self.assert_nothing_happened()

    def test_the_application_may_want_a_token_or_not_be_there(self) -> None:
        self.answering(deny(Unauthorized("say who you are")), connect=True)
        refusal = self.assert_refused(self.come(), 401, "say who you are")
        self.assertIn("Bearer", refusal.header("www-authenticate") or "")
        self.answering(deny(Unavailable("it does not answer", retry_s=7)), connect=True)
        self.assertEqual(self.assert_refused(self.come(), 503, "it does").header("retry-after"), "7")
        self.assert_nothing_happened()

    def test_a_fault_while_it_is_asked_is_answered_as_one(self) -> None:
        self.answering(lambda ask: ZeroDivisionError("a fault"), connect=True)
        refusal = self.come().refusal
        assert refusal is not None
        self.assertEqual(refusal.status, 500)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.assert_nothing_happened()

    def test_what_the_application_makes_of_it_holds(self) -> None:
        grants = Grants.of([], subscribe=[Pattern.parse("room/*")], origin="[hooks] before_connect")
        self.answering(lambda ask: Identity(grants, "ada", {"name": "Ada"}, STARTED + 60), connect=True)
        self.assert_refused(self.come("news"), 403, "before_connect does not give subscribe")
        self.assertEqual(self.notes.said, [])
        one = self.come("room/1")
        self.rig.turn()
        (shown,) = self.connections
        self.assertEqual((shown["user"], shown["payload"]), ("ada", {"name": "Ada"}))
        self.assertEqual((shown["expires"], shown["transport"]), (STARTED + 60, self.transport))
        self.rig.wait(75)
        self.assertIn("expired", one.closed_reason or "")
        self.assertEqual(self.rig.traces.sessions, 0)

    def test_the_user_that_the_application_names_is_counted(self) -> None:
        self.begin(
            "[limits]\nconnections_per_user = 1\n", answers=Answers(lambda ask: a_user("ada"), asks_connect=True)
        )
        self.assertIsNone(self.come().refusal)
        self.assert_refused(self.come(), 429, "connections_per_user")

    def test_a_refusal_for_that_user_leaves_the_limit_of_the_address(self) -> None:
        users = iter(["ada", "ada", "bob", "eve"])
        self.begin(
            "[limits]\nconnections_per_user = 1\nconnections_per_address = 2\n",
            answers=Answers(lambda ask: a_user(next(users)), asks_connect=True),
        )
        self.rig.comes_from = STRANGER
        self.assertIsNone(self.come().refusal)
        refused = self.come()
        self.assert_refused(refused, 429, "connections_per_user")
        refused.disconnect()
        self.rig.turn()
        self.assertIsNone(self.come().refusal)
        self.assert_refused(self.come(), 429, "connections_per_address")

    def test_the_application_may_refuse_a_channel(self) -> None:
        answers = self.answering(
            lambda ask: Forbidden("the room is full") if ask.what == "room/2" else None, subscribe=True
        )
        self.assertIsNone(self.come("room/1", since="earliest").refusal)
        self.assertEqual([(ask.what, ask.since) for ask in answers.asked], [("room/1", "earliest")])
        self.notes.said.clear()
        self.assert_refused(self.come("room/1", "room/2"), 403, "the room is full")
        self.assertEqual(self.notes.said, [])
        self.assertEqual((self.rig.traces.sessions, self.rig.traces.subscribers), (1, 1))

    def test_it_comes_in_when_the_application_has_answered(self) -> None:
        answers = self.answering(lambda ask: Later, connect=True, subscribe=True)
        one = self.come("room/1")
        self.assertEqual([ask.kind for ask in answers.asked], ["connect"])
        self.assert_nothing_happened()
        answers.asked[0].answered.callback(a_user("ada"))
        self.rig.turn()
        self.assertEqual([ask.kind for ask in answers.asked], ["connect", "subscribe"])
        self.assertEqual(answers.asked[1].identity.user, "ada")
        self.assert_nothing_happened()
        answers.asked[1].answered.callback(None)
        self.rig.turn()
        self.assertIsNone(one.refusal)
        self.assertEqual(self.notes.said[0], ("connect", 1))
        self.rig.publish("room/1", b"hello")
        self.rig.turn()
        self.assertIn(b"hello", one.datas)

    def test_others_do_not_wait_for_one_that_is_asked_about(self) -> None:
        self.answering(lambda ask: Later if ask.caller.number == 1 else None, connect=True)
        self.come("news")
        self.assertIsNone(self.come("news").refusal)
        self.assertEqual(self.rig.traces.sessions, 1)

    def test_one_whose_token_expires_while_it_is_asked_about_does_not_come_in(self) -> None:
        tokens = Registry({"short": a_user("ada", expires_at=STARTED + 2)})
        for asks in ("connect", "subscribe"):
            with self.subTest(asks):
                answers = Answers(
                    lambda ask: Later, asks_connect=asks == "connect", asks_subscribe=asks == "subscribe"
                )
                self.begin(tokens=tokens, answers=answers)
                self.rig.publish("room/1", b"hello")
                self.before = self.rig.traces
                one = self.come("room/1", since="earliest", token="short")
                self.rig.wait(3)
                self.assert_nothing_happened()
                answers.asked[0].answered.callback(None)
                self.rig.turn()
                self.assert_refused(one, 401, "expired")
                self.assert_nothing_happened()

    def test_one_that_goes_while_it_is_asked_about_was_never_there(self) -> None:
        for decided in (None, Forbidden("too late"), ZeroDivisionError("a fault")):
            with self.subTest(decided):
                answers = self.answering(lambda ask: Later, connect=True)
                one = self.come("room/1")
                one.disconnect()
                self.rig.turn()
                answers.asked[0].answered.callback(decided)
                self.rig.turn()
                self.assert_nothing_happened()
                self.assertEqual(len(self.rig.parts.site.connections), 0)
                self.flushLoggedErrors(ZeroDivisionError)

    def test_one_that_is_asked_about_while_the_daemon_stops_is_told_to_come_back(self) -> None:
        answers = self.answering(lambda ask: Later, connect=True)
        one = self.come("room/1")
        stopping = self.rig.stop()
        self.rig.turn()
        answers.asked[0].answered.callback(None)
        self.rig.turn()
        refusal = self.assert_refused(one, 503, "going away")
        self.assertIsNotNone(refusal.header("retry-after"))
        self.rig.wait(3)
        self.assertIsNone(self.successResultOf(stopping))
        self.assertEqual(self.notes.said, [("close",)])

    def test_an_application_that_never_answers_does_not_hold_up_the_stop(self) -> None:
        answers = self.answering(lambda ask: Later, connect=True)
        one = self.come("room/1")
        stopping = self.rig.stop()
        self.rig.wait(30)
        self.assertIsNone(self.successResultOf(stopping))
        self.assertFalse(one.connection.is_open)
        answers.asked[0].answered.callback(None)
        self.rig.turn()
        self.assertEqual(self.notes.said, [("close",)])

    def test_rights_of_everybody_that_are_gone_are_gone_whatever_the_application_said(self) -> None:
        kept = Grants.of([], subscribe=[Pattern.parse("**")], origin="[hooks] before_connect")
        allowed = {
            "as they are": lambda one: replace(one),
            "with less": lambda one: changed_identity(one, {"user": "ada", "publish": []}, 0),
        }
        for name, allow in allowed.items():
            with self.subTest(name):
                self.answering(lambda ask, allow=allow: allow(ask.identity), connect=True)  # type: ignore[misc]
                loses = self.come("room/1")
                self.assertIsNone(loses.refusal)
                self.rig.reload("[site]\ndemo = no\n[auth]\nanonymous = publish\n")
                self.rig.turn()
                self.assertIn("rights of everybody", loses.closed_reason or "")
        self.answering(lambda ask: replace(ask.identity, grants=kept), connect=True)
        stays = self.come("room/1")
        self.rig.reload("[site]\ndemo = no\n[auth]\nanonymous = publish\n")
        self.rig.publish("room/1", b"hello")
        self.rig.turn()
        self.assertIn(b"hello", stays.datas)

    def test_one_that_is_asked_about_while_the_rights_of_everybody_end_does_not_come_in(self) -> None:
        answers = self.answering(lambda ask: Later, connect=True)
        one = self.come("room/1")
        self.rig.reload("[site]\ndemo = no\n[auth]\nanonymous = publish\nanonymous_subscribe = **\n")
        self.rig.reload("[site]\ndemo = no\n[auth]\nanonymous = publish\n")
        answers.asked[0].answered.callback(None)
        self.rig.turn()
        self.assert_refused(one, 401, "no right to subscribe to 'room/1'")
        self.assert_nothing_happened()

    def test_nobody_is_asked_about_more_channels_than_there_may_be_nor_twice_about_one(self) -> None:
        answers = Answers(asks_connect=True, asks_subscribe=True)
        self.begin("[limits]\nsubscriptions = 3\n", answers=answers)
        self.assert_refused(self.come("a", "b", "c", "d"), 400, "3 channels", field="channel")
        self.assertEqual(answers.asked, [])
        self.come("a", "b", "a", "b", "c", "a")
        self.assertEqual([ask.what for ask in answers.asked], [None, "a", "b", "c"])

    def test_those_who_are_asked_about_count_as_connected(self) -> None:
        for limit, address in (
            ("connections_per_address = 2", STRANGER),
            ("connections_per_user = 2", "127.0.0.1"),
        ):
            for asks in ("connect", "subscribe"):
                with self.subTest(limit=limit, asks=asks):
                    answers = Answers(
                        lambda ask: Later, asks_connect=asks == "connect", asks_subscribe=asks == "subscribe"
                    )
                    self.begin(f"[limits]\n{limit}\n", answers=answers)
                    self.rig.comes_from = address
                    first, second = self.come(token="user-a"), self.come(token="user-a")
                    self.assert_refused(self.come(token="user-a"), 429, limit.partition(" ")[0])
                    self.assertEqual(len(answers.asked), 2)
                    first.disconnect()
                    self.rig.turn()
                    answers.asked[0].answered.callback(None)  # whose place is free then
                    self.rig.turn()
                    self.come(token="user-a")
                    self.assertEqual(len(answers.asked), 3)
                    for ask in answers.asked[1:]:
                        ask.answered.callback(None)
                    self.rig.turn()
                    self.assertEqual(self.rig.traces.sessions, 2)
                    self.assert_refused(self.come(token="user-a"), 429, limit.partition(" ")[0])
                    second.disconnect()
                    self.rig.turn()
                    self.come(token="user-a")
                    self.assertEqual(len(answers.asked), 4)

    def test_the_user_that_the_application_makes_of_it_counts_while_it_is_asked_more(self) -> None:
        answers = Answers(
            lambda ask: a_user("ada") if ask.kind == "connect" else Later, asks_connect=True, asks_subscribe=True
        )
        self.begin("[limits]\nconnections_per_user = 1\n", answers=answers)
        self.come()
        self.assert_refused(self.come(), 429, "connections_per_user")
        self.assertEqual([ask.kind for ask in answers.asked], ["connect", "subscribe", "connect"])

    def test_nobody_is_asked_about_who_may_not_come_anyway(self) -> None:
        answers = Answers(asks_subscribe=True)
        few = "[limits]\nconnect_rate = 1\nconnect_burst = 1\nread_rate = 1\nread_burst = 1\nchannels = 1\n"
        tokens = {token: a_user(token, subscribe="a/**") for token in ("a", "b")}
        self.begin(few, tokens=Registry(tokens), answers=answers)
        self.rig.comes_from = STRANGER
        self.assert_refused(self.come("b", token="a"), 403, "subscribe")
        self.assert_refused(self.come("a/1", token="a"), 429, "_rate")
        self.rig.comes_from = "127.0.0.1"
        self.assert_refused(self.come("a/1", "a/2", token="b"), 429, "[limits] channels")
        self.assertEqual(answers.asked, [])

    def test_no_more_is_asked_about_one_that_has_gone(self) -> None:
        answers = self.answering(lambda ask: Later, connect=True, subscribe=True)
        one = self.come("a", "b", "c")
        answers.asked[0].answered.callback(None)
        self.rig.turn()
        one.disconnect()
        self.rig.turn()
        answers.asked[1].answered.callback(None)
        self.rig.turn()
        self.assertEqual([ask.what for ask in answers.asked], [None, "a"])
        self.assert_nothing_happened()

    def test_nobody_is_asked_about_what_is_wrong_anyway(self) -> None:
        answers = self.answering(lambda ask: None, connect=True)
        for wrong in ("channel=", "channel=a&since=", "channel=a&chanel=b", "channel=a***%00"):
            client = self.rig.client()
            path = self.kind.path + ("?format=raw&" if self.transport == "websocket" else "?")
            client.send("GET", f"{path}{wrong}")
            self.rig.turn()
            self.assertGreaterEqual(client.response.status, 400)
        self.assertEqual(answers.asked, [])


class StayingRules(GuestRules):
    """What holds for those who stay while events come."""

    def test_it_is_present_while_it_is_there(self) -> None:
        self.begin("[channels:room/**]\npresence = events\n", tokens=Registry({"a": a_user("ada", payload=[1])}))
        watcher = JsonSubscriber(self.rig, ["room/1"], None, token="boss")
        self.rig.turn()
        watcher.socket.messages.clear()
        one = self.come("room/1", token="a")
        (join,) = watcher.socket.json
        self.assertEqual(join["event"], "pushd.join")
        shown = {
            "connection": self.connections[1]["connection"],
            "transport": self.transport,
            "user": "ada",
            "payload": [1],
        }
        self.assertEqual(json.loads(join["data"]), shown)
        present = self.rig.get("/channels/room%2F1/presence").json
        self.assertEqual((present["count"], present["users"]), (2, 2))
        self.assertEqual(present["connections"][1], {**shown, "since": STARTED})
        self.assertEqual(self.joins(one), 1, "its own")
        one.disconnect()
        self.rig.turn()
        _, leave = watcher.socket.json
        self.assertEqual((leave["event"], json.loads(leave["data"])), ("pushd.leave", shown))
        self.assertEqual(leave["offset"], join["offset"] + 1)
        self.assertEqual(self.rig.get("/channels/room%2F1/presence").json["count"], 1)

    def joins(self, one: Subscriber) -> int:
        """Count the joins that it has got."""
        return len(one.datas)


class SseGuestTests(StayingRules, DaemonTests):
    """The rules over Server-Sent Events."""

    kind = SseSubscriber
    transport = "sse"

    def joins(self, one: Subscriber) -> int:
        """Override: these are events of another type."""
        assert isinstance(one, SseSubscriber)
        return [event.type for event in one.stream.events].count("pushd.join")


class StreamGuestTests(StayingRules, DaemonTests):
    """The rules over the NDJSON stream."""

    kind = StreamSubscriber
    transport = "stream"


class JsonGuestTests(StayingRules, DaemonTests):
    """The rules over WebSocket with JSON messages."""

    kind = JsonSubscriber
    transport = "websocket"


class RawGuestTests(StayingRules, DaemonTests):
    """The rules over WebSocket with the bare data."""

    kind = RawSubscriber
    transport = "websocket"


class JsonOverHttp2GuestTests(StayingRules, DaemonTests):
    """The rules over WebSocket over HTTP/2 with JSON messages."""

    kind = JsonTunnelSubscriber
    transport = "websocket"


class RawOverHttp2GuestTests(StayingRules, DaemonTests):
    """The rules over WebSocket over HTTP/2 with the bare data."""

    kind = RawTunnelSubscriber
    transport = "websocket"


class PushGuestTests(StayingRules, DaemonTests):
    """The rules over server push."""

    http = Http2Client
    kind = PushSubscriber
    transport = "push"


class SseOverHttp2GuestTests(SseGuestTests):
    """The rules over Server-Sent Events over HTTP/2."""

    http = Http2Client


class StreamOverHttp2GuestTests(StreamGuestTests):
    """The rules over the NDJSON stream over HTTP/2."""

    http = Http2Client


class PollGuestTests(GuestRules, DaemonTests):
    """The rules over long polling."""

    kind = PollSubscriber
    rate = "read"
    transport = "poll"
    can_be_slow = False


class PollOverHttp2GuestTests(PollGuestTests):
    """The rules over long polling over HTTP/2."""

    http = Http2Client
