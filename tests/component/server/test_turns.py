"""How the time of a turn of the reactor is shared among connections with many requests."""

from __future__ import annotations

from collections.abc import Callable
from unittest.mock import patch

from h2.connection import H2Connection
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.http import _ChunkedTransferDecoder

from pushd.bus.memory_headroom import memory
from pushd.bus.turn import Turn
from pushd.server.http1.head import parse_head
from pushd.server.net.turns import Turns
from pushd.transports.websocket.connection import WebSocketConnection
from tests.rigs.daemon import DaemonTests
from tests.rigs.http2_client import Http2Client
from tests.rigs.http_client import HttpClient
from tests.rigs.websocket_client import WebSocketClient

REQUEST = b"GET /channels HTTP/1.1\r\nHost: localhost\r\n\r\n"


class Reactor:
    """Calls in its next turn what it was asked to call, as that of Twisted does."""

    def __init__(self) -> None:
        self.due: list[Callable[[], None]] = []

    def call_later(self, delay_s: float, call: Callable[[], None]) -> None:
        """Call it in the next turn."""
        assert not delay_s
        self.due.append(call)

    def turn(self) -> None:
        """Have one turn."""
        due, self.due = self.due, []
        for call in due:
            call()


class TurnsTests(SynchronousTestCase):
    """`Turns`."""

    def setUp(self) -> None:
        """Begin at a time in hand."""
        self.now = 1000.0
        self.reactor = Reactor()
        self.clock = Turn(lambda: self.now)
        self.turns = Turns(self.reactor.call_later, self.clock)
        self.done: list[str] = []

    def works(self, name: str, count: int, cost_s: float) -> Callable[[], None]:
        """Return what serves `count` requests, each of which takes `cost_s`."""
        left = count

        def go_on() -> None:
            nonlocal left
            self.turns.begin()
            while left:
                left -= 1
                self.now += cost_s
                self.done.append(name)
                if left and not self.turns.may_go_on():
                    self.turns.later(go_on, self.fail)
                    return

        return go_on

    def test_what_is_short_is_done_at_once(self) -> None:
        self.works("a", 40, 0.0001)()
        self.assertEqual(len(self.done), 40)

    def test_what_is_long_is_done_in_several_turns(self) -> None:
        self.works("a", 20, 0.002)()
        self.assertEqual(len(self.done), 3)
        self.reactor.turn()
        self.assertEqual(len(self.done), 6)

    def test_one_request_that_takes_longer_than_a_turn_is_the_last_of_it(self) -> None:
        self.works("a", 3, 0.5)()
        self.assertEqual(len(self.done), 1)
        self.reactor.turn()
        self.assertEqual(len(self.done), 2)

    def test_a_turn_that_is_over_serves_none_of_those_who_wait_but_the_next_one_does(self) -> None:
        self.works("a", 9, 0.009)()
        for done in (2, 3, 4):
            self.clock.begin(self.now)
            self.now += 0.012  # others have used this turn
            self.reactor.turn()
            self.assertEqual(len(self.done), done - 1)
            self.clock.begin(self.now)
            self.now += 0.012
            self.reactor.turn()
            self.assertEqual(len(self.done), done)

    def test_many_connections_share_a_turn_and_none_is_left_out(self) -> None:
        for name in "abcdefghij":
            self.works(name, 30, 0.001)()
        self.assertLessEqual(len(self.done), 15)
        for _ in range(10):
            before = len(self.done)
            self.reactor.turn()
            self.assertLessEqual(len(self.done) - before, 6)
        for _ in range(300):
            self.reactor.turn()
        self.assertEqual({name: self.done.count(name) for name in "abcdefghij"}, dict.fromkeys("abcdefghij", 30))

    def test_after_a_pause_there_is_a_whole_turn(self) -> None:
        self.works("a", 5, 0.001)()
        self.now += 1
        self.works("b", 5, 0.001)()
        self.assertEqual("".join(self.done), "aaaaabbbbb")


