"""The turnstile: who is let in, who is told why not, and who is not even told."""

from __future__ import annotations

from typing import Any, cast

from hyperframe.frame import GoAwayFrame
from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.interfaces import IAddress
from twisted.internet.task import Clock
from twisted.logger import ILogObserver, Logger, formatEvent, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from pushd.errors import TooMany, Unavailable
from pushd.server.http2.errors import Code
from pushd.server.net.connection_limits import ConnectionLimiter, ConnectionSlot, RateLimitedLog
from pushd.server.net.timers import TimerWheel
from tests.rigs.daemon import DaemonTests
from tests.rigs.http2_peer import HTTP2TestCase, Peer
from tests.rigs.http_client import HttpClient

TURNED_AWAY = 64
"""How many are told why they are not served."""


def at(host: str) -> IAddress:
    """Make the address of somebody."""
    return (IPv6Address if ":" in host else IPv4Address)("TCP", host, 40000)


class Said:
    """What is logged from now on."""

    def __init__(self, case: SynchronousTestCase) -> None:
        self.lines: list[str] = []
        observer = cast(ILogObserver, self._observe)
        globalLogPublisher.addObserver(observer)
        case.addCleanup(globalLogPublisher.removeObserver, observer)

    def _observe(self, event: Any) -> None:
        self.lines.append(formatEvent(event))

    def about(self, what: str) -> list[str]:
        """Return the lines that have `what` in them."""
        return [line for line in self.lines if what in line]


