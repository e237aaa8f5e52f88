"""The PROXY protocol: what its headers say, who may send one, and that it is out of the way afterwards."""

from __future__ import annotations

import struct
from typing import Any, cast

from hypothesis import given
from hypothesis import strategies as st
from OpenSSL import SSL
from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.interfaces import IAddress, IHalfCloseableProtocol, INegotiated, ITCPTransport
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.testing import StringTransport
from twisted.logger import capturedLogs, formatEvent
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import directlyProvides

from pushd.config.access import Proxies
from pushd.server.http2.connection import HTTP2
from pushd.server.net.addresses import UnknownAddress, peer_name
from pushd.server.net.connections import Connections
from pushd.server.net.proxy_protocol import Header, ProxyProtocolFactory, ProxyProtocolSettings, parse_header
from pushd.server.net.timers import TimerWheel
from pushd.server.net.trusted_proxies import TrustedProxies
from pushd.server.net.writer import ProxiedTransport, TLSFactory, writer
from tests.rigs.daemon import DaemonRig
from tests.unit.server.test_tls import forgive_deprecated_certificates
from tests.unit.server.test_writer import Peer, SocketRig, TlsSocketRig

SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
PROXY = IPv4Address("TCP", "10.0.0.1", 40000)
HERE = IPv4Address("TCP", "10.0.0.2", 8080)
CLIENT = IPv4Address("TCP", "203.0.113.9", 4711)
ASKED = IPv4Address("TCP", "198.51.100.1", 443)
CLIENT6 = IPv6Address("TCP", "2001:db8::9", 4711)
ASKED6 = IPv6Address("TCP", "2001:db8::1", 443)

V1 = b"PROXY TCP4 203.0.113.9 198.51.100.1 4711 443\r\n"
V1_6 = b"PROXY TCP6 2001:db8::9 2001:db8::1 4711 443\r\n"


def v2(command: int, family: int, body: bytes, *, length: int | None = None) -> bytes:
    """Write a header of version 2."""
    return SIGNATURE + struct.pack("!BBH", command, family, len(body) if length is None else length) + body


TCP4 = bytes([203, 0, 113, 9, 198, 51, 100, 1]) + struct.pack("!HH", 4711, 443)
TCP6 = bytes.fromhex("20010db8000000000000000000000009 20010db8000000000000000000000001".replace(" ", ""))
TCP6 += struct.pack("!HH", 4711, 443)
UNIX = b"/run/client".ljust(108, b"\0") + b"\0abstract".ljust(108, b"\0")
TLV = b"\x02\x00\x0aa.example\x00"

GOOD: list[tuple[bytes, tuple[IAddress, IAddress] | None, bool]] = [
    (V1, (CLIENT, ASKED), False),
    (V1_6, (CLIENT6, ASKED6), False),
    (b"PROXY TCP4 0.0.0.0 255.255.255.255 0 65535\r\n",
     (IPv4Address("TCP", "0.0.0.0", 0), IPv4Address("TCP", "255.255.255.255", 65535)), False),
    (b"PROXY UNKNOWN\r\n", None, False),
    (b"PROXY UNKNOWN anything \xff at all\r\n", None, False),
    (b"PROXY UNKNOWN " + b"x" * 91 + b"\r\n", None, False),
    (v2(0x21, 0x11, TCP4), (CLIENT, ASKED), False),
    (v2(0x21, 0x11, TCP4 + TLV), (CLIENT, ASKED), False),
    (v2(0x21, 0x11, TCP4 + bytes(16 * 1024 - 16 - 12)), (CLIENT, ASKED), False),
    (v2(0x21, 0x21, TCP6), (CLIENT6, ASKED6), False),
    (v2(0x21, 0x31, UNIX), (UNIXAddress(b"/run/client"), UNIXAddress(b"\0abstract")), False),
    (v2(0x21, 0x31, bytes(216)), (UNIXAddress(None), UNIXAddress(None)), False),
    (v2(0x21, 0x00, b""), None, False),
    (v2(0x21, 0x00, b"whatever"), None, False),
    (v2(0x20, 0x00, b""), None, True),
    (v2(0x20, 0x11, TCP4 + TLV), None, True),
    (v2(0x20, 0xFF, b"x"), None, True),
]  # fmt: skip

