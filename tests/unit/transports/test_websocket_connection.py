"""What the adapter relies on in Autobahn: the state after its handshake, and its private names."""

from __future__ import annotations

from typing import Any

import autobahn.twisted.websocket
import autobahn.websocket.protocol
from autobahn.twisted.websocket import WebSocketServerProtocol
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.error import ConnectionDone
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from pushd.bus.closing import CloseCause, CloseReason
from pushd.bus.turn import Turn
from pushd.server.incomplete_bodies import IncompleteBodies
from pushd.server.net.addresses import ClientAddress
from pushd.server.net.timers import TimerWheel
from pushd.server.net.turns import Turns
from pushd.server.net.writer import Writer
from pushd.transports.websocket.connection import WebSocketConnection, new_connection, new_factory
from tests.rigs.builders import PATIENCE
from tests.rigs.effort import examples
from tests.rigs.websocket_frames import HANDSHAKE, frame

MAX_BYTES = 100_000

LEFT_OUT = {
    # pushd has its own
    "transport",
    "is_closed",
    "utf8validator",
    # for the handshake
    "is_open",
    "_transport_details",
    "versions",
    "perMessageCompressionAccept",
    "allowedOrigins",
    "allowedOriginsPatterns",
    "http_headers",
    "http_request_params",
    "websocket_protocols",
    "websocket_extensions",
    "websocket_extensions_in_use",
    # for listeners to signals, which pushd has none of
    "_valid_events",
    "_results",
    # for data that is sent byte by byte, which pushd's is not
    "send_queue",
}
"""What Autobahn has in each connection that may change, and pushd has not."""

SEGMENTS = {
    "text": [frame("ü".encode())],
    "text in pieces": [frame(b"a\xc3", fin=False), frame(b"\xbc", 0, fin=False), frame(b"b", 0)],
    "bytes": [frame(b"\0\xff" * 40_000, 2, mask=b"abcd")],
    "byte by byte": [bytes([byte]) for byte in frame(b"hello", mask=b"abcd")],
    "a ping within a message": [frame(b"a", fin=False), frame(b"now", 9), frame(b"b", 0)],
    "several at once": [frame(b"one", mask=b"abcd") + frame(b"", 1) + frame(b"\xff", 2) + frame(b"x" * 200)],
    "several and a part of another": [frame(b"one") + frame(b"two")[:5], frame(b"two")[5:] + frame(b"three")],
    "one after the beginning of another": [frame(b"one")[:1], frame(b"one")[1:] + frame(b"two")],
    "one before a ping and one after it": [frame(b"one") + frame(b"now", 9) + frame(b"two")],
    "one within a message": [frame(b"a", fin=False) + frame(b"now", 9) + frame(b"b", 0) + frame(b"c")],
    "one before what is not UTF-8": [frame(b"one") + frame(b"\xff") + frame(b"three")],
    "one before a close frame": [frame(b"one") + frame(b"\x03\xe8bye", 8) + frame(b"three")],
    "one before what is not masked": [frame(b"one") + b"\x81\x01a" + frame(b"three")],
    "one before a length written too long": [frame(b"one") + b"\x81\xfe\x00\x01\0\0\0\0a"],
    "125, 126 and 127 bytes": [frame(b"x" * 125) + frame(b"x" * 126, mask=b"wxyz") + frame(b"x" * 127)],
    "65,535 and 65,536 bytes": [frame(b"x" * 65_535, mask=b"wxyz") + frame(b"x" * 65_536, mask=b"wxyz")],
    "as much as is taken, and more": [frame(b"x" * MAX_BYTES, 2) + frame(b"x" * (MAX_BYTES + 1), 2)],
    "reserved bits": [frame(b"one") + b"\xc1\x80\0\0\0\0"],
    "a pong": [frame(b"x", 10)],
    "a close frame": [frame(b"\x03\xe8bye", 8)],
    "a close frame and more": [frame(b"", 8) + frame(b"x")],
    "not UTF-8": [frame(b"\xff"), frame(b"x")],
    "cut within a character": [frame(b"\xc3")],
    "not masked": [b"\x81\x01a"],
    "a reserved opcode": [frame(b"x", 3)],
    "a message within a message": [frame(b"a", fin=False) + frame(b"a")],
    "a length written too long": [b"\x81\xfe\x00\x01\0\0\0\0a"],
    "a fragmented ping": [frame(b"x", 9, fin=False)],
    "too much": [frame(b"x" * (MAX_BYTES + 1), 2)],
    "too much in pieces": [frame(b"x" * MAX_BYTES, 2, fin=False), frame(b"x", 0)],
    "a wrong close frame": [frame(b"\x03", 8)],
    "a wrong close code": [frame((1005).to_bytes(2, "big"), 8)],
}