class ConnectionTests(DaemonTests):
    """Many requests in one read."""

    def setUp(self) -> None:
        """Make each request take 2 ms."""
        super().setUp()
        self.now = 0.0
        self.served = 0
        self.reactor = Reactor()
        self.patch(self.rig.parts.site.turns, "_seconds", lambda: self.now)
        self.patch(self.rig.parts.site.turns, "_clock", Turn(lambda: self.now))
        self.patch(self.rig.parts.site.turns, "_call_later", self.reactor.call_later)
        find = self.rig.parts.site.getResourceFor

        def serve(request: object) -> object:
            self.now += 0.002
            self.served += 1
            return find(request)

        self.patch(self.rig.parts.site, "getResourceFor", serve)

    def test_pipelined_requests_are_served_a_few_in_each_turn_and_in_order(self) -> None:
        client = HttpClient(self.rig)
        client.methods += ["GET"] * 100
        client.connection.send(REQUEST * 99 + REQUEST.replace(b"/channels", b"/nothing"))
        self.assertEqual(self.served, 3)
        before = 3
        while self.served < 100:
            self.reactor.turn()
            self.rig.turn()
            self.assertLessEqual(self.served - before, 3)
            before = self.served
        self.rig.turn()
        self.assertEqual([one.status for one in client.responses], [200] * 99 + [404])

    def test_small_chunks_are_read_a_few_in_each_turn(self) -> None:
        read: list[int] = []
        decode = _ChunkedTransferDecoder.dataReceived

        def receive(decoder: _ChunkedTransferDecoder, data: bytes) -> None:
            self.now += 0.002
            read.append(len(data))
            decode(decoder, data)

        self.patch(_ChunkedTransferDecoder, "dataReceived", receive)
        head = b"POST /channels/news HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
        body = b"1;a=b\r\nx\r\n" * 6000 + b"0\r\nA: b\r\n\r\n"
        client = HttpClient(self.rig)
        client.methods += ["POST", "GET"]
        client.connection.send(head + body + REQUEST)
        self.assertEqual(len(read), 3)
        while self.reactor.due:
            before = len(read)
            self.reactor.turn()
            self.rig.turn()
            self.assertLessEqual(len(read) - before, 3)
        self.assertLessEqual(max(read), 4096)
        self.assertIn(sum(read) - len(body), range(len(REQUEST) + 1))  # the end of a piece may be of the next one
        self.rig.turn()
        self.assertEqual([one.status for one in client.responses], [201, 200])

    def test_others_are_served_meanwhile(self) -> None:
        many, one = HttpClient(self.rig), HttpClient(self.rig)
        many.connection.send(REQUEST * 100)
        one.send("GET", "/channels")
        self.rig.turn()
        self.assertEqual([answer.status for answer in one.responses], [200])
        self.assertLess(self.served, 20)

    def test_no_more_is_read_of_who_has_to_wait(self) -> None:
        client = HttpClient(self.rig)
        for _ in range(100):
            client.connection.send(REQUEST * 100)
        protocol = next(iter(self.rig.parts.site.connections))
        self.assertLess(len(protocol._unread), 100_000)  # type: ignore[attr-defined]

    def test_a_client_that_has_gone_is_served_no_more(self) -> None:
        client = HttpClient(self.rig)
        client.connection.send(REQUEST * 100)
        client.connection.disconnect()
        for _ in range(50):
            self.reactor.turn()
            self.rig.turn()
        self.assertEqual(self.served, 3)
        self.assertEqual(self.rig.traces.alarms, 0)

    def test_a_fault_in_a_later_turn_ends_the_connection_and_no_other(self) -> None:
        self.addCleanup(memory.look)
        for error, logged in ((ZeroDivisionError(), 1), (MemoryError(), 0)):
            broken, other = HttpClient(self.rig), HttpClient(self.rig)
            broken.connection.send(REQUEST * 100)
            other.connection.send(REQUEST * 4)
            heads = [error, *[parse_head(REQUEST[:-4]) for _ in range(4)]]
            with patch("pushd.server.http1.connection.parse_head", side_effect=heads):
                for _ in range(9):
                    self.reactor.turn()
                    self.rig.turn()
            self.assertFalse(broken.connection.is_open)
            self.assertTrue(other.connection.is_open)
            self.assertEqual(len(self.flushLoggedErrors()), logged)
            self.assertEqual(memory.is_short, not logged)

    def test_streams_of_one_read_are_served_a_few_in_each_turn(self) -> None:
        client = Http2Client(self.rig)
        self.rig.turn()
        h2: H2Connection = client.h2
        for number in range(100):
            fields = [(":method", "GET"), (":scheme", "https"), (":authority", "localhost"), (":path", "/channels")]
            h2.send_headers(2 * number + 1, fields, end_stream=True)
        client.flush()
        self.assertEqual(self.served, 3)
        before = 3
        while self.served < 100:
            self.reactor.turn()
            self.rig.turn()
            self.assertLessEqual(self.served - before, 3)
            before = self.served
        self.rig.turn()
        self.assertEqual([one.status for one in client.responses], [200] * 100)

    def test_a_connection_that_ends_meanwhile_serves_no_more_of_them(self) -> None:
        client = Http2Client(self.rig)
        self.rig.turn()
        for number in range(50):
            fields = [(":method", "GET"), (":scheme", "https"), (":authority", "localhost"), (":path", "/channels")]
            client.h2.send_headers(2 * number + 1, fields, end_stream=True)
        client.flush()
        client.connection.disconnect()
        for _ in range(50):
            self.reactor.turn()
            self.rig.turn()
        self.assertEqual(self.served, 3)