class CountTests(SynchronousTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.wheel = TimerWheel(Clock().seconds)

    def limiter(self, most: int, most_per_address: int, proxies: tuple[str, ...] = ()) -> ConnectionLimiter:
        return ConnectionLimiter(
            most, most_per_address, self.wheel, lambda peer: isinstance(peer, IPv4Address) and peer.host in proxies
        )

    def enter(self, one: ConnectionLimiter, *hosts: str) -> list[ConnectionSlot | None]:
        return [one.enter(at(host)) for host in hosts]

    def refused(self, one: ConnectionLimiter, *hosts: str) -> list[int | None]:
        """Let them in; answer with which status each is refused."""
        slots = self.enter(one, *hosts)
        return [None if it is None or it.refused is None else it.refused.status for it in slots]

    def test_so_many_are_let_in_and_others_when_they_have_gone(self) -> None:
        one = self.limiter(2, 0)
        first, second, third = self.enter(one, "127.0.0.1", "192.0.2.1", "192.0.2.2")
        assert first is not None and second is not None and third is not None
        self.assertEqual((first.refused, second.refused), (None, None))
        self.assertIsInstance(third.refused, Unavailable)
        self.assertEqual(len(one), 2)
        third.give_back()
        self.assertEqual(self.refused(one, "192.0.2.3"), [503])
        first.give_back()
        first.give_back()
        self.assertEqual(self.refused(one, "192.0.2.3", "192.0.2.3"), [None, 503])

    def test_so_many_of_one_address_are_let_in(self) -> None:
        one = self.limiter(0, 2)
        same = "192.0.2.1"
        slots = self.enter(one, same, "192.0.2.2", same)
        (refused,) = self.enter(one, same)
        assert refused is not None and slots[0] is not None
        self.assertIsInstance(refused.refused, TooMany)
        self.assertEqual(self.refused(one, "192.0.2.2"), [None])
        slots[0].give_back()
        self.assertEqual(self.refused(one, same, same), [None, 429])

    def test_a_network_of_ipv6_is_one_address_and_ipv4_in_ipv6_is_ipv4(self) -> None:
        for first, second, status in (
            ("2001:db8::1", "2001:db8::ffff:1", 429),
            ("2001:db8::1", "2001:db8:0:1::1", None),
            ("192.0.2.1", "::ffff:192.0.2.1", 429),
            ("::ffff:192.0.2.1", "::ffff:192.0.2.2", None),
        ):
            with self.subTest((first, second)):
                self.assertEqual(self.refused(self.limiter(0, 1), first, second), [None, status])

    def test_loopback_unix_sockets_and_proxies_are_not_counted_by_their_address(self) -> None:
        one = self.limiter(0, 1, ("192.0.2.9",))
        self.assertEqual(self.refused(one, *["127.0.0.1", "127.1.2.3", "::1", "192.0.2.9"] * 3), [None] * 12)
        for _ in range(3):
            slot = one.enter(UNIXAddress(None))
            assert slot is not None
            self.assertIsNone(slot.refused)
        self.assertEqual(len(one), 15)

    def test_they_are_counted_in_all(self) -> None:
        one = self.limiter(2, 1, ("192.0.2.9",))
        self.assertEqual(self.refused(one, "127.0.0.1", "192.0.2.9", "127.0.0.1"), [None, None, 503])

    def test_of_who_has_gone_nothing_is_kept(self) -> None:
        one = self.limiter(0, 5)
        for number in range(1000):
            for slot in self.enter(one, *[f"10.0.{number // 250}.{number % 250}"] * 2):
                assert slot is not None
                slot.give_back()
        self.assertEqual((len(one), len(one._per_address)), (0, 0))

    def test_only_so_many_are_told(self) -> None:
        one = self.limiter(1, 0)
        self.enter(one, "127.0.0.1")
        slots = self.enter(one, *["192.0.2.1"] * (TURNED_AWAY + 10))
        self.assertEqual([it is None for it in slots], [False] * TURNED_AWAY + [True] * 10)
        assert slots[0] is not None
        slots[0].give_back()
        self.assertEqual([it is None for it in self.enter(one, "192.0.2.1", "192.0.2.1")], [False, True])


class SparingTests(SynchronousTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.clock = Clock()
        self.wheel = TimerWheel(self.clock.seconds)
        self.said = Said(self)
        self.limited_log = RateLimitedLog(Logger(namespace="tests"), self.wheel)

    def wait(self, seconds: int) -> None:
        for _ in range(seconds):
            self.clock.advance(1)
            self.wheel.turn()

    def test_the_first_is_logged_at_once_and_the_others_are_counted(self) -> None:
        for number in range(1000):
            self.limited_log.info("flood", "a {thing}", thing=f"flood {number}")
        self.assertEqual(self.said.about("flood"), ["a flood 0"])
        self.wait(3)
        self.assertEqual(self.said.about("flood"), ["a flood 0", "a flood 0, and 999 more like this"])
        self.wait(10)
        self.assertEqual((len(self.said.about("flood")), len(self.wheel)), (2, 0))
        self.limited_log.info("flood", "a {thing}", thing="flood again")
        self.assertEqual(len(self.said.about("flood")), 3)

    def test_kinds_are_apart(self) -> None:
        self.limited_log.info("a", "first of a")
        self.limited_log.info("b", "first of b")
        self.assertEqual(len(self.said.about("first of")), 2)

    def test_a_flood_is_a_line_a_second_at_most(self) -> None:
        for _ in range(30):
            for _ in range(100):
                self.limited_log.info("flood", "flood")
            self.wait(1)
        self.assertLessEqual(len(self.said.about("flood")), 31)


class TurnedAwayTests(DaemonTests):
    """A daemon that is full."""

    config = "[limits]\nconnections = 2\nhead_timeout = 10s\n"
    GET = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"

    def full(self) -> list[HttpClient]:
        return [HttpClient(self.rig) for _ in range(2)]

    def test_the_first_request_is_answered_503_and_no_other(self) -> None:
        self.full()
        said = Said(self)
        client = HttpClient(self.rig)
        client.send_raw("GET", self.GET * 3)
        self.rig.turn()
        response = client.response
        self.assert_problem(response, 503, says="2 connections are open: [limits] connections")
        self.assertEqual(response.header("retry-after"), "10")
        self.assertEqual(response.header("connection"), "close")
        self.assertEqual(response.header("server"), "pushd")
        (line,) = said.about("turned away")
        self.assertRegex(line, r"turned away 127\.0\.0\.1:\d+: 2 connections are open: \[limits\] connections")
        self.assertEqual(said.about("refused"), [])
        self.rig.wait(6)
        self.assertFalse(client.connection.is_open)

    def test_a_body_is_not_read_and_a_head_request_gets_no_body(self) -> None:
        self.full()
        client = HttpClient(self.rig)
        client.send("POST", "/channels/news", body=b"hello")
        self.rig.turn()
        self.assert_problem(client.response, 503)
        head = HttpClient(self.rig)
        head.send("HEAD", "/healthz")
        self.rig.turn()
        self.assertEqual((head.response.status, head.response.body), (503, b""))
        self.assertTrue(head.connection.received.endswith(b"\r\n\r\n"))

    def test_one_that_says_nothing_or_too_little_is_gone_after_head_timeout(self) -> None:
        self.full()
        clients = [HttpClient(self.rig) for _ in range(3)]
        for second in range(12):
            self.assertEqual([it.connection.is_open for it in clients], [True] * 3, second)
            clients[1].connection.send(b"G" if second == 0 else b"x")
            if second == 8:
                clients[2].send_raw("GET", self.GET)  # and stays, as it may
            self.rig.wait(1)
            if second == 9:
                break
        self.rig.wait(2)
        self.assertEqual([it.connection.is_open for it in clients], [False] * 3)

    def test_when_one_goes_another_is_served(self) -> None:
        first, _ = self.full()
        first.connection.disconnect()
        client = HttpClient(self.rig)
        client.send("GET", "/healthz")
        self.rig.turn()
        self.assertEqual(client.response.status, 200)

    def test_of_too_many_that_are_turned_away_the_others_are_closed_at_once(self) -> None:
        full = self.full()
        said = Said(self)
        told = [HttpClient(self.rig) for _ in range(TURNED_AWAY)]
        others = [HttpClient(self.rig) for _ in range(20)]
        self.rig.turn()
        self.assertEqual({it.connection.is_open for it in told}, {True})
        self.assertEqual({it.connection.is_open for it in others}, {False})
        self.assertEqual(len(self.rig.parts.site.connections), 2 + TURNED_AWAY)
        self.assertEqual(len(said.about("turned away")), 1)
        self.rig.wait(13)
        self.assertEqual({it.connection.is_open for it in told}, {False})
        self.assertEqual(len(said.about("turned away")), 2)
        self.assertIn(f"and {TURNED_AWAY + 19} more like this", said.about("turned away")[1])
        self.assertEqual({it.connection.is_open for it in full}, {True})

    def test_a_websocket_keeps_its_place_until_it_ends(self) -> None:
        client = HttpClient(self.rig)
        key = {"Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA==", "Sec-WebSocket-Version": "13"}
        client.send("GET", "/ws", headers={"Upgrade": "websocket", "Connection": "Upgrade", **key})
        HttpClient(self.rig)
        third = HttpClient(self.rig)
        third.send("GET", "/healthz")
        self.rig.turn()
        self.assertEqual((client.response.status, third.response.status), (101, 503))
        third.connection.disconnect()
        client.connection.disconnect()
        self.assertEqual(self.rig.request("GET", "/healthz").status, 200)

    def test_one_address_that_has_too_many_is_answered_429(self) -> None:
        self.start("[limits]\nconnections_per_address = 2\n")
        clients = [HttpClient(self.rig, peer=at("192.0.2.7")) for _ in range(3)]
        other = HttpClient(self.rig, peer=at("192.0.2.8"))
        for client in (*clients, other):
            client.send("GET", "/healthz")
        self.rig.turn()
        self.assertEqual([it.response.status for it in (*clients, other)], [200, 200, 429, 200])
        self.assert_problem(clients[2].response, 429, says="192.0.2.7 has 2 connections open: [limits]")
        self.assertEqual(clients[2].response.header("retry-after"), "10")

    def test_a_trusted_proxy_is_not_counted_by_its_address(self) -> None:
        self.start(
            "[limits]\nconnections_per_address = 2\n[proxies]\ntrusted = 192.0.2.0/24\n"
            "[auth]\nanonymous = publish, subscribe\n"
        )
        clients = [HttpClient(self.rig, peer=at("192.0.2.7")) for _ in range(3)]
        for client in clients:
            client.send("GET", "/healthz")
        self.rig.turn()
        self.assertEqual([it.response.status for it in clients], [200] * 3)


class Http2TurnedAwayTests(HTTP2TestCase):
    def setUp(self) -> None:
        super().setUp()
        refused = Unavailable("it is full", retry_s=10)
        self.peer = Peer(self.site, self.wheel, self.clock, refused).begin()

    def test_the_first_request_is_answered_and_goaway_follows(self) -> None:
        self.peer.get(1, "/open")
        self.peer.turn()
        self.assert_answers(1, 503)
        self.assertIn(b"it is full", self.peer.body(1))
        fields = self.peer.fields(1)
        self.assertEqual((fields["retry-after"], fields["server"]), ("10", "pushd"))
        self.assertEqual(fields["x-content-type-options"], "nosniff")
        first: GoAwayFrame = self.peer.goaways()[0]
        self.assertEqual((first.error_code, first.last_stream_id), (Code.NO_ERROR, 1))
        self.assertIsInstance(self.peer.seen[-1], GoAwayFrame, "httpx reads nothing behind it")
        self.assertTrue(self.peer.is_closed)
        self.assertEqual(self.pages.open.requests, [])

    def test_others_that_come_with_it_are_refused(self) -> None:
        self.peer.send(self.peer.headers(1), self.peer.headers(3), self.peer.headers(5, method="POST", end=False))
        self.peer.turn()
        self.assert_answers(1, 503)
        self.assertEqual([self.peer.resets(n) for n in (3, 5)], [[Code.REFUSED_STREAM]] * 2)

    def test_a_body_is_not_waited_for_and_a_head_request_gets_none(self) -> None:
        self.peer.get(1, method="HEAD")
        self.peer.turn()
        self.assertEqual((self.peer.status(1), self.peer.body(1)), (503, b""))

    def test_a_websocket_and_a_head_that_is_too_large_are_answered_too(self) -> None:
        self.peer.get(1, fields=[("x", "y" * 17_000)])
        self.peer.turn()
        self.assert_answers(1, 503)