BAD: list[tuple[bytes, str]] = [
    (b"GET / HTTP/1.1\r\n", "header is missing"),
    (b"\x16\x03\x01", "header is missing"),
    (b"PROXYTCP4", "header is missing"),
    (b"proxy TCP4 ", "header is missing"),
    (b"\r\n\r\n\0\r\nQUIT\r", "header is missing"),
    (b"\r\n\r\n\r\n", "header is missing"),
    (b"PROXY \r\n", "malformed"),
    (b"PROXY  TCP4 1.1.1.1 2.2.2.2 1 2\r\n", "malformed"),
    (b"PROXY TCP4 1.1.1.1  2.2.2.2 1 2\r\n", "malformed"),
    (b"PROXY TCP4 1.1.1.1 2.2.2.2 1\r\n", "malformed"),
    (b"PROXY TCP4 1.1.1.1 2.2.2.2 1 2 3\r\n", "malformed"),
    (b"PROXY TCP4 1.1.1.1 2.2.2.2 1 2 \r\n", "malformed"),
    (b"PROXY TCP4 1.1.1.1 2.2.2.2 1 2\n\r\n", "port of version 1"),
    (b"PROXY TCP4 1.1.1.1 2.2.2.2 1 65536\r\n", "port of version 1"),
    (b"PROXY TCP4 1.1.1.1 2.2.2.2 01 2\r\n", "port of version 1"),
    (b"PROXY TCP4 1.1.1.1 2.2.2.2 -1 2\r\n", "port of version 1"),
    (b"PROXY TCP4 1.1.1.1 2.2.2.2 \xb2 2\r\n", "port of version 1"),
    (b"PROXY TCP4 1.1.1.01 2.2.2.2 1 2\r\n", "address of version 1"),
    (b"PROXY TCP4 1.1.1.1 2.2.2 1 2\r\n", "address of version 1"),
    (b"PROXY TCP4 ::1 ::1 1 2\r\n", "address of version 1"),
    (b"PROXY TCP6 1.1.1.1 ::1 1 2\r\n", "address of version 1"),
    (b"PROXY TCP6 fe80::1%x ::1 1 2\r\n", "address of version 1"),
    (b"PROXY TCP6 ::g ::1 1 2\r\n", "address of version 1"),
    (b"PROXY UDP4 1.1.1.1 2.2.2.2 1 2\r\n", "malformed"),
    (b"PROXY unknown\r\n", "malformed"),
    (b"PROXY UNKNOWNX\r\n", "malformed"),
    (b"PROXY UNKNOWN " + b"x" * 92 + b"\r\n", "longer than 107 bytes"),
    (b"PROXY TCP4 1.1.1.1" + b" " * 100, "longer than 107 bytes"),
    (v2(0x11, 0x11, TCP4), "version and command of version 2 are 0x11"),
    (v2(0x22, 0x11, TCP4), "version and command of version 2 are 0x22"),
    (v2(0x31, 0x11, TCP4), "version and command of version 2 are 0x31"),
    (v2(0x21, 0x12, TCP4), "family of version 2 is 0x12"),
    (v2(0x21, 0x41, TCP4), "family of version 2 is 0x41"),
    (v2(0x21, 0x10, TCP4), "family of version 2 is 0x10"),
    (v2(0x21, 0x11, TCP4[:-1]), "too short for its family, 0x11"),
    (v2(0x21, 0x21, TCP4), "too short for its family, 0x21"),
    (v2(0x21, 0x31, UNIX[:-1]), "too short for its family, 0x31"),
    (v2(0x21, 0x11, TCP4, length=16 * 1024 - 15), "longer than 16384 bytes"),
    (v2(0x20, 0x00, b"", length=65535), "longer than 16384 bytes"),
]


