"""What is particular to server push."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from math import inf
from timeit import timeit
from typing import Any

from h2.settings import SettingCodes

from pushd.bus.event import Draft
from pushd.bus.grants import EVERYTHING
from pushd.server.http2.errors import Code
from tests.rigs.daemon import DaemonTests, query
from tests.rigs.http2_client import Http2Client
from tests.rigs.http_client import HttpClient, stream_lines


class PushTestCase(DaemonTests):
    config = "[channels]\nhistory_size = 0\n"

    def open(self, *channels: str, settings: dict[Any, int] | None = None, since: str | None = None) -> Http2Client:
        """Connect a client and have it ask for channels."""
        client = Http2Client(self.rig, settings)
        client.send("GET", f"/push?{query(channel=channels, since=since)}")
        self.rig.turn()
        return client

    def got(self, client: Http2Client) -> list[bytes]:
        """Return what has come."""
        self.rig.turn()
        return [push.body for push in client.pushes if push.is_complete]


class EventTests(PushTestCase):
    def test_an_event_is_the_response_to_a_request_for_it(self) -> None:
        client = self.open("news/*")
        event_id = self.rig.publish("news/ü", b"hello", event="note")
        self.rig.turn()
        (push,) = client.pushes
        path = f"/channels/news%2F%C3%BC/events/{event_id}"
        wanted = {":method": "GET", ":scheme": "http", ":authority": "localhost", ":path": path}
        self.assertEqual(push.request, wanted)
        self.assertEqual((push.body, push.is_complete), (b"hello", True))
        self.assertEqual(
            push.fields,
            {
                ":status": "200",
                "event-id": event_id,
                "event-type": "note",
                "cache-control": "private, no-cache",
                "x-content-type-options": "nosniff",
                "content-type": "text/plain; charset=utf-8",
                "content-length": "5",
            },
        )

    def test_it_is_the_same_response_as_to_a_get(self) -> None:
        self.start()
        client = self.open("news")
        self.rig.publish("news", b"\xff\x00")
        self.rig.turn()
        (push,) = client.pushes
        response = self.rig.get(push.request[":path"])
        self.assertEqual(response.body, push.body)
        for name, value in push.fields.items():
            if name != ":status":
                self.assertEqual(response.header(name), value)

    def test_the_head_and_a_first_byte_come_at_once(self) -> None:
        response = self.open("news").response
        self.assertEqual((response.status, response.body.startswith(b'{"type":"open",')), (200, True))
        self.assertEqual(response.header("content-type"), "application/x-ndjson")
        self.assertEqual(response.header("cache-control"), "no-store, no-transform")
        self.assertIsNotNone(response.header("event-position"))
        self.assertFalse(response.is_complete)

    def test_a_lost_position_is_said_in_the_body(self) -> None:
        response = self.open("news", since="unknown").response
        self.assertEqual(stream_lines(response.body), [{"type": "gap", "since": "unknown"}])

    def test_an_idle_client_hears_an_empty_line(self) -> None:
        client = self.open("news")
        before = len(client.response.body)
        self.rig.wait(42)
        self.assertEqual(client.response.body[before:], b"\n\n")

    def test_a_batch_of_many_events_comes_in_order(self) -> None:
        client = self.open("news")
        self.rig.publish_many(*({"channel": "news", "data": str(n)} for n in range(2000)))
        self.assertEqual(self.got(client), [b"%d" % n for n in range(2000)])

    def test_they_come_in_order_however_the_window_opens(self) -> None:
        self.start("[limits]\noutbox = 1MiB")
        client = Http2Client(self.rig, window=0)
        client.send("GET", "/push?channel=news")
        self.rig.turn()
        for number in range(200):
            self.rig.publish("news", b"%d " % number + b"x" * 1000)
            if number % 3:
                self.rig.turn()
            if number % 10 == 0:
                client.open_window(5_000)
            are_complete = [push.is_complete for push in client.pushes]
            self.assertEqual(are_complete, sorted(are_complete, reverse=True))
        self.assertIn(False, are_complete)
        client.open_window(100_000)
        self.rig.turn()
        self.assertEqual(
            [int(push.body.split()[0]) for push in client.pushes if push.is_complete], list(range(200))
        )

    def test_two_on_one_connection_share_the_room(self) -> None:
        client = self.open("a")
        client.send("GET", "/push?channel=b")
        self.rig.turn()
        self.rig.publish_many(*({"channel": "ab"[n % 2], "data": str(n)} for n in range(1000)))
        got = self.got(client)
        self.assertEqual(sorted(got, key=int), [b"%d" % n for n in range(1000)])
        self.assertEqual([it for it in got if int(it) % 2], [b"%d" % n for n in range(1, 1000, 2)])


class RefusalTests(PushTestCase):
    def test_what_is_refused_for_now_is_promised_again_before_anything_newer(self) -> None:
        client = self.open("news")
        client.refuses = {0: Code.REFUSED_STREAM, 2: Code.REFUSED_STREAM, 3: Code.ENHANCE_YOUR_CALM}
        self.rig.publish_each("news", b"0", b"1")
        self.rig.turn()
        self.rig.publish_each("news", b"2")
        self.rig.turn()
        self.assertEqual(len(client.pushes), 2)
        for _ in range(10):
            self.rig.reactor.advance(0.1)
        paths = [push.request[":path"].rpartition("-")[2] for push in client.pushes]
        self.assertEqual(paths, ["1", "2", "1", "3", "1", "3"])

    def test_a_client_that_refuses_every_third_push_gets_everything(self) -> None:
        client = self.open("news")
        client.refuses = dict.fromkeys(range(0, 9000, 3), Code.REFUSED_STREAM)
        self.rig.publish_many(*({"channel": "news", "data": str(n)} for n in range(2000)))
        for _ in range(600):
            self.rig.reactor.advance(0.05)
        taken = [p for at, p in enumerate(client.pushes) if at not in client.refuses]
        numbers = [int(push.request[":path"].rpartition("-")[2]) for push in taken]
        self.assertEqual(sorted(numbers), list(range(1, 2001)))
        self.assertTrue(client.connection.is_open)

    def test_one_that_refuses_everything_costs_less_and_less_and_is_closed_at_last(self) -> None:
        self.start("[limits]\noutbox = 2KiB")
        client = self.open("news")
        client.refuses = dict.fromkeys(range(100_000), Code.REFUSED_STREAM)
        self.rig.publish("news", b"x")
        self.rig.wait(60)
        self.assertLess(len(client.pushes), 30)
        self.rig.publish_each("news", *[b"x"] * 20)
        self.rig.turn()
        self.assertEqual(self.rig.traces.subscribers, 0)
        self.assertIn(b"too slow", client.response.body)
        self.assertEqual(self.rig.delayed, [])

    def test_what_is_not_wanted_is_not_promised_again(self) -> None:
        client = self.open("news")
        client.refuses = {0: Code.CANCEL}
        self.rig.publish_each("news", b"0", b"1")
        self.rig.wait(10)
        self.assertEqual(len(client.pushes), 2)
        self.assertEqual(self.got(client)[-1], b"1")

    def test_a_refusal_that_comes_too_late_is_said(self) -> None:
        self.start("[limits]\noutbox = 1KiB")
        client = self.open("news")
        for _ in range(10):
            self.rig.publish("news", b"x" * 500)
            self.rig.turn()
        client.h2._closed_streams.clear()
        client.connection.send(b"\0\0\4\3\0\0\0\0\2" + bytes((0, 0, 0, Code.REFUSED_STREAM)))
        self.rig.turn()
        self.assertIn(b"resume from the last id", client.response.body)
        self.assertTrue(client.response.is_complete)

    def test_a_push_that_the_client_takes_nothing_of_is_said_to_be_lost(self) -> None:
        client = self.open("news", settings={SettingCodes.INITIAL_WINDOW_SIZE: 10})
        self.rig.publish("news", b"x" * 100)
        self.rig.turn()
        self.rig.wait(40)
        self.assertEqual(self.rig.traces.subscribers, 0)
        self.assertTrue(client.connection.is_open)

    def test_a_client_that_allows_few_gets_all(self) -> None:
        for allowed in 1, 2, 7:
            client = self.open("news", settings={SettingCodes.MAX_CONCURRENT_STREAMS: allowed})
            self.rig.publish_each("news", *(b"%d" % n for n in range(50)))
            self.assertEqual(self.got(client), [b"%d" % n for n in range(50)])
            client.connection.disconnect()

    def test_what_is_in_flight_is_bounded_in_bytes(self) -> None:
        self.start()
        client = self.open("news", settings={SettingCodes.INITIAL_WINDOW_SIZE: 1000})
        self.rig.publish_each("news", *[b"x" * 50_000] * 20)
        self.rig.turn()
        self.assertEqual(len(client.pushes), 2)


class OverloadTests(PushTestCase):
    """However many clients fall behind, and whatever they refuse, the other clients do not wait for them."""

    config = "[limits]\noutbox = 1KiB\n[channels]\nhistory_size = 0\n[channels:prices]\non_overflow = latest\n"

    def stuck(self, *channels: str) -> Http2Client:
        """Connect a client that accepts one promise and none of its body."""
        return self.open(
            *channels, settings={SettingCodes.MAX_CONCURRENT_STREAMS: 1, SettingCodes.INITIAL_WINDOW_SIZE: 0}
        )

    def each_turn(self, count: Callable[[], int]) -> list[int]:
        """Return by how much `count` grows in each turn of the reactor, until nothing is left to do."""
        counts = [count()]

        def note() -> None:
            counts.append(count())
            if any(due_s <= self.rig.reactor.seconds() for due_s in self.rig.delayed):
                self.rig.reactor.callLater(0, note)

        self.rig.reactor.callLater(0, note)
        self.rig.turn()
        counts.append(count())
        return [after - before for before, after in pairwise(counts)]

    def test_however_many_overflow_on_one_event_few_are_closed_in_one_turn(self) -> None:
        for _ in range(60):
            self.stuck("news")
        sessions = self.rig.parts.sessions
        self.rig.publish_each("news", *[b"x"] * 4)
        self.rig.turn()
        self.rig.publish("news", b"one too many")
        self.assertEqual(len(sessions), 60)
        closed = self.each_turn(lambda: 60 - len(sessions))
        self.assertEqual((sum(closed), max(closed)), (60, 20))
        self.assertEqual(self.rig.parts.bus.counters.too_slow, 60 * 4)

    def test_however_many_are_promised_again_at_once_few_are_in_one_turn(self) -> None:
        self.start()
        clients = [self.open("news") for _ in range(5)]
        for client in clients:
            client.refuses = dict.fromkeys(range(50), Code.REFUSED_STREAM)
        self.rig.publish_many(*({"channel": "news", "data": str(n)} for n in range(100)))
        self.rig.turn()
        self.rig.reactor.rightNow += 0.02
        promised = self.each_turn(lambda: sum(len(client.pushes) for client in clients))
        self.assertEqual(max(promised), 50)
        for client in clients:
            self.assertEqual({push.body for push in client.pushes[50:]}, {b"%d" % n for n in range(100)})

    def test_a_replay_is_promised_over_several_turns(self) -> None:
        self.start("[channels]\nhistory_size = 1000")
        self.rig.publish_many(*({"channel": "news", "data": str(n)} for n in range(300)))
        client = Http2Client(self.rig)
        client.send("GET", "/push?channel=news&since=earliest")
        promised = self.each_turn(lambda: len(client.pushes))
        self.assertEqual((sum(promised), max(promised)), (300, 50))
        self.assertEqual(self.got(client), [b"%d" % n for n in range(300)])

    def test_events_of_one_turn_that_overflow_are_promised_in_it_while_there_is_time(self) -> None:
        turn = self.rig.parts.sessions.wheel.reactor_turn
        for is_over in False, True:
            client = self.open("news")
            turn.end_s = self.rig.reactor.seconds() if is_over else inf
            draft = Draft.checked(("news",), b"x" * 100)
            for _ in range(20):
                self.rig.parts.bus.publish(draft, EVERYTHING)
            self.assertEqual(self.rig.parts.bus.counters.too_slow > 0, is_over)
            self.assertEqual(len(self.got(client)), 0 if is_over else 20)
            client.connection.disconnect()

    def test_the_cost_of_a_missed_event_does_not_grow_with_the_events_that_wait(self) -> None:
        costs = []
        for waiting in 10, 1000:
            self.start(f"[limits]\noutbox = {(waiting + 2) * 257}\n[channels:prices]\non_overflow = latest\n")
            self.stuck("news", "prices")
            self.rig.publish_many(*[{"channel": "news", "data": "x"}] * (waiting + 1))
            self.rig.turn()
            bus, price = self.rig.parts.bus, Draft.checked(("prices",), b"x")
            for _ in range(20):
                bus.publish(price, EVERYTHING)
            before = bus.counters.missed
            publish = partial(bus.publish, price, EVERYTHING)
            costs.append(min(timeit(publish, number=1) for _ in range(20)))
            self.assertEqual(bus.counters.missed - before, 20)
        self.assertLess(costs[1], 3 * costs[0])

    def test_one_that_is_closed_while_it_makes_room_takes_nothing_more(self) -> None:
        client = self.open("news")
        for _ in range(10):
            self.rig.publish("news", b"x" * 500)
            self.rig.turn()
        (session,) = self.rig.parts.sessions
        client.h2._closed_streams.clear()
        client.connection.send(b"\0\0\4\3\0\0\0\0\2" + bytes((0, 0, 0, Code.REFUSED_STREAM)))  # too late
        draft = Draft.checked(("news",), b"x" * 100)
        for _ in range(2):
            self.rig.parts.bus.publish(draft, EVERYTHING)
        before = session.outbox_bytes
        self.rig.parts.bus.publish(draft, EVERYTHING)
        self.assertIsNotNone(session.end_reason)
        self.assertEqual(session.outbox_bytes, before)
        self.rig.turn()
        self.assertEqual((self.rig.traces.sessions, self.rig.delayed), (0, []))

    def test_one_that_goes_before_it_is_closed_leaves_nothing(self) -> None:
        before = self.rig.traces
        client = self.stuck("news")
        self.rig.publish_each("news", *[b"x"] * 5)
        client.connection.disconnect()
        self.rig.turn()
        self.assertEqual((self.rig.traces.subscribers, self.rig.traces.sessions), (0, 0))
        self.assertEqual(self.rig.traces.alarms, before.alarms)
        self.assertEqual(self.rig.delayed, [])


class AnswerTests(PushTestCase):
    def test_http_1_1_cannot(self) -> None:
        client = HttpClient(self.rig)
        client.send("GET", "/push?channel=news")
        self.rig.turn()
        self.assert_problem(client.response, 505, says="HTTP/2")

    def test_a_client_that_has_switched_push_off(self) -> None:
        client = self.open("news", settings={SettingCodes.ENABLE_PUSH: 0})
        response = client.response
        self.assertEqual((response.status, json.loads(response.body)["status"]), (409, 409))
        self.assertIn("SETTINGS_ENABLE_PUSH", json.loads(response.body)["detail"])
        self.assertEqual(self.rig.traces.subscribers, 0)

    def test_a_stream_that_the_client_ends(self) -> None:
        client = self.open("news")
        self.rig.publish("news", b"one")
        self.rig.turn()
        client.reset(0, Code.CANCEL)
        self.rig.publish("news", b"two")
        self.rig.turn()
        self.assertEqual(self.got(client), [b"one"])
        self.assertEqual((self.rig.traces.subscribers, self.rig.traces.sessions), (0, 0))
        self.assertEqual(self.rig.delayed, [])
