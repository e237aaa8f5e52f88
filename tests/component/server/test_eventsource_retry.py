"""A temporary refusal of an ``EventSource`` is a stream that says when to come back; others get the true status."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any
from unittest.mock import patch

from twisted.internet.task import Clock
from twisted.logger import capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase

from pushd.daemon.integrations import Integrations
from pushd.errors import (
    BadRequest,
    Forbidden,
    NoRoom,
    NotFound,
    OutOfMemory,
    Refused,
    TimedOut,
    TooMany,
    Unauthorized,
    Unavailable,
)
from pushd.server.eventsource_retry import EventSourceRetry
from pushd.server.http2.stream import Stream
from pushd.transports.sse import ServerSentEvents
from tests.rigs.daemon import DaemonTests
from tests.rigs.http2_client import Http2Client
from tests.rigs.http_client import Client, HttpClient, Response
from tests.rigs.outsiders import Answers, Later, Registry, deny
from tests.rigs.sse_client import EventStream

NATIVE = [("Accept", "text/event-stream"), ("Cache-Control", "no-cache")]
"""What Chromium, Firefox and npm ``eventsource`` send."""

OTHERS: list[list[tuple[str, str]]] = [
    [],
    [("Accept", "*/*")],
    [("Accept", "text/event-stream")],  # fetch-event-source
    [("Accept", "text/event-stream"), ("Cache-Control", "no-store")],  # httpx-sse
    [("Accept", "text/event-stream, */*"), ("Cache-Control", "no-cache")],
    [("Accept", "text/event-stream, application/problem+json"), ("Cache-Control", "no-cache")],
    [("Accept", "text/event-stream;q=0"), ("Cache-Control", "no-cache")],
    [("Accept", "application/json"), ("Cache-Control", "no-cache")],
    [("Cache-Control", "no-cache")],
]
LIKE_NATIVE: list[list[tuple[str, str]]] = [
    NATIVE,
    [("accept", "Text/Event-Stream"), ("cache-control", "No-Cache")],
    [("Accept", "text/event-stream;q=0.9"), ("Cache-Control", "max-age=0, no-cache")],
    [("Accept", "text/event-stream, */*;q=0"), ("Cache-Control", "no-cache"), ("Pragma", "no-cache")],
]
STRANGER = "198.51.100.7"


class WaitTests(SynchronousTestCase):
    """How long clients are told to wait."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.comeback = EventSourceRetry(self.clock.seconds, lambda: 0.5)
        self.comeback.configure(2, 4)

    def wait_s(self, address: str = STRANGER, retry_s: float | None = None) -> float:
        _, body = self.comeback.answer(Unavailable("no", retry_s=retry_s), address, "id")
        first, *_ = body.split(b"\n")
        return int(first.removeprefix(b"retry: ")) / 1000

    def test_it_is_at_least_what_is_configured_and_what_the_refusal_says(self) -> None:
        self.assertEqual(self.wait_s(retry_s=1), 2 + 2)
        self.assertEqual(self.wait_s("192.0.2.1", retry_s=7.34), 7.34 + 2)
        self.assertEqual(self.wait_s("192.0.2.2", retry_s=3600), 3600 + 2)

    def test_it_doubles_to_a_minute_each_time_that_a_client_comes_back(self) -> None:
        waits = []
        for _ in range(8):
            waits.append(self.wait_s(retry_s=1))
            self.clock.advance(waits[-1])
        self.assertEqual(waits, [4, 6, 10, 18, 34, 62, 62, 62])

    def test_many_that_are_refused_together_count_as_one(self) -> None:
        self.assertEqual({self.wait_s(retry_s=1) for _ in range(1000)}, {4})
        self.clock.advance(3)
        self.assertEqual({self.wait_s(retry_s=1) for _ in range(1000)}, {6})

    def test_it_begins_again_after_a_success_or_a_while(self) -> None:
        for end in (lambda: self.comeback.succeeded(STRANGER), lambda: self.clock.advance(200)):
            for _ in range(3):
                self.clock.advance(self.wait_s(retry_s=1))
            end()
            self.assertEqual(self.wait_s(retry_s=1), 4)
            self.comeback.succeeded(STRANGER)

    def test_addresses_are_apart_and_a_network_of_ipv6_is_one(self) -> None:
        self.wait_s("2001:db8::1", 1)
        self.clock.advance(3)
        self.assertEqual((self.wait_s("2001:db8::2", 1), self.wait_s("192.0.2.1", 1)), (6, 4))

    def test_not_all_addresses_are_remembered(self) -> None:
        for number in range(6000):
            self.wait_s(f"10.0.{number // 250}.{number % 250}")
        self.assertEqual(len(self.comeback), 4096)