class HeaderTests(SynchronousTestCase):
    def test_headers_that_are_good(self) -> None:
        for data, addresses, is_local in GOOD:
            for rest in (b"", b"GET / HTTP/1.1\r\n\r\n", data):
                self.assertEqual(parse_header(data + rest), Header(len(data), addresses, is_local), data)

    def test_a_part_of_a_header_is_none_yet(self) -> None:
        for data, _, _ in GOOD:
            for size in {*range(min(len(data), 240)), len(data) - 1}:
                self.assertIsNone(parse_header(data[:size]), data[:size])

    def test_headers_that_are_not(self) -> None:
        for data, why in BAD:
            error = self.assertRaises(ValueError, parse_header, data)
            self.assertIn(why, str(error), data)

    def test_what_a_header_is_refused_for_is_told_as_soon_as_it_has_come(self) -> None:
        for data, why in BAD:
            sizes = [size for size in range(len(data) + 1) if self.is_refused(data[:size])]
            self.assertEqual(sizes, list(range(sizes[0], len(data) + 1)), (data, why))

    def is_refused(self, data: bytes) -> bool:
        """Return whether it can become no header."""
        try:
            parse_header(data)
        except ValueError as error:
            self.assertTrue(str(error).isprintable())
            return True
        return False

    @given(st.binary(max_size=300), st.sampled_from([b"", b"PROXY ", b"PROXY TCP4 ", b"PROXY TCP6 ", SIGNATURE]))
    def test_any_bytes_are_a_header_none_yet_or_none_at_all(self, data: bytes, start: bytes) -> None:
        data = start + data
        if not self.is_refused(data):
            header = parse_header(data)
            self.assertTrue(header is not None or len(data) < 16 * 1024)
            if header is not None:
                self.assertLessEqual(header.size, len(data))


