"""The site over HTTP/2: how a connection comes to it, and what many streams on one connection change."""

from __future__ import annotations

from pathlib import Path
from tempfile import mkdtemp

from hyperframe.frame import DataFrame, SettingsFrame
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import INegotiated, ISSLTransport
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import directlyProvides

from pushd.bus.closing import CloseCause, CloseReason
from pushd.config.loader import default
from pushd.daemon.assembly import assemble
from pushd.server.http2.errors import Code
from pushd.server.net.connection_limits import ConnectionLimiter
from pushd.server.net.timers import TimerWheel
from pushd.server.web.site import PushdSite, Serving
from pushd.server.web.static import StaticFiles
from tests.rigs.builders import PATIENCE
from tests.rigs.http2_peer import HTTP2TestCase, Peer


class TLSTransport(StringTransport):
    """A transport whose handshake ends when the test says so."""

    negotiatedProtocol: bytes | None = None
    is_aborted = False

    def __init__(self) -> None:
        super().__init__()
        directlyProvides(self, ISSLTransport, INegotiated)

    def getPeerCertificate(self) -> None:
        """See `ISSLTransport`: there is none."""

    def setTcpNoDelay(self, enabled: bool) -> None:
        pass

    def abortConnection(self) -> None:
        self.is_aborted = True
        super().abortConnection()


class SwitchTests(HTTP2TestCase):
    def connect(self, transport: StringTransport) -> object:
        protocol = self.site.buildProtocol(None)
        protocol.makeConnection(transport)
        return protocol

    def setUp(self) -> None:
        super().setUp()
        self.peer.lose()

    def test_the_site_offers_both_versions(self) -> None:
        self.assertEqual(self.site.acceptableProtocols(), [b"h2", b"http/1.1"])

    def assert_speaks(self, transport: StringTransport, first: bytes, answer: bytes) -> None:
        self.clock.advance(0)
        self.assertTrue(transport.value().startswith(answer), transport.value())

    def test_h2_is_spoken_if_that_was_agreed_on(self) -> None:
        transport = TLSTransport()
        switch = self.connect(transport)
        self.assertEqual(transport.value(), b"")
        transport.negotiatedProtocol = b"h2"
        switch.handshakeCompleted()  # type: ignore[attr-defined]
        self.assertEqual(transport.value()[3:5], b"\4\0")
        self.assertEqual(len(self.site.connections), 1)

    def test_http_1_1_is_spoken_over_tls_else(self) -> None:
        for agreed in b"http/1.1", None:
            transport = TLSTransport()
            switch = self.connect(transport)
            transport.negotiatedProtocol = agreed
            switch.handshakeCompleted()  # type: ignore[attr-defined]
            switch.dataReceived(b"GET /echo HTTP/1.1\r\nHost: x\r\n\r\n")  # type: ignore[attr-defined]
            self.assertTrue(transport.value().startswith(b"HTTP/1.1 200 OK\r\n"))
            switch.connectionLost(None)  # type: ignore[attr-defined]

    def test_http_1_1_is_spoken_without_tls(self) -> None:
        transport = StringTransport()
        switch = self.connect(transport)
        self.assertEqual(len(self.site.connections), 1)
        switch.dataReceived(b"GET /echo HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")  # type: ignore[attr-defined]
        self.assertTrue(transport.value().startswith(b"HTTP/1.1 200 OK\r\n"))

    def test_a_handshake_that_does_not_end(self) -> None:
        transport = TLSTransport()
        self.connect(transport)
        self.assertEqual(len(self.site.connections), 1)
        for _ in range(62):
            self.clock.advance(1)
            self.wheel.turn()
        self.assertTrue(transport.disconnected)

    def test_a_connection_that_is_lost_in_its_handshake(self) -> None:
        switch = self.connect(TLSTransport())
        switch.connectionLost(Failure(ConnectionDone()))  # type: ignore[attr-defined]
        self.assertEqual((len(self.site.connections), len(self.wheel)), (0, 0))

    def test_when_the_daemon_stops_a_handshake_has_a_second(self) -> None:
        transport = TLSTransport()
        self.connect(transport)
        self.site.connections.finish()
        self.assertFalse(transport.is_aborted)
        self.pass_time(2)
        self.assertTrue(transport.is_aborted)

    def test_when_the_daemon_stops_who_has_shaken_hands_in_that_time_gets_one_answer(self) -> None:
        transport = TLSTransport()
        switch = self.connect(transport)
        self.site.connections.finish()
        switch.handshakeCompleted()  # type: ignore[attr-defined]
        switch.dataReceived(b"GET /echo HTTP/1.1\r\nHost: x\r\n\r\n")  # type: ignore[attr-defined]
        self.assertTrue(transport.value().startswith(b"HTTP/1.1 200 OK\r\n"))
        self.assertIn(b"\r\nConnection: close\r\n", transport.value())
        self.assertTrue(transport.disconnecting)

    def test_when_the_daemon_stops_who_has_shaken_hands_for_h2_is_told_the_end(self) -> None:
        transport = TLSTransport()
        switch = self.connect(transport)
        self.site.connections.finish()
        transport.negotiatedProtocol = b"h2"
        switch.handshakeCompleted()  # type: ignore[attr-defined]
        self.clock.advance(0)
        self.assertIn(b"\0\0\x08\7\0\0\0\0\0\x7f\xff\xff\xff\0\0\0\0", transport.value())  # GOAWAY, not the last

    def test_when_the_daemon_stops_who_comes_behind_a_proxy_only_now_gets_one_answer(self) -> None:
        self.site.connections.finish()
        transport = StringTransport()
        switch = self.connect(transport)
        switch.dataReceived(b"GET /echo HTTP/1.1\r\nHost: x\r\n\r\n")  # type: ignore[attr-defined]
        self.assertIn(b"\r\nConnection: close\r\n", transport.value())
        slow = TLSTransport()
        self.connect(slow)
        self.pass_time(2)
        self.assertTrue(slow.is_aborted)

    def pass_time(self, seconds: int) -> None:
        """Let time pass."""
        for _ in range(seconds):
            self.clock.advance(1)
            self.wheel.turn()