class MessageTests(DaemonTests):
    """Many messages in one read, over a WebSocket."""

    def setUp(self) -> None:
        """Make each message take 1 ms."""
        super().setUp()
        self.now = 0.0
        self.taken = 0
        self.reactor = Reactor()
        self.client = WebSocketClient(self.rig, "/ws")
        self.rig.turn()
        (connection,) = self.rig.parts.site.connections
        assert isinstance(connection, WebSocketConnection)
        self.connection = connection
        self.patch(connection._turns, "_seconds", lambda: self.now)
        self.patch(connection._turns, "_clock", Turn(lambda: self.now))
        self.patch(connection._turns, "_call_later", self.reactor.call_later)
        take = connection.onMessage

        def taken(payload: bytes, is_binary: bool) -> None:
            self.now += 0.001
            self.taken += 1
            take(payload, is_binary)

        connection.onMessage = taken  # type: ignore[method-assign,assignment]

    def command(self, number: int) -> bytes:
        """A command that is refused, as one frame."""
        text = b'{"type":"unsubscribe","channel":"a","ref":%d}' % number
        return bytes([0x81, 0x80 | len(text)]) + bytes(4) + text

    def in_two(self, number: int) -> bytes:
        """The same in two frames, which takes another way."""
        text = b'{"type":"unsubscribe","channel":"a","ref":%d}' % number
        first, last = text[:9], text[9:]
        return bytes([0x01, 0x80 | 9]) + bytes(4) + first + bytes([0x80, 0x80 | len(last)]) + bytes(4) + last

    def assert_taken_in_turns(self, data: bytes, count: int, most: int) -> None:
        """They are, and answered in order."""
        self.client.messages.clear()
        self.client.connection.send(data)
        self.assertLessEqual(self.taken, most)
        before = self.taken
        while self.taken < count:
            self.reactor.turn()
            self.assertLessEqual(self.taken - before, most)
            self.assertGreater(self.taken, before)
            before = self.taken
            self.rig.turn()
        self.rig.turn()
        self.assertEqual([one["ref"] for one in self.client.json], list(range(count)))

    def test_plain_messages_are_taken_some_in_each_turn(self) -> None:
        self.assert_taken_in_turns(b"".join(map(self.command, range(500))), 500, 64)

    def test_so_are_others(self) -> None:
        self.assert_taken_in_turns(b"".join(map(self.in_two, range(200))), 200, 12)

    def test_a_mixture_stays_in_order(self) -> None:
        data = b"".join((self.command, self.in_two)[number % 3 == 0](number) for number in range(300))
        self.assert_taken_in_turns(data, 300, 64)

    def test_what_is_sent_meanwhile_comes_behind(self) -> None:
        self.client.messages.clear()
        for number in range(300):
            self.client.connection.send(self.command(2 * number) + self.in_two(2 * number + 1))
        self.client.connection.send(b"".join(map(self.command, range(600, 900))))
        self.client.connection.send(b"".join(map(self.command, range(900, 1000))))
        for _ in range(100):
            self.reactor.turn()
            self.rig.turn()
        self.assertEqual([one["ref"] for one in self.client.json], list(range(1000)))

    def test_a_fault_in_a_later_turn_ends_the_connection(self) -> None:
        self.client.connection.send(b"".join(map(self.command, range(500))))
        with patch.object(self.connection, "_take_messages", side_effect=ZeroDivisionError):
            self.reactor.turn()
            self.rig.turn()
        self.assertFalse(self.client.connection.is_open)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.assertEqual(self.rig.traces.subscribers, 0)

    def test_a_client_that_has_gone_is_forgotten(self) -> None:
        self.client.connection.send(b"".join(map(self.command, range(500))))
        self.client.connection.disconnect()
        for _ in range(20):
            self.reactor.turn()
            self.rig.turn()
        self.assertLessEqual(self.taken, 64)
        self.assertEqual(self.rig.traces.subscribers, 0)