class FormTests(SynchronousTestCase):
    """Who gets the stream."""

    def takes(
        self,
        headers: Sequence[tuple[str, str]],
        refused: Refused | None = None,
        method: bytes = b"GET",
        target: bytes = b"/sse?channel=a",
    ) -> bool:
        def values(name: bytes) -> list[bytes]:
            return [value.encode() for key, value in headers if key.lower().encode() == name]

        return EventSourceRetry(Clock().seconds).is_for(refused or Unavailable("no"), method, target, values)

    def test_it_is_told_by_two_headers(self) -> None:
        for headers in LIKE_NATIVE:
            self.assertTrue(self.takes(headers), headers)
        for headers in OTHERS:
            self.assertFalse(self.takes(headers), headers)

    def test_only_what_may_be_otherwise_later_is_said_so(self) -> None:
        for kind in (Unavailable, TooMany, TimedOut, NoRoom):
            self.assertTrue(self.takes(NATIVE, kind("no")), kind)
        for other in (BadRequest, Unauthorized, Forbidden, NotFound):
            self.assertFalse(self.takes(NATIVE, other("no")), other)

    def test_only_at_sse_and_with_get(self) -> None:
        for method, target in ((b"HEAD", b"/sse"), (b"POST", b"/sse"), (b"GET", b"/stream"), (b"GET", b"/sse/x")):
            self.assertFalse(self.takes(NATIVE, method=method, target=target))