class EndpointTests(SynchronousTestCase):
    """The daemon's own site, with a bus."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.parts = assemble(
            default(),
            self.clock,
            seconds=self.clock.seconds,
            now=self.clock.seconds,
        )
        self.wheel = self.parts.sessions.wheel
        self.peer = self.connect()

    def connect(self, settings: dict[int, int] | None = None) -> Peer:
        peer = Peer(self.parts.site, self.wheel, self.clock).begin(settings)
        self.addCleanup(peer.lose)
        return peer

    def publish(self, stream_id: int, channel: str, data: bytes) -> None:
        peer = self.peer
        peer.send(
            peer.headers(stream_id, f"/channels/{channel}", method="POST", end=False),
            *(DataFrame(stream_id, data[at : at + 16384]) for at in range(0, len(data), 16384)),
            DataFrame(stream_id, b"", flags=["END_STREAM"]),
        )
        self.assertEqual(peer.status(stream_id), 201)

    def test_events_reach_every_stream_of_a_connection(self) -> None:
        for stream_id in range(1, 199, 2):
            self.peer.get(stream_id, "/sse?channel=news")
        self.publish(201, "news", b"hello")
        for stream_id in range(1, 199, 2):
            self.assertIn(b"data: hello\n\n", self.peer.body(stream_id))
            self.assertFalse(self.peer.is_ended(stream_id))

    def test_the_authority_is_what_the_gate_looks_at(self) -> None:
        fields = [
            (":method", "GET"),
            (":scheme", "https"),
            (":authority", "evil.example"),
            (":path", "/sse?channel=a"),
        ]
        self.peer.send(self.peer.block(1, fields))
        self.assertEqual(self.peer.status(1), 403)
        self.peer.send(self.peer.block(3, [fields[0], fields[1], fields[3]]))
        self.assertEqual(self.peer.status(3), 400)

    def test_websocket_is_for_http_1_1(self) -> None:
        self.peer.get(1, "/ws")
        self.assertEqual(self.peer.status(1), 426)
        self.assertNotIn("upgrade", self.peer.fields(1))

    def test_a_subscriber_that_is_too_slow_is_told_and_the_others_go_on(self) -> None:
        slow = self.connect({SettingsFrame.INITIAL_WINDOW_SIZE: 200})
        slow.get(1, "/sse?channel=news")
        self.peer.get(1, "/sse?channel=news")
        for n in range(30):
            self.publish(2 * n + 3, "news", b"x" * 60_000)
            self.peer.open_window(0, 60_000)
            self.peer.open_window(1, 60_100)
            slow.turn()
        self.assertEqual(self.peer.body(1).count(b"data: x"), 30)
        self.assertEqual(self.parts.bus.subscribers, 1)
        slow.open_window(0, 10**7)
        slow.open_window(1, 10**7)
        self.assertIn(b"event: pushd.closed", slow.body(1))
        self.assertTrue(slow.is_ended(1))
        self.assertLess(len(slow.body(1)), 200_000)

    def test_a_slow_subscriber_that_takes_all_in_the_end_gets_all(self) -> None:
        slow = self.connect({SettingsFrame.INITIAL_WINDOW_SIZE: 200})
        slow.get(1, "/sse?channel=news")
        for n in range(10):
            self.publish(2 * n + 3, "news", b"%d" % n * 50_000)
        slow.open_window(0, 10**7)
        slow.open_window(1, 10**7)
        body = slow.body(1)
        self.assertEqual([body.count(b"data: " + b"%d" % n * 50_000) for n in range(10)], [1] * 10)

    def test_a_client_that_goes_is_no_subscriber(self) -> None:
        self.peer.get(1, "/sse?channel=news")
        self.peer.get(3, "/sse?channel=news")
        self.assertEqual(self.parts.bus.subscribers, 2)
        self.peer.reset(1)
        self.assertEqual(self.parts.bus.subscribers, 1)
        self.peer.lose()
        self.assertEqual(self.parts.bus.subscribers, 0)

    def test_stopping_tells_subscribers_and_ends_the_connection(self) -> None:
        self.peer.get(1, "/sse?channel=news")
        self.parts.sessions.close(lambda: CloseReason(CloseCause.STOPPING, "the server is going away"))
        for connection in self.parts.site.connections:
            connection.finish()
        ended = self.parts.site.connections.ended()
        self.assertIn(b"the server is going away", self.peer.body(1))
        self.assertTrue(self.peer.is_ended(1))
        self.peer.pass_time(4)
        self.assertEqual([g.error_code for g in self.peer.goaways()][-1], Code.NO_ERROR)
        self.assertTrue(self.peer.is_closed)
        self.peer.lose()
        self.assertTrue(ended.called)


class FileTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.wheel = TimerWheel(self.clock.seconds)
        folder = Path(mkdtemp())
        self.content = bytes(range(256)) * 4000
        (folder / "file.bin").write_bytes(self.content)
        self.addCleanup(folder.rmdir)
        self.addCleanup((folder / "file.bin").unlink)
        site = PushdSite(
            StaticFiles(str(folder)),
            self.clock,
            wheel=self.wheel,
            limiter=ConnectionLimiter(0, 0, self.wheel),
            serving=Serving(1000, PATIENCE),
        )
        self.peer = Peer(site, self.wheel, self.clock).begin()
        self.addCleanup(self.peer.lose)

    def test_a_file_comes_as_the_windows_allow(self) -> None:
        self.peer.get(1, "/file.bin")
        self.assertEqual(self.peer.status(1), 200)
        self.assertEqual(len(self.peer.body(1)), 65535)
        while not self.peer.is_ended(1):
            self.peer.open_window(0, 50_000)
            self.peer.open_window(1, 50_000)
        self.assertEqual(self.peer.body(1), self.content)

    def test_a_client_that_goes_lets_the_file_be_closed(self) -> None:
        self.peer.get(1, "/file.bin")
        self.peer.turn()
        self.peer.reset(1)
        self.assertEqual(self.peer.connection.streams, {})