class Speaker(Protocol):
    """What speaks after the header, in tests."""

    def __init__(self) -> None:
        self.data = b""
        self.lost: Failure | None = None
        self.halves = 0
        self.addresses: tuple[IAddress, IAddress] | None = None

    def connectionMade(self) -> None:
        """Record the addresses of both ends of the connection."""
        assert self.transport is not None
        self.addresses = (self.transport.getPeer(), self.transport.getHost())

    def dataReceived(self, data: bytes) -> None:
        """Note it."""
        assert self.addresses is not None, "the connection has not begun"
        self.data += data

    def readConnectionLost(self) -> None:
        """Note it."""
        self.halves += 1

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Note it."""
        self.lost = reason


class Speakers(Factory[Protocol]):
    """Makes them."""

    def __init__(self) -> None:
        self.made: list[Speaker] = []
        self.built_for: list[IAddress | None] = []
        self.is_full = False

    def buildProtocol(self, addr: IAddress | None) -> Protocol | None:
        """Override: note for whom."""
        self.built_for.append(addr)
        if self.is_full:
            return None
        self.made.append(Speaker())
        return self.made[-1]


class Wire(StringTransport):
    """A transport that notes how it was closed."""

    is_aborted = ended = False

    def connectionLost(self, reason: Failure) -> None:
        """Note it."""
        self.ended = True

    def __init__(self) -> None:
        super().__init__(HERE, PROXY)
        directlyProvides(self, ITCPTransport)

    def abortConnection(self) -> None:
        """Override: note it."""
        self.is_aborted = True

    def setTcpNoDelay(self, enabled: object) -> None:
        """See `ITCPTransport`."""


class ReceptionCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.now = 0.0
        self.wheel = TimerWheel(lambda: self.now)
        self.connections = Connections()
        trust = TrustedProxies(Proxies(("10.0.0.0/8", "unix"), "x-forwarded-for"))
        self.settings = ProxyProtocolSettings(trust, self.connections, self.wheel, 10)
        self.speakers = Speakers()
        self.factory = self.settings(self.speakers)
        self.wire = Wire()

    def connect(self) -> Any:
        """Connect from the proxy."""
        protocol = self.factory.buildProtocol(PROXY)
        assert protocol is not None
        protocol.makeConnection(self.wire)
        return protocol

    def assert_waits_for_nothing(self) -> None:
        self.assertEqual((len(self.connections), len(self.wheel)), (0, 0))


class ConnectionTests(ReceptionCase):
    def test_what_comes_after_the_header_is_for_who_speaks_then_with_its_addresses(self) -> None:
        for data, addresses, is_local in GOOD:
            protocol = self.connect()
            protocol.dataReceived(data + b"abc")
            protocol.dataReceived(b"def")
            protocol = self.speakers.made[-1]
            self.assertEqual(protocol.data, b"abcdef")
            if addresses is None:
                addresses = (PROXY if is_local else UnknownAddress(PROXY), HERE)
            self.assertEqual(protocol.addresses, addresses)
            self.assertEqual(self.speakers.built_for[-1], addresses[0])
            protocol.connectionLost()
            self.assert_waits_for_nothing()

    def test_a_header_may_come_split_at_every_place(self) -> None:
        for data, _, _ in GOOD:
            whole = data + b"GET"
            for place in {*range(1, min(len(whole), 240)), len(whole) - 4, len(whole) - 3, len(whole) - 2}:
                protocol = self.connect()
                protocol.dataReceived(whole[:place])
                protocol.dataReceived(whole[place:])
                self.assertEqual(self.speakers.made[-1].data, b"GET", (data, place))

    @given(st.sampled_from([data for data, _, _ in GOOD if len(data) < 300]), st.data())
    def test_it_may_come_in_any_pieces(self, data: bytes, draw: st.DataObject) -> None:
        whole = data + b"GET / HTTP/1.1\r\n\r\n"
        places = sorted(draw.draw(st.lists(st.integers(0, len(whole)), max_size=12)))
        protocol = self.connect()
        for begin, end in zip([0, *places], [*places, len(whole)], strict=True):
            protocol.dataReceived(whole[begin:end])
        self.assertEqual(self.speakers.made[-1].data, whole[len(data) :])
        self.assertFalse(self.wire.is_aborted)

    def test_who_speaks_begins_when_the_header_is_there_and_not_before(self) -> None:
        protocol = self.connect()
        protocol.dataReceived(V1[:-1])
        self.assertEqual((self.speakers.made, len(self.connections)), ([], 1))
        protocol.dataReceived(V1[-1:])
        self.assertEqual((len(self.speakers.made), self.speakers.made[0].data), (1, b""))

    def test_who_speaks_learns_of_the_end(self) -> None:
        protocol = self.connect()
        protocol.dataReceived(V1)
        reason = Failure(ValueError("the end"))
        protocol.connectionLost(reason)
        self.assertIs(self.speakers.made[0].lost, reason)
        self.assert_waits_for_nothing()

    def test_who_speaks_learns_that_nothing_more_comes_if_it_can(self) -> None:
        for data, can_go_on in (V1[:5], False), (V1, False), (V1, True):
            protocol = self.connect()
            protocol.dataReceived(data)
            if can_go_on:
                directlyProvides(self.speakers.made[-1], IHalfCloseableProtocol)
            IHalfCloseableProtocol(protocol).readConnectionLost()
            self.assertEqual(self.speakers.made[-1].halves if can_go_on else 0, int(can_go_on))
            self.assertEqual(self.wire.ended, not can_go_on)
            self.wire.ended = False
            protocol.connectionLost()

    def test_an_end_before_the_header_is_one(self) -> None:
        protocol = self.connect()
        protocol.dataReceived(V1[:5])
        with capturedLogs() as logs:
            protocol.connectionLost()
        self.assertEqual((self.speakers.made, logs), ([], []))
        self.assert_waits_for_nothing()

    def test_it_is_closed_if_nobody_is_to_speak(self) -> None:
        self.speakers.is_full = True
        protocol = self.connect()
        protocol.dataReceived(V1 + b"GET")
        protocol.dataReceived(b" / HTTP/1.1")
        self.assertTrue(self.wire.is_aborted)
        self.assertEqual(self.speakers.built_for, [CLIENT])

    def test_when_the_daemon_stops_those_without_a_header_have_a_second_for_it(self) -> None:
        self.connect()
        self.connections.finish()
        self.assertFalse(self.wire.is_aborted)
        self.now += 2
        self.wheel.turn()
        self.assertTrue(self.wire.is_aborted)

    def test_when_the_daemon_stops_a_header_that_comes_in_that_time_is_taken(self) -> None:
        protocol = self.connect()
        self.connections.finish()
        protocol.dataReceived(V1 + b"GET")
        self.now += 5
        self.wheel.turn()
        self.assertFalse(self.wire.is_aborted)
        self.assertEqual(self.speakers.made[0].data, b"GET")

    def test_the_port_of_who_speaks_opens_and_closes_with_it(self) -> None:
        self.factory.doStart()
        self.assertEqual(self.speakers.numPorts, 1)
        self.factory.doStop()
        self.assertEqual(self.speakers.numPorts, 0)


class RefusalTests(ReceptionCase):
    def test_a_malformed_header_closes_the_connection_and_the_log_says_why_and_from_whom(self) -> None:
        for data, why in BAD:
            self.wire = Wire()
            protocol = self.connect()
            with capturedLogs() as logs:
                protocol.dataReceived(data)
                protocol.dataReceived(V1)
            self.assertTrue(self.wire.is_aborted)
            (line,) = map(formatEvent, logs)
            self.assertTrue(line.startswith("refused a connection from 10.0.0.1:40000: "), line)
            self.assertIn(why, line)
            protocol.connectionLost()
        self.assertEqual(self.speakers.made, [])
        self.assert_waits_for_nothing()

    def test_a_header_that_takes_too_long_closes_the_connection(self) -> None:
        protocol = self.connect()
        for second in range(5):
            self.now = float(second)
            protocol.dataReceived(V1[second : second + 1])
        self.now = 9.0
        self.wheel.turn()
        self.assertFalse(self.wire.is_aborted)
        self.now = 12.0
        with capturedLogs() as logs:
            self.wheel.turn()
        self.assertTrue(self.wire.is_aborted)
        (line,) = map(formatEvent, logs)
        why = "no PROXY protocol header within 10 s"
        self.assertEqual(line, f"refused a connection from 10.0.0.1:40000: {why}")

    def test_once_the_header_is_there_it_may_take_as_long_as_it_likes(self) -> None:
        self.connect().dataReceived(V1)
        self.now = 1000.0
        self.wheel.turn()
        self.assertFalse(self.wire.is_aborted)

    def test_who_is_not_trusted_gets_no_connection(self) -> None:
        for address in (IPv4Address("TCP", "203.0.113.9", 1), IPv6Address("TCP", "::1", 1), None):
            with capturedLogs() as logs:
                self.assertIsNone(self.factory.buildProtocol(address))
            (line,) = map(formatEvent, logs)
            name = "nowhere" if address is None else peer_name(address)
            self.assertEqual(
                line,
                f"refused a connection from {name}: only those in [proxies] trusted may speak the PROXY protocol",
            )

    def test_a_second_header_is_not_read(self) -> None:
        self.connect().dataReceived(V1 + V1_6)
        self.assertEqual(self.speakers.made[0].data, V1_6)


class WritingTests(SynchronousTestCase):
    """The fast path is there as if there were no header."""

    def setUp(self) -> None:
        forgive_deprecated_certificates(self)
        self.settings = ProxyProtocolSettings(
            TrustedProxies(Proxies(("10.0.0.1",), "none")), Connections(), TimerWheel(lambda: 0.0), timeout_s=10
        )

    def test_what_the_kernel_takes_is_sent_at_once(self) -> None:
        rig = SocketRig()
        rig.transport.getPeer = lambda: PROXY  # type: ignore[method-assign]
        rig.transport.getHost = lambda: HERE  # type: ignore[method-assign]
        factory = ProxyProtocolFactory(self.settings, Factory.forProtocol(Peer))
        protocol: Any = factory.buildProtocol(PROXY)
        protocol.makeConnection(rig.transport)
        protocol.dataReceived(V1)
        transport = protocol._protocol.transport
        self.assertEqual((transport.getPeer(), transport.getHost()), (CLIENT, ASKED))
        self.assertIs(type(writer(transport)), type(writer(rig.transport)))
        writer(transport).write(b"abc")
        writer(transport).send(b"def")
        self.assertEqual((rig.socket.sent, rig.reactor.writers), (b"abcdef", {}))
        self.assertEqual((writer(transport).is_idle, transport.connected), (True, 1))
        rig.socket.room = 0
        writer(transport).write(b"ghi")
        self.assertFalse(writer(transport).is_idle)
        transport.loseConnection()
        rig.drain()
        self.assertEqual(rig.socket.sent, b"abcdefghi")

    def test_over_tls_it_is_one_record_at_once_and_the_addresses_are_those_of_the_header(self) -> None:
        plain = TlsSocketRig()
        rig = TlsSocketRig.__new__(TlsSocketRig)
        SocketRig.__init__(rig)
        rig.transport.getPeer = lambda: PROXY  # type: ignore[method-assign]
        rig.transport.getHost = lambda: HERE  # type: ignore[method-assign]
        assert TlsSocketRig.credentials is not None
        inner = TLSFactory(TlsSocketRig.credentials, False, Factory.forProtocol(Peer), clock=rig.reactor)
        protocol: Any = ProxyProtocolFactory(self.settings, inner).buildProtocol(PROXY)
        protocol.makeConnection(rig.transport)
        protocol.dataReceived(V1)
        rig.tls = protocol._protocol
        rig.client, rig.read = SSL.Connection(SSL.Context(SSL.TLS_METHOD)), 0
        rig.client.set_connect_state()
        for _ in range(3):
            rig.exchange()
        self.assertEqual((rig.tls.getPeer(), rig.tls.getHost()), (CLIENT, ASKED))
        for interface in (ITCPTransport, INegotiated):
            self.assertEqual(interface.providedBy(rig.tls), interface.providedBy(plain.tls), interface)
        self.assertTrue(ITCPTransport.providedBy(rig.tls))
        sends = rig.socket.sends
        writer(rig.tls).send(b"abc")
        writer(rig.tls).write(b"def")
        self.assertEqual(rig.socket.sends, sends + 2)
        self.assertEqual(rig.received(), b"abcdef")
        self.assertIs(type(rig.tls._writer), type(plain.tls._writer))

    def test_everything_but_the_addresses_is_left_to_the_transport(self) -> None:
        wire = Wire()
        transport = ProxiedTransport(wire, CLIENT, ASKED)
        transport.write(b"abc")
        self.assertEqual(wire.value(), b"abc")
        transport.abortConnection()
        self.assertTrue(wire.is_aborted)
        self.assertTrue(ITCPTransport.providedBy(transport))
        self.assertIs(ITCPTransport(transport), transport)
        self.assertRaises(AttributeError, lambda: transport.no_such_thing)


REQUEST = b"GET /healthz HTTP/1.1\r\nHost: 198.51.100.1\r\n\r\n"


class DaemonTests(SynchronousTestCase):
    """That everything shows the client."""

    def setUp(self) -> None:
        self.rig = DaemonRig(
            "[log]\nrequests = yes\n[proxies]\ntrusted = 10.0.0.1\n[auth]\nanonymous = publish, subscribe\n"
        )
        site = self.rig.parts.site
        self.settings = ProxyProtocolSettings(
            TrustedProxies(Proxies(("10.0.0.1",), "x-forwarded-for")),
            site.connections,
            self.rig.parts.sessions.wheel,
            10,
        )
        self.wire = Wire()

    def talk(self, data: bytes, factory: Any = None) -> list[str]:
        """Send `data` after a header; return what is logged."""
        self.wire = Wire()
        protocol: Any = ProxyProtocolFactory(self.settings, factory or self.rig.parts.site).buildProtocol(PROXY)
        protocol.makeConnection(self.wire)
        with capturedLogs() as logs:
            protocol.dataReceived(V1 + data)
            self.rig.turn()
            protocol.connectionLost()
        return [formatEvent(event) for event in logs]

    def test_over_http_1_the_log_shows_it(self) -> None:
        lines = self.talk(REQUEST)
        self.assertIn(b"HTTP/1.1 200 OK", self.wire.value())
        self.assertIn("200 GET /healthz from 203.0.113.9:4711, ", lines[0])
        self.assertEqual(len(self.rig.parts.site.connections), 0)

    def test_a_refusal_shows_it(self) -> None:
        self.assertIn("refused a request from 203.0.113.9:4711: ", self.talk(b"nonsense\r\n\r\n")[0])

    def test_the_host_is_checked_by_the_address_that_the_client_connected_to(self) -> None:
        get = b"GET /channels HTTP/1.1\r\nHost: %b\r\n\r\n"
        self.talk(get % b"198.51.100.1")
        self.assertNotIn(b"is not a name of this server", self.wire.value())
        for name in (b"10.0.0.2", b"localhost", b"203.0.113.9"):
            self.talk(get % name)
            self.assertIn(b"is not a name of this server", self.wire.value())

    def test_a_websocket_shows_it(self) -> None:
        handshake = (
            b"GET /ws?channel=a HTTP/1.1\r\nHost: 198.51.100.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        )
        bad_frame = b"\xff\xff\xff\xff"
        lines = self.talk(handshake + bad_frame)
        self.assertIn(b"HTTP/1.1 101 ", self.wire.value())
        self.assertTrue(any("websocket of 203.0.113.9:4711 ended" in line for line in lines), lines)

    def test_over_http_2_the_log_shows_it(self) -> None:
        site = self.rig.parts.site
        speakers = Factory[Protocol]()
        speakers.buildProtocol = lambda addr: cast(Any, HTTP2(site._http2))  # type: ignore[method-assign]
        lines = self.talk(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(9), speakers)
        self.assertTrue(any("203.0.113.9:4711" in line for line in lines), lines)
        self.assertFalse(any("10.0.0.1" in line for line in lines), lines)
