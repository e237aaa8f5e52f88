"""When the rights of a subscriber end, so does its connection, over every transport."""

from __future__ import annotations

from typing import TYPE_CHECKING
from unittest.mock import patch

from pushd.auth.webhooks.answers import changed_identity
from pushd.daemon.integrations import Integrations
from pushd.server.net.client_certificates import Certificate
from tests.rigs.daemon import STARTED, DaemonTests
from tests.rigs.http2_client import Http2Client
from tests.rigs.http_client import Response
from tests.rigs.outsiders import Answers
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
from tests.rigs.vouching import FakeTokens, identity, logged, with_token

REASON = "the token has expired; come back with a new one"
CERTIFICATE = "the client certificate has expired; connect again with a new one"

if TYPE_CHECKING:
    _Base = DaemonTests
else:
    _Base = object


class ExpiryRules(_Base):
    """What holds for each kind of subscriber."""

    kind: type[Subscriber]

    config = "[site]\ndemo = no\n[auth]\nanonymous = publish\n[limits]\nheartbeat = 3600s\npoll_timeout = 3600s\n"

    def start(self, config: str = "") -> None:
        """Override: with tokens that expire after 10 s, in part."""
        self.expires_at = STARTED + 10
        self.tokens = FakeTokens(never=identity(subscribe=("**",)))
        self.expire(self.expires_at)
        self.world = Integrations(self.tokens)
        super().start(config)
        self.tokens.now = self.rig.now
        self.before = self.rig.traces

    def expire(self, expires_at: float) -> None:
        """Let the token ``brief`` expire at that time."""
        self.tokens.known["brief"] = identity(subscribe=("**",), expires_at=expires_at)

    def subscribe(self, *channels: str, token: str = "brief", reads: bool = True) -> Subscriber:
        """Connect a subscriber that shows a token."""
        shown = with_token(self.kind, token)
        return shown(self.rig, channels, None, reads=reads)

    def certify(self, expires_at: float) -> None:
        """Give every connection a client certificate that expires at that time."""
        certificate = Certificate("CN=alice,O=Example", expires_at)
        patcher = patch("pushd.server.net.connection_info.certificate_of", lambda transport: certificate)
        patcher.start()
        self.addCleanup(patcher.stop)

    def assert_ended(self, subscriber: Subscriber, why: str = REASON) -> None:
        """It was told `why`, and is gone."""
        reason = subscriber.closed_reason
        if isinstance(subscriber, PollSubscriber):
            refused: Response = subscriber._answers[-1]
            if refused.status == 401:  # it came back at the wrong moment
                self.assert_problem(refused, 401, says="has expired")
                return
            self.assert_problem(refused, 403)
            reason = refused.json["detail"]
        self.assertEqual(reason, why)
        if isinstance(subscriber, JsonSubscriber | RawSubscriber):
            self.assertEqual(subscriber.socket.close, (1008, why))
        if not isinstance(subscriber, PollSubscriber):
            self.assertFalse(subscriber.is_open)
            subscriber.disconnect()
            self.rig.wait(1)
            self.assertEqual(self.rig.traces.subscribers, self.before.subscribers)
            self.assertEqual(self.rig.traces.sessions, self.before.sessions)
        self.assertEqual(self.rig.parts.sessions._expiries, {})

    def test_it_lives_until_then_and_ends_within_two_seconds(self) -> None:
        for channels in (("a",), ("a", "b"), ("*",)):
            for expires_s in (9.0, 9.001, 9.5, 9.999):
                with self.subTest(f"{channels} {expires_s}"):
                    self.start(self.config)
                    self.expire(STARTED + expires_s)
                    subscriber = self.subscribe(*channels)
                    self.rig.wait(8)
                    self.rig.reactor.advance(expires_s - 8 - 0.0005)
                    self.rig.publish("a", b"just in time")
                    self.rig.turn()
                    self.assertTrue(subscriber.is_open)
                    self.assertEqual(subscriber.datas, [b"just in time"])
                    while self.rig.now() < STARTED + expires_s + 2:
                        self.rig.reactor.advance(0.25)
                        self.rig.turn()
                    self.assert_ended(subscriber)

    def test_what_is_published_until_then_comes_and_nothing_after(self) -> None:
        subscriber = self.subscribe("a")
        count = 0
        while self.rig.now() < STARTED + 20:
            self.rig.publish("a", b"%d" % count)
            count += 1
            self.rig.reactor.advance(0.25)
            self.rig.turn()
        got = subscriber.datas
        self.assertGreaterEqual(len(got), 40)
        self.assertLess(len(got), 49)
        self.assertEqual(got, [b"%d" % number for number in range(len(got))])
        self.assert_ended(subscriber)

    def test_what_was_published_in_the_same_turn_comes_before_the_reason(self) -> None:
        subscriber = self.subscribe("a")
        self.rig.wait(9)
        while self.rig.traces.subscribers:
            before = self.rig.traces.subscribers
            self.rig.publish("a", b"x")
            self.rig.reactor.advance(1)  # the connection may end here, before what was written is sent
            self.assertEqual(before, 1)
        self.rig.turn()
        self.assertGreater(len(subscriber.datas), 0)
        self.rig.wait(1)
        self.assert_ended(subscriber)

    def test_a_certificate_ends_it_as_a_token_does(self) -> None:
        self.certify(STARTED + 10)
        for token in (None, "never"):
            with self.subTest(token):
                self.start(self.config)
                subscriber = self.kind(self.rig, ["a"], None) if token is None else self.subscribe("a", token=token)
                self.rig.wait(9)
                self.rig.publish("a", b"just in time")
                self.rig.turn()
                self.assertEqual(subscriber.datas, [b"just in time"])
                self.rig.wait(3)
                self.assert_ended(subscriber, CERTIFICATE)

    def test_whatever_ends_first_of_a_token_and_a_certificate_ends_it(self) -> None:
        for certificate_s, why in ((1000, REASON), (5, CERTIFICATE)):
            self.certify(STARTED + certificate_s)
            self.start(self.config)
            subscriber = self.subscribe("a")
            self.rig.wait(12)
            self.assert_ended(subscriber, why)

    def test_the_application_cannot_grant_more_time_than_the_certificate_has(self) -> None:
        self.certify(STARTED + 10)
        members = {"expires_in": 3600.0}
        answers = Answers(lambda ask: changed_identity(ask.identity, members, self.rig.now()), asks_connect=True)
        self.start(self.config)
        self.world = Integrations(self.tokens, answers)
        DaemonTests.start(self, self.config)
        self.before = self.rig.traces
        subscriber = self.subscribe("a", token="never")
        self.assertEqual([ask.kind for ask in answers.asked], ["connect"])
        self.rig.wait(12)
        self.assert_ended(subscriber, CERTIFICATE)

    def test_without_an_end_it_has_none(self) -> None:
        subscriber = self.subscribe("a", token="never")
        self.rig.wait(100)
        self.rig.publish("a", b"still")
        self.rig.turn()
        self.assertEqual(subscriber.datas, [b"still"])
        self.assertTrue(subscriber.is_open)

    def test_one_that_ended_while_it_was_looked_at_is_let_in_for_a_moment_only(self) -> None:
        self.tokens.now = None
        self.expire(STARTED - 100)
        subscriber = self.subscribe("a")
        self.rig.wait(2)
        self.assert_ended(subscriber)

    def test_who_goes_before_leaves_nothing(self) -> None:
        subscriber = self.subscribe("a")
        subscriber.disconnect()
        self.rig.wait(15)
        self.assertEqual(self.rig.parts.sessions._expiries, {})
        self.assertEqual(self.rig.traces.sessions, self.before.sessions)

    def test_it_is_logged(self) -> None:
        with logged() as lines:
            subscriber = self.subscribe("a")
            self.rig.wait(12)
        self.assert_ended(subscriber)
        told = [line for line in lines if REASON in line.split("\n")[0]]
        self.assertEqual(len(told), 1, told)
        self.assertIn("127.0.0.1:", told[0])
        self.assertIn("'log_level': <LogLevel=info>", told[0])

    def test_one_that_does_not_read_is_gone_too(self) -> None:
        subscriber = self.subscribe("a")
        if isinstance(subscriber, PollSubscriber | PushSubscriber):
            return  # a poll is not read when it waits; pushes are bounded by other windows
        subscriber.connection.stop_reading()
        for _ in range(20):
            self.rig.publish("a", b"x" * 10_000)
        self.rig.wait(12 + subscriber.close_timeout_s)
        self.assertEqual(self.rig.traces.subscribers, self.before.subscribers)
        self.assertEqual(self.rig.traces.sessions, self.before.sessions)


