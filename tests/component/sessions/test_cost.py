"""What a delivery costs, in calls of functions: they can be counted exactly, on any machine."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from twisted.internet.address import IPv4Address
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.http_headers import Headers

from pushd.bus.closing import CloseReason
from pushd.bus.event import Draft, Encoder
from pushd.bus.grants import EVERYTHING, ChannelScope
from pushd.config.access import Proxies
from pushd.server.net.timers import TimerWheel
from pushd.server.net.trusted_proxies import TrustedProxies
from pushd.server.net.writer import ProxiedTransport, Writer, writer
from pushd.server.web.header_names import bound_header_names
from pushd.sessions.registry import SessionRegistry
from pushd.sessions.session import Session
from pushd.wire.frames import chunked, sse_event, stream_line, websocket_event
from tests.rigs.builders import BusRig, Kept, a_caller, catch_up, patterns
from tests.rigs.calls import calls_of
from tests.rigs.daemon import DaemonRig
from tests.rigs.http2_client import Http2Client
from tests.rigs.http_client import HttpClient
from tests.rigs.websocket_client import WebSocketClient
from tests.unit.server.test_writer import SocketRig


@dataclass
class Connection:
    """A connection over a socket in memory, which takes everything."""

    writer: Writer
    client_name: str = "somebody"

    def close(self, reason: CloseReason) -> None:
        """Fail: nobody is to be closed."""
        raise AssertionError(reason)

    def abort(self) -> None:
        """Fail."""
        raise AssertionError("aborted")


def cost(encode: Encoder, subscribers: int, in_flight: int, *channels: str, on_overflow: str = "close") -> int:
    """Return how many calls it takes to publish events within one turn and bring them into all sockets."""
    bus = BusRig(default=Kept(on_overflow=on_overflow))
    sessions = SessionRegistry(
        bus.bus,
        TimerWheel(bus.clock.seconds),
        bus.clock.callLater,
        max_outbox_bytes=1 << 20,
        now=bus.clock.seconds,
        prefix="test",
    )
    sockets = [SocketRig() for _ in range(subscribers)]
    for socket in sockets:
        session = Session(sessions, Connection(writer(socket.transport)), encode, a_caller())
        session.subscribe(patterns(*(channels or ("news",))), "latest")
    bus.clock.advance(0)

    def one_turn() -> None:
        for _ in range(in_flight):
            bus.publish("news", data=b"x" * 100)
        bus.clock.advance(0)

    one_turn()
    calls = calls_of(one_turn)
    assert all(socket.socket.sends == 2 for socket in sockets)
    return calls


def calls_per_delivery(encode: Encoder, in_flight: int, *channels: str, on_overflow: str = "close") -> float:
    """Return what each further subscriber costs for each event."""
    more, fewer = (cost(encode, count, in_flight, *channels, on_overflow=on_overflow) for count in (150, 50))
    return (more - fewer) / 100 / in_flight


def push_cost(subscribers: int, count: int) -> int:
    """Return how many calls it takes to publish `count` events within one turn and push them to all subscribers."""
    rig = DaemonRig()
    draft = Draft.checked(("news",), b"x" * 100)
    for _ in range(subscribers):
        client = Http2Client(rig)
        client.send("GET", "/push?channel=news")
        rig.turn()
        client.connection.on_data = lambda: None  # what it makes of the events is not counted

    def one_turn() -> None:
        for _ in range(count):
            rig.parts.bus.publish(draft, EVERYTHING)
        rig.turn()

    one_turn()
    return calls_of(one_turn)


class CostTests(SynchronousTestCase):
    """A bound that is reached may be lowered; one that is passed is a delivery that costs more than it did."""

    def test_an_event_by_itself(self) -> None:
        for encode in websocket_event, chunked(sse_event), chunked(stream_line):
            self.assertLessEqual(calls_per_delivery(encode, 1), 3)

    def test_events_that_come_together(self) -> None:
        for encode in websocket_event, chunked(sse_event):
            self.assertLessEqual(calls_per_delivery(encode, 16), 0.2)

    def test_where_only_the_latest_counts(self) -> None:
        self.assertLessEqual(calls_per_delivery(websocket_event, 1, on_overflow="latest"), 3)

    def test_to_who_follows_several_channels(self) -> None:
        self.assertLessEqual(calls_per_delivery(websocket_event, 1, "news", "sport"), 25)
        self.assertLessEqual(calls_per_delivery(websocket_event, 16, "news", "sport"), 9.2)

    def test_a_pushed_event(self) -> None:
        self.assertLessEqual(push_cost(2, 1) - push_cost(1, 1), 320)
        more, fewer = (push_cost(1, count) - push_cost(0, count) for count in (60, 10))
        self.assertLessEqual((more - fewer) / 50, 220)

    def test_an_event_is_encoded_once_for_everybody(self) -> None:
        encoded = []

        def encode(entry: Any) -> bytes:
            encoded.append(entry)
            return b"frame"

        cost(encode, 50, 3)
        self.assertEqual(len(encoded), 6)
        self.assertEqual(len(set(map(id, encoded))), 6)


class PublishingTests(SynchronousTestCase):
    """The same for what publishers send, to a channel without subscribers and with a history that is full."""

    def setUp(self) -> None:
        """Fill the history."""
        super().setUp()
        self.rig = DaemonRig("[limits]\noutbox = 1MiB\n")
        self.http = HttpClient(self.rig)
        self.http.connection.on_data = lambda: None
        for _ in range(2):
            self.batch(200)

    def batch(self, lines: int) -> None:
        """Publish `lines` events in one request."""
        body = b'{"channel":"news","data":"hello"}\n' * lines
        self.http.send("POST", "/publish", body=body)
        self.rig.turn()

    def test_a_line_of_a_batch(self) -> None:
        more, fewer = (calls_of(lambda count=count: self.batch(count)) for count in (400, 200))  # type: ignore[misc]
        self.assertLessEqual((more - fewer) / 200, 55)

    def test_an_event_by_itself(self) -> None:
        request = (
            b"POST /channels/news HTTP/1.1\r\nHost: localhost\r\nUser-Agent: test\r\nAccept: */*\r\n"
            b"Content-Type: application/json\r\nContent-Length: 5\r\n\r\nhello"
        )
        send = self.http.connection.send
        send(request)
        self.assertLessEqual(calls_of(lambda: send(request)), 382)

    def test_a_message(self) -> None:
        client = WebSocketClient(self.rig, "/ws")
        client.connection.on_data = lambda: None
        message = b'{"type":"publish","channel":"news","data":"hello","ref":1}'
        frame = bytes([0x81, 0x80 | len(message)]) + bytes(4) + message

        def send(count: int) -> None:
            client.connection.send(frame * count)
            self.rig.turn()

        send(1)
        more, fewer = (calls_of(lambda count=count: send(count)) for count in (60, 10))  # type: ignore[misc]
        self.assertLessEqual((more - fewer) / 50, 98)


class ConnectingTests(SynchronousTestCase):
    """The same for who comes to a channel that others are subscribed to."""

    def cost(self, request: bytes) -> int:
        """Return how many calls it takes to let a subscriber in and send what it is told first."""
        rig, clients = DaemonRig(), []

        def come() -> None:
            client.connection.send(request)
            rig.turn()

        for _ in range(3):
            client = HttpClient(rig)
            client.connection.on_data = lambda: None
            clients.append(client)
            calls = calls_of(come)
        self.assertEqual(rig.parts.bus.subscribers, 3)
        return calls

    def test_by_a_websocket(self) -> None:
        request = (
            b"GET /ws?channel=news HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
        )
        self.assertLessEqual(self.cost(request), 660)

    def test_by_an_event_stream(self) -> None:
        request = b"GET /sse?channel=news HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\n\r\n"
        self.assertLessEqual(self.cost(request), 575)


class HeldTests(SynchronousTestCase):
    """What it costs to hold an event to many channels for a subscriber that is being replayed to."""

    def cost(self, count: int) -> int:
        """Return how many calls it takes if the subscriber has `count` patterns, of which the last one matches."""
        rig = BusRig(max_held_bytes=1 << 20)
        names = [f"m/{number}/x" for number in range(20)]
        rig.publish(*names)
        texts = [f"n/{number}/*" for number in range(count - 1)]
        _, subscription, _ = rig.subscribe(*texts, "m/**", since="earliest")
        self.assertTrue(subscription.is_replaying)
        rig.publish(*names)
        calls = calls_of(lambda: rig.publish(*names))
        catch_up(subscription)
        return calls

    def test_it_does_not_grow_with_the_patterns(self) -> None:
        self.assertLessEqual(self.cost(90), self.cost(2) + 10)


class ProxyTests(SynchronousTestCase):
    """What it costs for each request to know where its client is."""

    def cost(self, proxies: Proxies, *fields: str) -> int:
        """Return how many calls it takes, when the same was asked before."""
        bound_header_names()  # else it depends on how many names other tests have sent
        trust, peer = TrustedProxies(proxies), IPv4Address("TCP", "10.0.0.1", 40000)
        headers = Headers({b"x-forwarded-for": [field.encode() for field in fields]})
        calls_of(lambda: trust.client_address(peer, headers))
        return calls_of(lambda: trust.client_address(peer, headers))

    def test_without_proxies(self) -> None:
        self.assertLessEqual(self.cost(Proxies((), "x-forwarded-for"), "203.0.113.9"), 5)

    def test_behind_a_proxy(self) -> None:
        self.assertLessEqual(self.cost(Proxies(("10.0.0.0/8",), "x-forwarded-for"), "203.0.113.9, 10.0.0.2"), 15)

    def test_behind_the_proxy_protocol_a_delivery_goes_the_same_way(self) -> None:
        socket = SocketRig()
        peer = IPv4Address("TCP", "203.0.113.9", 4711)
        way = writer(ProxiedTransport(socket.transport, peer, peer))
        direct = writer(socket.transport)
        self.assertEqual(way.send, direct.send)
        calls = [calls_of(lambda it=it: it.write(b"abc")) for it in (direct, way)]  # type: ignore[misc]
        self.assertEqual(calls[0], calls[1])


class RightsTests(SynchronousTestCase):
    """What it costs to tell that a channel is out of reach, however long its name is."""

    def test_a_name_that_begins_otherwise(self) -> None:
        reach = ChannelScope(patterns(*(f"room/{number}/**" for number in range(100))))
        name = "room/" + "/" * 240
        self.assertLessEqual(calls_of(lambda: reach.has(name)) / 100, 60)

    def test_a_pattern_that_begins_otherwise(self) -> None:
        reach = ChannelScope(patterns(*(f"room/{number}/**" for number in range(100))))
        for asked in ("a" + "/b" * 120 + "/**", "room/x" + "/*" * 100 + "/**/x"):
            self.assertLessEqual(calls_of(lambda asked=asked: reach.has(asked)) / 100, 110)  # type: ignore[misc]