FRAMES = st.one_of(
    st.builds(
        frame,
        st.one_of(st.binary(max_size=300), st.text(max_size=100).map(str.encode)),
        st.sampled_from([1, 1, 1, 2, 2, 9, 10, 0]),
        fin=st.sampled_from([True, True, True, False]),
        mask=st.binary(min_size=4, max_size=4),
    ),
    st.builds(frame, st.binary(max_size=130), st.integers(0, 15)),
    st.binary(max_size=12),
)


class Listener:
    """A `WebSocketListener` that writes down what it is told."""

    takes_more = True
    owner = None

    is_answering = False

    writer: Writer

    def __init__(self) -> None:
        self.told: list[object] = []
        self.sent: list[bytes] = []

    def opened(self) -> None:
        self.told.append("opened")

    def received(self, payload: bytes, is_binary: bool) -> None:
        self.told.append((payload, is_binary))

    def send(self, frame: bytes) -> None:
        self.sent.append(frame)
        self.writer.write(frame)

    def wrote(self, size: int) -> None:
        """It was sent past `send`."""

    def closing(self, reason: CloseReason | None) -> None:
        self.told.append("closing")

    def lost(self) -> None:
        self.told.append("lost")


class Transport(StringTransport):
    """A transport that does what those of Twisted do."""

    def unregisterProducer(self) -> None:
        """Override: there is none."""

    def abortConnection(self) -> None:
        """Override: as for the client."""
        self.loseConnection()


class AutobahnTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.factory = new_factory(
            PATIENCE,
            TimerWheel(lambda: 0.0),
            IncompleteBodies(2**20, 100),
            Turns(lambda delay_s, call: None, Turn(lambda: 0.0)),
        )

    def open(self) -> tuple[WebSocketConnection, Listener, StringTransport]:
        """Open a connection of pushd's."""
        connection = new_connection(self.factory, MAX_BYTES, ClientAddress("192.0.2.1", "somebody"))
        listener, transport = Listener(), Transport()
        connection.listener = listener
        connection.makeConnection(transport)
        listener.writer = connection.writer
        return connection, listener, transport

    def shake_hands(self) -> tuple[Any, list[object], StringTransport]:
        """Open a connection of Autobahn's own, with the same options."""
        received: list[object] = []

        class Plain(WebSocketServerProtocol):
            maxFramePayloadSize = maxMessagePayloadSize = MAX_BYTES

            def onMessage(self, payload: bytes, isBinary: bool) -> None:
                if self.state == self.STATE_OPEN:
                    received.append((payload, isBinary))

        connection = Plain()
        connection.factory = self.factory
        transport = Transport()
        connection.makeConnection(transport)
        fields = "".join(f"{name}: {it}\r\n" for name, it in HANDSHAKE.items())
        head = f"GET / HTTP/1.1\r\nHost: localhost\r\n{fields}"
        connection.dataReceived(head.encode() + b"\r\n")
        assert transport.value().startswith(b"HTTP/1.1 101 ")
        transport.clear()
        return connection, received, transport

    def test_it_says_the_same_as_after_a_handshake_of_autobahn(self) -> None:
        for name, segments in SEGMENTS.items():
            with self.subTest(name):
                ours, listener, transport = self.open()
                theirs, received, their_transport = self.shake_hands()
                for segment in segments:
                    ours.dataReceived(segment)
                    theirs.dataReceived(segment)
                self.assertEqual(transport.value(), their_transport.value())
                self.assertEqual(transport.disconnecting, their_transport.disconnecting)
                self.assertEqual(ours.state, theirs.state)
                self.assertEqual([it for it in listener.told if isinstance(it, tuple)], received)

    @examples(300)
    @given(st.lists(FRAMES, max_size=8), st.lists(st.integers(1, 400), max_size=8))
    def test_however_it_comes_it_is_taken_as_by_autobahn(self, frames: list[bytes], cuts: list[int]) -> None:
        data = b"".join(frames)
        ours, listener, transport = self.open()
        theirs, received, their_transport = self.shake_hands()
        for size in (*cuts, len(data)):
            segment, data = data[:size], data[size:]
            if segment:
                ours.dataReceived(segment)
                theirs.dataReceived(segment)
        self.assertEqual(transport.value(), their_transport.value())
        self.assertEqual(ours.state, theirs.state)
        self.assertEqual([it for it in listener.told if isinstance(it, tuple)], received)

    def test_a_listener_that_closes_hears_no_more_of_what_came_with_it(self) -> None:
        connection, listener, _ = self.open()

        def received(payload: bytes, is_binary: bool) -> None:
            listener.told.append(payload)
            connection.close(CloseReason(CloseCause.REFUSED, "no"))

        self.patch(listener, "received", received)
        connection.dataReceived(frame(b"one") + frame(b"two"))
        self.assertEqual(listener.told, ["opened", b"one", "closing"])

    def test_it_begins_with_all_that_autobahn_has_set(self) -> None:
        theirs, _, _ = self.shake_hands()
        ours, _, _ = self.open()
        of_its_request = {"peer", *(name for name in vars(theirs) if name.startswith("http_"))}
        for name in vars(theirs).keys() - LEFT_OUT - of_its_request - {"trafficStats"}:
            with self.subTest(name):
                self.assertEqual(getattr(ours, name), getattr(theirs, name))

    def test_what_is_left_out_is_what_is_known_to_be_needed_no_more(self) -> None:
        theirs, _, _ = self.shake_hands()
        self.assertEqual(vars(theirs).keys() - vars(self.factory.protocol).keys() - {"peer", "connected"}, LEFT_OUT)

    def test_nothing_that_changes_is_shared_but_what_is_known(self) -> None:
        state = vars(self.factory.protocol)
        plain = (bool, int, str, bytes, type(None))
        changing = {name for name, value in state.items() if not isinstance(value, plain)}
        self.assertEqual(
            changing - {"__doc__", "__module__"},
            {"factory", "trafficStats", "_timeouts", "_wheel", "_bodies", "_turns"},
        )

    def test_connections_do_not_mix(self) -> None:
        (first, heard_first, _), (second, heard_second, _) = self.open(), self.open()
        first.dataReceived(frame(b"one \xc3", fin=False) + b"\x80")
        second.dataReceived(frame(b"two \xe2\x82", fin=False))
        first.dataReceived(frame(b"\xbc", 0)[1:])
        second.dataReceived(frame(b"\xac", 0))
        self.assertEqual(heard_first.told, ["opened", ("one ü".encode(), False)])
        self.assertEqual(heard_second.told, ["opened", ("two €".encode(), False)])
        first.close(CloseReason(CloseCause.REFUSED, "no"))
        self.assertEqual(second.state, second.STATE_OPEN)

    def test_it_says_how_much_it_keeps_of_what_is_not_complete(self) -> None:
        connection, _, _ = self.open()
        for data, held in (
            (b"\x02", 1),
            (frame(b"x" * 500, 2, fin=False)[1:], 500),
            (frame(b"x" * 300, 0)[:9], 800),
            (b"x" * 299, 0),
            (frame(b"ping", 9)[:7], 0),
            (frame(b"ping", 9)[7:], 0),
            (frame(b"x" * 5000, 2)[:100], 5000),
            (frame(b"\xff", 1), 5000),
        ):
            connection.dataReceived(data)
            self.assertEqual(connection.held_bytes, held, data[:20])
        connection, _, _ = self.open()
        connection.dataReceived(b"\x82\xff" + (2**40).to_bytes(8, "big") + b"\0\0\0\0")
        self.assertEqual(connection.held_bytes, 0, "it is too large, and not kept")

    def test_an_idle_connection_has_next_to_nothing_of_its_own(self) -> None:
        connection, _, _ = self.open()
        own = {"place", "connected", "listener", "transport", "writer"}
        own |= {"maxFramePayloadSize", "maxMessagePayloadSize"}
        self.assertEqual(vars(connection).keys(), own)

    def test_nothing_is_formatted_for_autobahn_s_log(self) -> None:
        def formats(*arguments: object, **keywords: object) -> str:
            raise AssertionError("formatted for nobody")

        for module in (autobahn.twisted.websocket, autobahn.websocket.protocol):
            for name in ("hltype", "hlval", "pformat"):
                if hasattr(module, name):
                    self.patch(module, name, formats)
        connection, listener, transport = self.open()
        connection.dataReceived(frame(b"a") + frame(b"b", 9) + frame(b"c", 10))
        connection.ping()
        connection.close(CloseReason(CloseCause.STOPPING, "bye"))
        connection.dataReceived(frame(b"\x03\xe9", 8))
        self.assertTrue(transport.disconnecting)
        connection.connectionLost(Failure(ConnectionDone()))
        self.assertEqual(listener.told, ["opened", (b"a", False), "closing", "lost"])

    def test_pings_and_pongs_take_the_way_of_all_frames_and_the_close_frame_goes_at_once(self) -> None:
        connection, listener, transport = self.open()
        connection.ping()
        connection.dataReceived(frame(b"b", 9))
        self.assertEqual(listener.sent, [b"\x89\0", b"\x8a\x01b"])
        connection.close(CloseReason(CloseCause.STOPPING, "bye"))
        connection.dataReceived(frame(b"c", 9))
        self.assertEqual(len(listener.sent), 2, "there is nothing after it")
        self.assertEqual(transport.value(), b"\x89\0\x8a\x01b\x88\x05\x03\xe9bye")

    def test_a_listener_that_fails_ends_its_connection_only(self) -> None:
        connection, listener, transport = self.open()
        self.patch(listener, "received", None)
        connection.dataReceived(frame(b"a"))
        self.assertTrue(transport.disconnecting)
        self.assertEqual(len(self.flushLoggedErrors(TypeError)), 1)
