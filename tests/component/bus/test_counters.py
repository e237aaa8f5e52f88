"""The figures: what is counted, by what clients and the daemon do."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

from twisted.trial.unittest import SynchronousTestCase

from pushd.api.metrics.lag import ReactorLag
from pushd.bus.closing import CloseCause
from pushd.bus.counters import Counters, Histogram
from pushd.bus.subscription import Subscription
from pushd.errors import NotFound, TooMany, Unauthorized
from tests.rigs.builders import BusRig, Client, a_caller, draft, patterns
from tests.rigs.daemon import DaemonTests, StoredDaemonRig
from tests.rigs.http2_client import Http2Client
from tests.rigs.http_client import HttpClient
from tests.rigs.websocket_client import WebSocketClient


class HistogramTests(SynchronousTestCase):
    def test_a_bound_is_in_its_class_and_what_is_above_all_in_the_last(self) -> None:
        histogram = Histogram((1, 2))
        for value in (0.5, 1, 1.5, 2, 3, 1000):
            histogram.add(value)
        self.assertEqual(histogram.counts, [2, 2, 2])
        self.assertEqual(histogram.sum, 1008)

    def test_what_was_the_same_several_times_is_counted_so_often(self) -> None:
        histogram = Histogram((1, 2))
        histogram.add(1.5, 10)
        self.assertEqual((histogram.counts, histogram.sum), ([0, 10, 0], 15))


class LagTests(SynchronousTestCase):
    def lags(self, *times_s: float) -> list[float]:
        """Return how late each call was that came at these times."""
        seen: list[float] = []

        class Seen(Histogram):
            def add(self, value: float, times: int = 1) -> None:
                seen.append(round(value, 6))

        times = iter(times_s)
        lag = ReactorLag(Seen(()), lambda: next(times))
        for _ in times_s:
            lag.tick()
        return seen

    def test_who_is_on_time_is_not_late(self) -> None:
        self.assertEqual(self.lags(5.25, 6.25, 7.25), [0, 0, 0])

    def test_one_that_is_late_is_late_by_itself(self) -> None:
        self.assertEqual(self.lags(1, 2.5, 3, 4.25, 5), [0, 0.5, 0, 0.25, 0])

    def test_those_that_were_left_out_are_not_waited_for(self) -> None:
        self.assertEqual(self.lags(1, 5.5, 6, 7), [0, 3.5, 0, 0])

    def test_if_the_first_was_late_that_is_found_out(self) -> None:
        self.assertEqual(self.lags(1.75, 2, 3, 4.5), [0, 0, 0, 0.5])


class BusTests(SynchronousTestCase):
    """What the bus counts: once for each event."""

    def setUp(self) -> None:
        """Make a bus."""
        super().setUp()
        self.rig = BusRig()
        self.bus, self.counters = self.rig.bus, self.rig.bus.counters

    def subscribe(self, *texts: str, since: str = "latest") -> None:
        """Subscribe somebody."""
        subscription = Subscription(self.bus, Client(), a_caller())
        subscription.add(patterns(*texts), since)
        while subscription.advance():
            pass

    def test_events_and_to_how_many_they_went(self) -> None:
        self.rig.publish("a")
        self.subscribe("a")
        self.subscribe("*")
        self.rig.publish("a")
        self.rig.publish("b")
        self.assertEqual((self.counters.published, self.counters.delivered), (3, 3))

    def test_an_event_of_several_channels_is_one(self) -> None:
        self.subscribe("a")
        self.subscribe("b")
        self.bus.publish(draft("a", "b"), a_caller().grants)
        self.assertEqual((self.counters.published, self.counters.delivered), (1, 2))

    def test_one_that_was_there_already_is_none(self) -> None:
        self.rig.publish("a", id="x")
        self.rig.publish("a", id="x")
        self.assertEqual(self.counters.published, 1)

    def test_what_was_replayed(self) -> None:
        for _ in range(3):
            self.rig.publish("a")
        self.subscribe("a", since="earliest")
        self.assertEqual((self.counters.replayed, self.counters.delivered), (3, 0))

    def test_subscriptions(self) -> None:
        subscription = Subscription(self.bus, Client(), a_caller())
        subscription.add(patterns("a", "b/**"), "latest")
        subscription.add(patterns("a"), "latest")
        self.assertEqual(self.bus.subscriptions, 2)
        subscription.remove("a")
        self.assertEqual(self.bus.subscriptions, 1)
        subscription.close()
        self.assertEqual(self.bus.subscriptions, 0)


class DaemonFigureTests(DaemonTests):
    """What a whole daemon counts."""

    config = "[site]\ndemo = no\n"

    @property
    def counters(self) -> Counters:
        """What it has counted."""
        return self.rig.parts.bus.counters

    def test_bytes_that_were_written_are_those_of_the_events(self) -> None:
        client = HttpClient(self.rig)
        client.send("GET", "/stream?channel=a")
        self.rig.turn()
        before = len(client.connection.received)
        self.rig.publish("a", b"hello")
        self.rig.turn()
        self.assertEqual(self.counters.written_bytes, len(client.connection.received) - before)

    def test_bytes_of_a_crowd_are_counted_for_each(self) -> None:
        clients = [WebSocketClient(self.rig, "/ws?channel=a") for _ in range(3)]
        self.rig.turn()
        before = self.counters.written_bytes
        sizes = [len(client.connection.received) for client in clients]
        self.rig.publish_each("a", b"hello", b"you")
        self.rig.turn()
        came = sum(len(client.connection.received) - size for client, size in zip(clients, sizes, strict=True))
        self.assertEqual(self.counters.written_bytes - before, came)

    def test_bytes_of_a_poll_and_of_pushes_are_counted(self) -> None:
        poll = HttpClient(self.rig)
        poll.send("GET", "/poll?channel=a")
        self.rig.turn()
        self.rig.publish("a", b"hello")
        self.rig.turn()
        self.assertEqual(self.counters.written_bytes, len(poll.response.body))
        push = Http2Client(self.rig)
        push.send("GET", "/push?channel=b")
        self.rig.turn()
        before = self.counters.written_bytes
        self.rig.publish("b", b"hello")
        self.rig.turn()
        self.assertEqual(self.counters.written_bytes, before + len(b"hello"))

    def test_subscribers_come_and_go_by_transport_and_reason(self) -> None:
        websocket = WebSocketClient(self.rig, "/ws?channel=a")
        stream = HttpClient(self.rig)
        stream.send("GET", "/sse?channel=b")
        self.rig.turn()
        self.assertEqual(self.counters.connected, {"websocket": 1, "sse": 1})
        self.assertEqual(self.counters.ended, {})
        websocket.connection.disconnect()
        self.rig.request("DELETE", "/channels/b")
        self.rig.turn()
        self.assertEqual(self.counters.ended, {("websocket", None): 1, ("sse", CloseCause.DELETED): 1})

    def test_events_that_waited_for_who_is_too_slow(self) -> None:
        self.start("[limits]\noutbox = 16KiB\nevent_size = 8KiB\n[site]\ndemo = no\n")
        client = WebSocketClient(self.rig, "/ws?channel=a")
        self.rig.turn()
        client.connection.is_reading = False
        for _ in range(40):
            self.rig.publish("a", b"x" * 8000)
            self.rig.turn()
        self.assertEqual(self.counters.ended, {})
        self.assertGreaterEqual(self.counters.too_slow, 3)
        self.assertLess(self.counters.too_slow, 10)

    def test_refusals_by_kind_wherever_they_are_said(self) -> None:
        self.rig.get("/nowhere")
        self.rig.publish_many({"channel": ""}, {"channel": "a", "data": "x"}, {"channel": "a"})
        client = WebSocketClient(self.rig, "/ws")
        self.rig.turn()
        client.say(type="nonsense")
        self.rig.turn()
        http2 = Http2Client(self.rig)
        http2.send("POST", "/channels/a", body=b"x", headers=[("content-length", str(10**9))])
        self.rig.turn()
        raw = HttpClient(self.rig)
        raw.send_raw("GET", b"GET / HTTP/7.7\r\n\r\n")
        self.rig.turn()
        counts = {kind.__name__: count for kind, count in self.counters.refused.items()}
        self.assertEqual(counts, {"NotFound": 1, "BadRequest": 4, "TooLarge": 1})

    def test_answers_by_status(self) -> None:
        self.rig.publish("a")
        self.rig.get("/nowhere")
        self.rig.get("/healthz")
        self.assertEqual(self.counters.answered, {201: 1, 404: 1, 200: 1})

    def test_connections_that_were_let_in_and_those_that_were_not(self) -> None:
        self.start("[limits]\nconnections = 2\nconnections_per_address = 1\n")
        self.rig.comes_from = "192.0.2.1"
        self.rig.connect()
        self.rig.connect()
        self.rig.comes_from = "192.0.2.2"
        self.rig.connect()
        self.rig.connect()
        self.assertEqual(self.counters.accepted, 2)
        self.assertEqual(self.counters.turned_away, {"connections_per_address": 1, "connections": 1})


class LatencyTests(DaemonTests):
    """From when an event comes until it is written for the last subscriber."""

    config = "[site]\ndemo = no\n"

    @property
    def latency(self) -> Histogram:
        """What was measured."""
        return self.rig.parts.bus.counters.latency

    def test_all_events_of_a_turn_count(self) -> None:
        WebSocketClient(self.rig, "/ws?channel=a")
        self.rig.turn()
        self.rig.publish_each("a", b"1", b"2", b"3")
        self.assertEqual(sum(self.latency.counts), 0)
        self.rig.reactor.advance(0.03)
        self.assertEqual(sum(self.latency.counts), 3)
        self.assertAlmostEqual(self.latency.sum, 0.09)

    def test_an_event_that_nobody_gets_does_not_count(self) -> None:
        self.rig.publish("a")
        self.rig.turn()
        WebSocketClient(self.rig, "/ws?channel=a&since=earliest")
        self.rig.wait(3)
        self.assertEqual(sum(self.latency.counts), 0)

    def test_what_waits_for_the_store_counts_from_when_it_came(self) -> None:
        with TemporaryDirectory() as directory:
            rig = self.rig = StoredDaemonRig(Path(directory), "[pushd]\ndurability = power\n[site]\ndemo = no\n")
            WebSocketClient(rig, "/ws?channel=a")
            rig.turn()
            rig.worker.is_held = True
            client = HttpClient(rig)
            client.send("POST", "/channels/a", body=b"1")
            rig.turn()
            rig.reactor.advance(2.5)
            rig.worker.release()
            rig.turn()
            self.assertEqual(sum(self.latency.counts), 1)
            self.assertAlmostEqual(self.latency.sum, 2.5)
            rig.abandon()

    def test_a_clock_that_was_set_for_others_is_not_taken_for_the_next(self) -> None:
        WebSocketClient(self.rig, "/ws?channel=a")
        self.rig.turn()
        self.rig.publish("a")
        self.rig.turn()
        self.rig.wait(10)
        self.rig.publish("a")
        self.rig.turn()
        self.assertEqual((sum(self.latency.counts), self.latency.sum), (2, 0))


class RefusedTests(SynchronousTestCase):
    def test_what_is_refused_is_counted_by_its_kind(self) -> None:
        counters = Counters()
        for refused in (NotFound("x"), NotFound("y"), TooMany("z"), Unauthorized("w", is_token_wrong=True)):
            counters.refuse(refused)
        self.assertEqual(counters.refused, {NotFound: 2, TooMany: 1, Unauthorized: 1})