class SseExpiryTests(ExpiryRules, DaemonTests):
    """Server-Sent Events."""

    kind = SseSubscriber


class StreamExpiryTests(ExpiryRules, DaemonTests):
    """NDJSON."""

    kind = StreamSubscriber


class PollExpiryTests(ExpiryRules, DaemonTests):
    """Long polls: the token is looked at anew each time, and the one that waits is answered."""

    kind = PollSubscriber


class JsonExpiryTests(ExpiryRules, DaemonTests):
    """WebSocket in JSON."""

    kind = JsonSubscriber


class RawExpiryTests(ExpiryRules, DaemonTests):
    """WebSocket with the bare data."""

    kind = RawSubscriber


class JsonTunnelExpiryTests(ExpiryRules, DaemonTests):
    """WebSocket over HTTP/2."""

    kind = JsonTunnelSubscriber


class RawTunnelExpiryTests(ExpiryRules, DaemonTests):
    """The same with the bare data."""

    kind = RawTunnelSubscriber


class PushExpiryTests(ExpiryRules, DaemonTests):
    """Server push."""

    kind = PushSubscriber
    http = Http2Client


class SseOverHttp2ExpiryTests(SseExpiryTests):
    """Server-Sent Events over HTTP/2."""

    http = Http2Client


class StreamOverHttp2ExpiryTests(StreamExpiryTests):
    """NDJSON over HTTP/2."""

    http = Http2Client


class PollOverHttp2ExpiryTests(PollExpiryTests):
    """Long polls over HTTP/2."""

    http = Http2Client
