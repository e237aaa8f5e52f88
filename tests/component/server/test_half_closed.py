"""Clients that end their half of the connection and go on reading (RFC 9112, section 9.6)."""

from __future__ import annotations

from itertools import count
from typing import ClassVar

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.address import IPv4Address
from twisted.internet.interfaces import IHalfCloseableProtocol
from twisted.internet.tcp import Connection as TcpConnection

from pushd.auth.webhooks.authorizer import WebhookAuthorizer, new_questions
from pushd.daemon.integrations import Integrations
from pushd.server.web.negotiation import AlpnSwitch
from tests.rigs.application import Application, answer, hooks
from tests.rigs.daemon import DaemonRig, DaemonTests
from tests.rigs.effort import examples
from tests.rigs.http_client import HttpClient
from tests.rigs.outsiders import Registry
from tests.rigs.websocket_client import WebSocketClient

URL = "https://app.example/hook"
MIB = 1024 * 1024
PUBLISH = b"POST /channels/news HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\r\nhello"
CHUNKED = (
    b"POST /channels/news HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"
)
LOOK = b"GET /channels/news HTTP/1.1\r\nHost: localhost\r\n\r\n"


class HalfClosedCase(DaemonTests):
    """Tests with an application that is asked, and answers when the test says."""

    asked: ClassVar[tuple[str, ...]] = ()

    def start(self, config: str = "") -> None:
        """Override: enable the webhooks in `asked`."""
        self.application = Application()
        self.application.always(None)
        numbers = count()
        authorizer = WebhookAuthorizer(
            hooks(**{name: URL if name in self.asked else None for name in _HOOKS}),
            self.application,
            max_event_bytes=MIB,
            seconds=lambda: self.rig.reactor.seconds(),
            now=lambda: self.rig.now(),
            new_id=lambda: f"q{next(numbers)}",
            questions=new_questions(40, 25),
        )
        self.world = Integrations(Registry(), authorizer)
        super().start(config)

    def tearDown(self) -> None:
        """Check that no connection has left anything."""
        self.rig.wait(3)
        traces, site = self.rig.traces, self.rig.parts.site
        self.assertEqual((traces.subscribers, traces.sessions, traces.alarms, len(site.connections)), (0, 0, 0, 0))
        self.assertEqual(site.bodies.used, 0)
        super().tearDown()

    def half_closed(self, *requests: bytes) -> HttpClient:
        """Send `requests` as one segment, then close the client's half; return the client."""
        client = HttpClient(self.rig)
        client.methods = [request.partition(b" ")[0].decode() for request in requests]
        client.connection.send(b"".join(requests))
        client.connection.end_input()
        self.rig.turn()
        return client

    def let_application_answer(self) -> None:
        """Answer each webhook request."""
        for posted in self.application.posted:  # which may grow meanwhile
            if not posted.answered.called:
                posted.answered.callback(answer())
            self.rig.turn()


_HOOKS = ("before_connect", "before_subscribe", "before_publish")


class AnswerTests(HalfClosedCase):
    """Complete requests are answered, and then the connection ends."""

    asked = ("before_publish",)

    def test_a_request_that_takes_a_while_is_answered(self) -> None:
        for request in PUBLISH, CHUNKED:
            with self.subTest(request):
                client = self.half_closed(request)
                self.assertTrue(client.connection.is_open)
                self.let_application_answer()
                self.assertEqual(client.response.status, 201)
                self.assertFalse(client.connection.is_open)
                self.assertFalse(client.connection.was_aborted)

    def test_so_is_each_request_that_waits_behind_it(self) -> None:
        client = self.half_closed(PUBLISH, LOOK, PUBLISH, LOOK)
        self.let_application_answer()
        self.assertEqual([response.status for response in client.responses], [201, 200, 201, 200])
        self.assertEqual([client.responses[place].json["retained"] for place in (1, 3)], [1, 2])
        self.assertFalse(client.connection.is_open)

    def test_a_subscription_behind_it_is_none(self) -> None:
        for path in b"/sse", b"/stream", b"/poll":
            with self.subTest(path):
                client = self.half_closed(
                    PUBLISH, b"GET %b?channel=news HTTP/1.1\r\nHost: localhost\r\n\r\n" % path
                )
                self.let_application_answer()
                self.rig.turn()
                self.assertFalse(client.connection.is_open)
                self.assertEqual(len(self.rig.parts.sessions), 0)

    def test_of_what_is_not_complete_nothing_is_answered(self) -> None:
        for rest in PUBLISH[:10], PUBLISH[:-1], CHUNKED[:-1], CHUNKED[:60]:
            with self.subTest(rest):
                client = self.half_closed(PUBLISH, rest)
                self.let_application_answer()
                self.assertEqual([response.status for response in client.responses], [201])
                self.assertFalse(client.connection.is_open)
                self.assertEqual(self.rig.parts.site.bodies.used, 0)

    def test_a_client_that_reads_slowly_gets_all_of_a_long_answer(self) -> None:
        client = HttpClient(self.rig)
        client.send("POST", "/channels/long", body=b"x" * 500_000)
        self.let_application_answer()
        client.connection.disconnect()
        reader = HttpClient(self.rig)
        reader.connection.stop_reading()
        reader.send("GET", "/history?channel=long")
        reader.connection.end_input()
        self.rig.turn()
        self.assertTrue(reader.connection.is_open)
        reader.connection.start_reading()
        self.assertEqual(len(reader.response.json["events"][0]["data"]), 500_000)
        self.assertFalse(reader.connection.is_open)

    def test_one_that_reads_nothing_is_cut_off_in_time(self) -> None:
        for request in LOOK, LOOK.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"):
            client = HttpClient(self.rig)
            client.connection.stop_reading()
            client.send_raw("GET", request)
            client.connection.end_input()
            self.rig.wait(30)
            self.assertTrue(client.connection.is_open)
            self.rig.wait(40)
            self.assertFalse(client.connection.is_open)

    def test_a_refusal_is_sent(self) -> None:
        client = self.half_closed(b"GARBAGE\r\n\r\n")
        self.assertEqual(client.response.status, 400)
        self.assertFalse(client.connection.is_open)

    def test_one_that_is_turned_away_is_told_so(self) -> None:
        self.start("[limits]\nconnections_per_address = 1\n")
        self.rig.comes_from = "192.0.2.1"
        first = HttpClient(self.rig)
        client = self.half_closed(LOOK)
        self.assertEqual(client.response.status, 429)
        self.assertFalse(client.connection.is_open)
        first.connection.disconnect()