class ComebackTests(DaemonTests):
    """Over HTTP/1.1."""

    config = (
        "[site]\ndemo = no\n[auth]\nanonymous = publish, subscribe\norigins = https://app.example\n"
        "[log]\nrequests = yes\n[limits]\nretry = 1s\nreconnect_spread = 2s\n"
    )

    def begin(self, decide: Any = None, config: str = "", *, connect: bool = True) -> Answers:
        answers = Answers(decide or deny(Unavailable("the application does not answer", retry_s=7.34)))
        answers.asks_connect, answers.asks_subscribe = connect, not connect
        self.world = Integrations(Registry(), answers)
        self.start(self.config + config)
        return answers

    def ask(self, headers: Sequence[tuple[str, str]] = NATIVE, target: str = "/sse?channel=a") -> Response:
        client: Client = self.http(self.rig)
        client.send("GET", target, headers=headers)
        self.rig.turn()
        return client.written[0]

    def assert_stream(
        self, response: Response, status: int, at_least_s: float, spread_s: float = 2
    ) -> dict[str, Any]:
        """It is a whole stream that says `status` and when to come back; return what else it says."""
        self.assertEqual((response.status, response.is_complete), (200, True), response)
        self.assertEqual(response.header("content-type"), "text/event-stream")
        self.assertEqual(response.header("cache-control"), "no-store, no-transform")
        self.assertEqual(response.header("pushd-status"), str(status))
        self.assertNotIn(b"id:", response.body)
        self.assertTrue(response.body.startswith(b"retry: "), response.body)
        self.assertTrue(response.body.endswith(b"\n\n"))
        (event,) = EventStream(response.body).events
        self.assertEqual((event.type, event.last_event_id), ("pushd.closed", ""))
        said: dict[str, Any] = json.loads(event.data)
        retry_ms = int(response.body.split(b"\n")[0].removeprefix(b"retry: "))
        self.assertAlmostEqual(said["retry_after"] * 1000, retry_ms, delta=1)
        self.assertGreaterEqual(said["retry_after"], at_least_s)
        self.assertLessEqual(said["retry_after"], at_least_s + spread_s)
        self.assertEqual(said["status"], status)
        self.assertEqual(said["request_id"], response.header("x-request-id"))
        return said

    def test_while_the_application_does_not_answer(self) -> None:
        for connect in (True, False):
            self.begin(connect=connect)
            said = self.assert_stream(self.ask(), 503, 7.34)
            self.assertEqual(said["detail"], "the application does not answer")
            self.assertEqual(said["title"], "Service Unavailable")

    def test_when_it_answers_later(self) -> None:
        answers = self.begin(lambda ask: Later)
        client: Client = self.http(self.rig)
        client.send("GET", "/sse?channel=a", headers=NATIVE)
        self.rig.turn()
        answers.asked[0].answered.callback(TooMany("not so many", retry_s=3))
        self.rig.turn()
        self.assert_stream(client.written[0], 429, 3)

    def test_others_get_the_true_status(self) -> None:
        self.begin()
        for headers in OTHERS:
            response = self.ask(headers)
            self.assert_problem(response, 503, says="does not answer")
            self.assertEqual(response.header("retry-after"), "8")
        for target in ("/stream?channel=a", "/poll?channel=a"):
            self.assert_problem(self.ask(NATIVE, target), 503, says="does not answer")

    def test_what_stays_so_is_final(self) -> None:
        for refused in (Forbidden("not this channel"), Unauthorized("say who you are")):
            self.begin(deny(refused))
            self.assert_problem(self.ask(), refused.status, says=refused.detail)
        self.assert_problem(self.ask(target="/sse"), 400, field="channel")
        self.assert_problem(self.ask(target="/sse?channel=a&chanel=b"), 400, field="chanel")

    def test_the_limits_say_so_too(self) -> None:
        self.begin(lambda ask: None, "connections_per_address = 1\n")
        self.rig.comes_from = STRANGER
        client = self.http(self.rig)
        client.send("GET", "/sse?channel=a", headers=NATIVE)
        self.rig.turn()
        if self.http is not HttpClient:  # where connections are counted by themselves
            self.assert_stream(self.ask(), 429, 10)
        self.begin(lambda ask: None, "connect_rate = 1\nconnect_burst = 1\n")
        self.rig.comes_from = STRANGER
        self.ask()
        self.assert_stream(self.ask(), 429, 1)
        self.begin(lambda ask: None, "channels = 1\n")
        self.ask(target="/sse?channel=other")
        self.assert_stream(self.ask(), 503, 1, 12)

    def test_while_the_daemon_stops(self) -> None:
        self.begin(lambda ask: None)
        client = self.http(self.rig)
        client.send("GET", "/poll?channel=a")
        self.rig.turn()
        self.rig.stop()
        client.send("GET", "/sse?channel=a", headers=NATIVE)
        self.rig.turn()
        self.assert_stream(client.written[-1], 503, 1, 2 + 2)

    def test_it_doubles_and_ends_with_a_success(self) -> None:
        answers = self.begin(deny(Unavailable("no", retry_s=1)))
        for wanted in (1, 2, 4, 8):
            self.assert_stream(self.ask(), 503, wanted)
            self.rig.wait(wanted + 1)
        answers.decide = lambda ask: None
        self.assertFalse(self.ask().is_complete)
        answers.decide = deny(Unavailable("no", retry_s=1))
        self.assert_stream(self.ask(), 503, 1)

    def test_figures_and_the_log_have_the_true_status(self) -> None:
        self.begin()
        with capturedLogs() as logs:
            self.ask()
        counters = self.rig.parts.sessions.counters
        self.assertEqual(counters.refused[Unavailable], 1)
        self.assertEqual((counters.answered[503], counters.answered[200]), (1, 0))
        lines = [formatEvent(event) for event in logs]
        (line,) = (line for line in lines if "/sse" in line)
        self.assertTrue(line.startswith("503 GET /sse from"), line)
        self.assertIn("the application does not answer", line)

    def test_a_page_of_a_listed_origin_may_read_it(self) -> None:
        self.begin()
        response = self.ask([*NATIVE, ("Origin", "https://app.example")])
        self.assert_stream(response, 503, 7.34)
        self.assertEqual(response.header("access-control-allow-origin"), "https://app.example")
        self.assert_problem(self.ask([*NATIVE, ("Origin", "https://evil.example")]), 403, field="Origin")

    def test_a_connection_that_is_turned_away_is_told_so_too(self) -> None:
        for origin in ([], [("Origin", "https://app.example")], [("Origin", "https://evil.example")]):
            self.begin(lambda ask: None)
            client = self.turned_away()
            client.send("GET", "/sse?channel=a", headers=[*NATIVE, *origin])
            self.rig.turn()
            self.assert_stream(client.written[0], 503, 10)
            allowed = client.written[0].header("access-control-allow-origin")
            self.assertEqual(allowed, "https://app.example" if "app" in str(origin) else None)
            self.assertEqual(self.rig.parts.sessions.counters.refused[Unavailable], 1)
            client = self.turned_away()
            client.send("GET", "/sse?channel=a", headers=OTHERS[1])
            self.rig.turn()
            self.assert_problem(client.written[0], 503, says="connections")

    def test_so_is_one_for_which_there_is_no_memory(self) -> None:
        self.begin()
        with patch.object(ServerSentEvents, "wanted", side_effect=MemoryError):
            self.assert_stream(self.ask(), 503, 10)
        self.assertEqual(self.rig.parts.sessions.counters.refused, {OutOfMemory: 1})

    def turned_away(self) -> Client:
        """Connect a client that is one too many."""
        self.rig.reload(self.config + "connections = 1\n")
        self.rig.connect()
        return HttpClient(self.rig)

    def test_a_reload_changes_how_long(self) -> None:
        self.begin(deny(Unavailable("no", retry_s=1)))
        self.rig.reload(self.config.replace("retry = 1s", "retry = 20s").replace("spread = 2s", "spread = 0s"))
        self.assert_stream(self.ask(), 503, 20, 0)


class ComebackOverHttp2Tests(ComebackTests):
    """Over HTTP/2."""

    http = Http2Client

    def test_so_is_one_without_room_for_its_response(self) -> None:
        self.begin()
        client = Http2Client(self.rig)
        with patch.object(Stream, "hold", side_effect=TooMany("too many unread bytes", retry_s=9)):
            client.send("GET", "/sse", headers=NATIVE)
            self.rig.turn()
        self.assert_stream(client.response, 429, 9)

    def turned_away(self) -> Client:
        """Override: as the switch has it done."""
        client = Http2Client(self.rig)
        client.connection.protocol._turned_away = Unavailable(
            "1 connections are open: [limits] connections", retry_s=10
        )
        return client