class EndTests(HalfClosedCase):
    """Nobody waits for the rest of what is not complete, nor for somebody who does not listen any more."""

    asked = ("before_connect",)

    def test_without_a_complete_request_it_ends_at_once(self) -> None:
        for data in b"", b"\r\n", PUBLISH[:10], PUBLISH[:-1], CHUNKED[:-1], CHUNKED[:60]:
            with self.subTest(data):
                client = HttpClient(self.rig)
                client.connection.send(data)
                client.connection.end_input()
                self.rig.turn()
                self.assertFalse(client.connection.is_open)
                self.assertEqual(client.connection.received, b"")
        self.assertEqual(self.rig.parts.site.bodies.used, 0)

    def test_a_subscriber_has_gone(self) -> None:
        for path in "/sse", "/stream", "/poll", "/ws":
            for is_early in True, False:
                with self.subTest(path, is_early=is_early):
                    self.assert_gone(path, is_early=is_early)

    def assert_gone(self, path: str, *, is_early: bool) -> None:
        """A subscriber that half-closes has gone, also if it `is_early` and the application is asked about it."""
        if path == "/ws":
            socket = WebSocketClient(self.rig, "/ws?channel=news")
            connection = socket.connection
        else:
            client = HttpClient(self.rig)
            client.send("GET", f"{path}?channel=news")
            connection = client.connection
        self.rig.turn()
        if is_early:
            connection.end_input()
        self.let_application_answer()
        if not is_early:
            self.assertTrue(connection.is_open)
            connection.end_input()
        self.rig.turn()
        self.assertFalse(connection.is_open)
        self.assertEqual(len(self.rig.parts.sessions), 0)

    def test_a_poll_with_something_to_tell_is_answered(self) -> None:
        self.rig.publish("news", b"hello")
        client = HttpClient(self.rig)
        client.send("GET", "/poll?channel=news&since=earliest")
        client.connection.end_input()
        self.let_application_answer()
        self.assertEqual(client.response.json["events"][0]["data"], "hello")
        self.assertFalse(client.connection.is_open)

    def test_an_idle_connection_ends_at_once(self) -> None:
        client = HttpClient(self.rig)
        client.send_raw("GET", LOOK.replace(b"/channels/news", b"/healthz"))
        self.rig.turn()
        client.connection.end_input()
        self.rig.turn()
        self.assertFalse(client.connection.is_open)


class PropertyTests(HalfClosedCase):
    """Whatever was sent before."""

    @examples(60)
    @given(
        st.lists(st.sampled_from((PUBLISH, CHUNKED, LOOK)), max_size=4),
        st.binary(max_size=40) | st.integers(0, len(PUBLISH) - 1).map(lambda size: PUBLISH[:size]),
        st.booleans(),
    )
    def test_it_ends_and_every_complete_request_was_answered(
        self, requests: list[bytes], rest: bytes, is_reading: bool
    ) -> None:
        self.rig.publish("news", b"hello")
        client = HttpClient(self.rig)
        client.methods = [request.partition(b" ")[0].decode() for request in requests] + ["GET"] * 40
        if not is_reading:
            client.connection.stop_reading()
        client.connection.send(b"".join(requests) + rest)
        client.connection.end_input()
        self.rig.wait(1)
        if not is_reading:
            client.connection.start_reading()
        self.rig.wait(1)
        self.assertFalse(client.connection.is_open)
        statuses = [response.status for response in client.responses[: len(requests)]]
        self.assertEqual(statuses, [200 if request is LOOK else 201 for request in requests])


class TwistedTests(DaemonTests):
    """What is relied on."""

    def test_the_transport_tells_those_that_say_so_and_can_be_told_of_the_end(self) -> None:
        switch = DaemonRig().parts.site.buildProtocol(IPv4Address("TCP", "192.0.2.1", 1))
        self.assertIsInstance(switch, AlpnSwitch)
        self.assertTrue(IHalfCloseableProtocol.providedBy(switch))
        self.assertTrue(callable(TcpConnection.readConnectionLost))
        self.assertTrue(callable(TcpConnection.connectionLost))
