"""WebSocket over HTTP/2: what is different from HTTP/1.1, and that one stream is not the connection."""

from __future__ import annotations

from collections.abc import Iterable
from copy import deepcopy

from h2.errors import ErrorCodes
from h2.settings import SettingCodes
from hyperframe.frame import DataFrame, GoAwayFrame, HeadersFrame
from hypothesis import given
from hypothesis import strategies as st

from pushd.bus.memory_headroom import memory
from tests.component.transports import test_websocket as over_http1
from tests.rigs.daemon import DaemonTests
from tests.rigs.effort import examples
from tests.rigs.http_client import Response
from tests.rigs.tunnel_client import StreamConnection, TunnelClient, WebSocketOverHttp2
from tests.rigs.websocket_client import WebSocketTalk
from tests.rigs.websocket_frames import ACCEPT, HANDSHAKE, KEY, frame

VERSION = ("sec-websocket-version", "13")
CONNECT = [(":method", "CONNECT"), (":protocol", "websocket"), (":scheme", "https"), (":authority", "localhost")]
GOING_AWAY = b"\x88\x1a\x03\xe9the server is going away"


class _OverHttp2(over_http1.WebSocketTests):
    def connect(self, target: str, *, then: bytes = b"", origin: str | None = None) -> WebSocketTalk:
        """Override: on a stream."""
        return WebSocketOverHttp2(self.rig, target, then=then, origin=origin)


class CommandsOverHttp2Tests(_OverHttp2, over_http1.CommandTests):
    """The same messages."""


class RawOverHttp2Tests(_OverHttp2, over_http1.RawTests):
    """The same data."""


class FramesOverHttp2Tests(_OverHttp2, over_http1.FrameTests):
    """The same frames."""


class PingsOverHttp2Tests(_OverHttp2, over_http1.PingTests):
    """The same pings."""


class TunnelTests(DaemonTests):
    """One connection with some streams."""

    config = "[limits]\nevent_size = 64KiB\nheartbeat = 20s\nping_timeout = 10s\n"

    def start(self, config: str = "") -> None:
        """Override: connect to the daemon, too."""
        super().start(config)
        self.client = TunnelClient(self.rig)
        self.before = self.rig.traces

    def ask(self, target: str, *fields: tuple[str, str]) -> StreamConnection:
        """Send CONNECT, and nothing on the stream."""
        connection = StreamConnection(self.client, target, fields or [VERSION])
        self.rig.turn()
        return connection

    def open(self, target: str = "/ws?channel=news") -> WebSocketOverHttp2:
        """Open a WebSocket."""
        socket = WebSocketOverHttp2(self.rig, target, client=self.client)
        self.rig.turn()
        self.assertTrue(socket.is_open)
        return socket

    def answer(self, target: str, *fields: tuple[str, str]) -> Response:
        """Return what CONNECT is answered."""
        response = self.ask(target, *fields).response
        assert response is not None
        return response

    def send_block(self, fields: Iterable[tuple[str, str]], *, flags: Iterable[str] = ("END_HEADERS",)) -> int:
        """Send a header section that h2 would not; answer its stream."""
        h2 = self.client.h2
        stream_id, encoder = h2.get_next_available_stream_id(), deepcopy(h2.encoder)
        h2.send_headers(stream_id, [*CONNECT, (":path", "/healthz")])  # which takes the number
        h2.clear_outbound_data_buffer()
        h2.encoder = encoder
        block = h2.encoder.encode(list(fields))
        self.client.connection.send(HeadersFrame(stream_id, data=block, flags=list(flags)).serialize())
        self.rig.turn()
        return stream_id

    def assert_others_live(self) -> None:
        """The connection goes on: it takes another WebSocket."""
        self.assertTrue(self.client.connection.is_open)
        other = self.open("/ws?channel=of-another-one")
        self.rig.publish("of-another-one", b"alive?")
        self.rig.turn()
        self.assertEqual(other.json[-1]["data"], "alive?")
        other.connection.reset()

    def assert_over(self, socket: WebSocketOverHttp2) -> None:
        """The stream is over and has left nothing, and the others go on."""
        self.rig.turn()
        self.assertFalse(socket.connection.is_open)
        self.assertEqual(self.rig.traces.subscribers, self.before.subscribers)
        self.assertEqual(self.rig.traces.sessions, self.before.sessions)
        self.assertEqual(self.rig.traces.alarms, self.before.alarms)
        self.assertEqual(self.client.connection.protocol.streams, {})
        self.rig.wait(1)
        self.assertEqual(self.rig.delayed, [])
        self.assert_others_live()


class OfferTests(TunnelTests):
    """The setting (RFC 8441, section 3)."""

    def test_it_is_in_the_first_settings(self) -> None:
        self.assertTrue(self.client.offers_websocket)
        self.assertIn(b"\0\x08\0\0\0\1", self.client.connection.received[: 9 + 6 * 8])

    def test_it_is_off_unless_the_operator_says_so(self) -> None:
        self.start("[http2]\n")
        self.assertFalse(self.client.offers_websocket)
        self.assertNotIn(SettingCodes.ENABLE_CONNECT_PROTOCOL.to_bytes(2, "big"), self._setting_names())

    def _setting_names(self) -> list[bytes]:
        data = self.client.connection.received
        payload = data[9 : 9 + int.from_bytes(data[:3], "big")]
        return [payload[at : at + 2] for at in range(0, len(payload), 6)]

    def test_without_it_a_protocol_is_malformed(self) -> None:
        self.start("[http2]\nwebsocket = no\n")
        connection = self.ask("/ws")
        self.assertIsNone(connection.response)
        self.assertTrue(connection.was_aborted)
        self.assertTrue(self.client.connection.is_open)
        self.assertIn(b"\0\0\4\3\0\0\0\0\1\0\0\0\1", self.client.connection.received)


class HandshakeTests(TunnelTests):
    """The handshake (RFC 8441, section 5)."""

    def test_it_is_answered_200_without_an_end(self) -> None:
        connection = self.ask("/ws")
        response = connection.response
        assert response is not None
        self.assertEqual(response.status, 200)
        self.assertFalse(response.is_complete)
        self.assertEqual(response.headers, [("server", "pushd")])

    def test_a_key_that_came_is_answered(self) -> None:
        response = self.answer("/ws", VERSION, ("sec-websocket-key", KEY))
        self.assertEqual(response.header(ACCEPT), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=")

    def test_a_key_that_is_none_does_not_matter(self) -> None:
        self.assertEqual(self.answer("/ws", VERSION, ("sec-websocket-key", "?")).status, 200)

    def test_no_subprotocol_and_no_extension_is_chosen(self) -> None:
        offers = [("sec-websocket-protocol", "a, b"), ("sec-websocket-extensions", "permessage-deflate")]
        self.assertEqual(self.answer("/ws", VERSION, *offers).headers, [("server", "pushd")])

    def test_what_came_with_the_handshake_is_taken(self) -> None:
        message = frame(b'{"type":"subscribe","channel":"news"}')
        socket = WebSocketOverHttp2(self.rig, "/ws", client=self.client, then=message)
        self.rig.turn()
        self.assertEqual(socket.json[0]["type"], "subscribed")

    def test_from_an_allowed_page_it_is_taken_and_from_a_foreign_one_refused(self) -> None:
        self.assertEqual(self.answer("/ws", VERSION, ("origin", "https://localhost")).status, 200)
        self.assert_problem(
            self.answer("/ws", VERSION, ("origin", "https://evil.example")), 403, field="Origin", says="evil"
        )

    def test_what_is_wrong_is_refused_as_over_http_1_1(self) -> None:
        for target, fields, status, field in (
            ("/ws", [("x", "y")], 400, "Sec-WebSocket-Version"),
            ("/ws", [("sec-websocket-version", "8")], 400, "Sec-WebSocket-Version"),
            ("/ws", [VERSION, VERSION], 400, "Sec-WebSocket-Version"),
            ("/ws", [VERSION, ("sec-websocket-protocol", "a, a")], 400, "Sec-WebSocket-Protocol"),
            ("/ws?channel=a#part", [VERSION], 400, None),
            ("/ws?chanel=news", [VERSION], 400, "chanel"),
            ("/ws?format=xml", [VERSION], 400, "format"),
            ("/ws?format=raw", [VERSION], 400, "channel"),
            ("/ws?channel=a&since=", [VERSION], 400, "since"),
            ("/ws?channel=a%00b", [VERSION], 400, "channel"),
            ("/ws/x", [VERSION], 404, None),
            ("/nothing", [VERSION], 404, None),
            ("/", [VERSION], 405, None),
            ("/sse?channel=a", [VERSION], 405, None),
            ("/healthz", [VERSION], 405, None),
            ("/channels/a", [VERSION], 405, None),
        ):
            with self.subTest(target, fields=fields):
                self.start("")
                connection = self.ask(target, *fields)
                assert connection.response is not None
                self.assert_problem(connection.response, status, field=field)
                self.assertEqual(connection.response.header("allow") is None, status != 405)
                connection.send(b"too late")
                self.rig.wait(1)
                self.assertEqual(self.rig.traces, self.before)
                self.assert_others_live()

    def test_a_wrong_version_is_told_which_one_is_spoken(self) -> None:
        response = self.answer("/ws", ("sec-websocket-version", "8"))
        self.assertEqual(response.header("sec-websocket-version"), "13")

    def test_the_limits_of_the_daemon_hold(self) -> None:
        self.start("[limits]\nchannels = 1\n[auth]\nanonymous = subscribe\n")
        self.open("/ws?channel=a")
        self.assert_problem(self.answer("/ws?channel=b"), 503)
        self.start("[auth]\nanonymous = publish\n")
        self.assert_problem(self.answer("/ws?channel=b"), 403)

    def test_another_host_is_refused(self) -> None:
        fields = [*CONNECT[:3], (":authority", "evil.example"), (":path", "/ws"), VERSION]
        self.send_block(fields)
        self.assertIn(b"Host 'evil.example' is not a name of this server", self.client.connection.received)

    def test_another_protocol_is_not_implemented(self) -> None:
        fields = [CONNECT[0], (":protocol", "connect-udp"), *CONNECT[2:], (":path", "/ws"), VERSION]
        self.send_block(fields)
        self.assertIn(b"\x03501", self.client.connection.received)
        self.assertIn(b":protocol is 'connect-udp'; expected websocket", self.client.connection.received)
        self.assertEqual(self.client.connection.protocol.streams, {})
        self.assert_others_live()

    def test_connect_without_a_protocol_is_refused_as_ever(self) -> None:
        self.send_block([CONNECT[0], CONNECT[3]])
        self.assertIn(b"this server opens no tunnels", self.client.connection.received)
        self.assert_others_live()

    def test_get_over_http_2_is_told_to_upgrade(self) -> None:
        stream_id = self.client.h2.get_next_available_stream_id()
        self.client.h2.send_headers(
            stream_id,
            [(":method", "GET"), (":scheme", "https"), (":authority", "localhost"), (":path", "/ws")],
            end_stream=True,
        )
        self.client.flush()
        self.rig.turn()
        self.assertIn(b'"status":426', self.client.connection.received)

    def test_connect_over_http_1_1_is_no_method(self) -> None:
        response = self.rig.request("CONNECT", "/ws", headers=HANDSHAKE)
        self.assert_problem(response, 405)
        self.assertEqual(response.header("allow"), "GET, HEAD, OPTIONS")

    def test_a_malformed_request_resets_its_stream(self) -> None:
        path = (":path", "/ws")
        for fields in (
            [(":method", "GET"), *CONNECT[1:], path],
            [*CONNECT[:2], CONNECT[3], path],
            CONNECT,
            [*CONNECT, (":path", "ws")],
            [*CONNECT, CONNECT[1], path],
            [*CONNECT[:1], *CONNECT[2:], path, ("x", "y"), CONNECT[1]],
            [*CONNECT, path, ("content-length", "5")],
            [*CONNECT, path, ("connection", "upgrade")],
            [*CONNECT, path, ("upgrade", "websocket")],
        ):
            with self.subTest(fields=fields):
                self.start("")
                stream_id = self.send_block([*fields, VERSION])
                reset = (
                    b"\0\0\4\3\0" + stream_id.to_bytes(4, "big") + int(ErrorCodes.PROTOCOL_ERROR).to_bytes(4, "big")
                )
                self.assertIn(reset, self.client.connection.received)
                self.assertEqual(self.rig.traces, self.before)
                self.assertTrue(self.client.connection.is_open)

    def test_a_handshake_that_ends_its_stream_opens_and_ends(self) -> None:
        self.send_block([*CONNECT, (":path", "/ws?channel=news"), VERSION], flags=["END_HEADERS", "END_STREAM"])
        self.assertEqual(self.rig.traces.sessions, 0)
        self.assertEqual(self.client.connection.protocol.streams, {})
        self.assert_others_live()


class EndTests(TunnelTests):
    """The end of one, whoever begins it; the connection and its other streams go on."""

    def test_when_the_client_ends_the_stream_it_is_over(self) -> None:
        socket = self.open()
        self.rig.publish("news", b"last words")
        socket.connection.send_end()
        self.assert_over(socket)
        self.assertFalse(socket.connection.was_aborted)

    def test_when_the_client_resets_the_stream_it_is_over(self) -> None:
        for code in ErrorCodes.CANCEL, ErrorCodes.NO_ERROR, ErrorCodes.INTERNAL_ERROR:
            socket = self.open()
            self.rig.publish("news", b"lost")
            socket.connection.reset(code)
            self.rig.publish("news", b"lost")
            self.assert_over(socket)

    def test_after_a_closing_handshake_of_the_client_the_stream_ends(self) -> None:
        socket = self.open()
        socket.protocol.send_close(1000, "bye")
        socket.flush()
        self.rig.turn()
        self.assertEqual(socket.close, (1000, ""))
        self.assertEqual(socket.connection.response and socket.connection.response.is_complete, True)
        self.assert_over(socket)

    def test_after_a_closing_handshake_of_the_daemon_the_stream_ends(self) -> None:
        socket, other = self.open(), self.open("/ws?channel=other")
        self.rig.publish("news", b"last words")
        self.rig.request("DELETE", "/channels/news")
        self.rig.turn()
        self.assertEqual(socket.json[-1]["data"], "last words")
        self.assertEqual(socket.close, (1000, "the channel was deleted"))
        self.assertFalse(socket.connection.is_open)
        self.assertTrue(other.is_open)
        other.connection.reset()
        self.assert_over(socket)

    def test_a_client_that_does_not_answer_the_close_frame_has_its_stream_reset(self) -> None:
        socket = self.open()
        socket.answers_pings = False
        self.rig.publish("news")
        self.rig.request("DELETE", "/channels/news")
        self.rig.wait(12)
        self.assertEqual(socket.close, (1000, "the channel was deleted"))
        self.assertTrue(socket.connection.was_aborted)
        self.assert_over(socket)

    def test_a_client_that_answers_no_ping_has_its_stream_reset(self) -> None:
        silent, other = self.open(), self.open("/ws?channel=other")
        silent.answers_pings = False
        self.rig.wait(33)
        self.assertTrue(silent.connection.was_aborted)
        self.assertTrue(other.is_open)
        other.connection.reset()
        self.assert_over(silent)

    def test_a_fault_in_one_ends_that_one(self) -> None:
        socket = self.open()
        (stream,) = self.client.connection.protocol.streams.values()
        self.patch(stream._protocol, "dataReceived", None)
        socket.say(type="subscribe", channel="x")
        self.assertEqual(len(self.flushLoggedErrors(TypeError)), 1)
        self.rig.turn()
        self.assertTrue(socket.connection.was_aborted)
        self.assert_over(socket)

    def test_one_without_memory_ends_and_is_no_fault(self) -> None:
        def no_memory(data: bytes) -> None:
            raise MemoryError

        self.addCleanup(memory.look)
        socket = self.open()
        (stream,) = self.client.connection.protocol.streams.values()
        self.patch(stream._protocol, "dataReceived", no_memory)
        socket.say(type="subscribe", channel="x")
        self.assertEqual(self.flushLoggedErrors(MemoryError), [])
        self.assertTrue(memory.is_short)
        self.rig.turn()
        self.assert_over(socket)

    def test_a_fault_with_the_end_of_the_stream_ends_that_one(self) -> None:
        socket = self.open()
        (stream,) = self.client.connection.protocol.streams.values()
        self.patch(stream._protocol, "dataReceived", None)
        socket.connection.send_end()
        self.assertEqual(len(self.flushLoggedErrors(TypeError)), 1)
        self.assert_over(socket)

    def test_when_the_connection_is_lost_all_are_over(self) -> None:
        for _ in range(3):
            self.open()
        self.client.connection.disconnect()
        self.rig.turn()
        traces = self.rig.traces
        self.assertEqual((traces.subscribers, traces.sessions, traces.alarms), (0, 0, 0))

    def test_when_the_daemon_stops_they_are_told_before_the_connection_ends(self) -> None:
        sockets = [self.open(), self.open("/ws")]
        at = len(self.client.connection.received)
        stopped = self.rig.stop()
        self.rig.turn()
        self.assertEqual([socket.close for socket in sockets], [(1001, "the server is going away")] * 2)
        self.successResultOf(stopped)
        self.assertFalse(self.client.connection.is_open)
        received = self.client.connection.received[at:]
        first, last = received.index(b"\x07\0\0\0\0\0\x7f\xff\xff\xff"), received.rindex(b"\x07\0\0\0\0\0\0\0\0")
        self.assertEqual(received.count(GOING_AWAY), 2)
        self.assertLess(received.rindex(GOING_AWAY), first, "some clients end the connection at GOAWAY")
        self.assertLess(first, last)

    def test_a_client_that_says_goodbye_keeps_its_open_ones(self) -> None:
        socket = self.open()
        self.client.connection.send(GoAwayFrame(0, last_stream_id=0, error_code=0).serialize())
        self.rig.publish("news", b"still here")
        self.rig.turn()
        self.assertEqual(socket.json[-1]["data"], "still here")
        socket.connection.reset()
        self.rig.turn()
        self.assertFalse(self.client.connection.is_open)


class TimeTests(TunnelTests):
    """Time-outs of the connection."""

    def test_an_idle_one_that_answers_pings_stays(self) -> None:
        socket = self.open()
        self.rig.wait(600)
        self.assertTrue(socket.is_open)
        self.assertGreater(len(socket.pings), 15)
        self.assertEqual(self.rig.delayed, [])

    def test_the_connection_is_closed_when_it_is_idle_after_the_last_one(self) -> None:
        socket = self.open()
        socket.connection.reset()
        self.rig.wait(55)
        self.assertTrue(self.client.connection.is_open)
        self.rig.wait(10)
        self.assertFalse(self.client.connection.is_open)

    def test_one_that_is_slow_for_a_while_stays(self) -> None:
        socket = self.open()
        socket.connection.stop_reading()
        self.rig.publish("news", b"x" * 60_000)
        self.rig.wait(15)
        socket.connection.start_reading()
        self.assertEqual(len(socket.json[-1]["data"]), 60_000)
        self.assertTrue(socket.is_open)


class FlowTests(TunnelTests):
    """Windows, both ways."""

    def test_a_slow_reader_is_closed_with_1013_and_the_others_are_not(self) -> None:
        self.start("[limits]\noutbox = 64KiB\n")
        slow, other = self.open(), self.open()
        slow.connection._is_reading = False  # it opens no window; what is in it comes
        for number in range(100):
            self.rig.publish("news", b"%d " % number + b"x" * 5000)
            self.rig.turn()
        self.assertEqual(len(other.json), 101)
        self.assertEqual(self.rig.traces.subscribers, self.before.subscribers + 1)
        slow.connection.start_reading()
        assert slow.close is not None
        self.assertEqual(slow.close[0], 1013)
        got = [message["data"] for message in slow.json[1:]]
        self.assertEqual(got, [message["data"] for message in other.json[1 : 1 + len(got)]])
        self.assertFalse(slow.connection.is_open)
        self.assertTrue(other.is_open)

    def test_a_slow_reader_that_takes_nothing_any_more_has_its_stream_reset(self) -> None:
        self.start("[limits]\noutbox = 64KiB\n")
        slow = self.open()
        slow.connection._is_reading = False
        for _ in range(60):
            self.rig.publish("news", b"x" * 5000)
            self.rig.turn()
        self.rig.wait(12)
        self.assertTrue(slow.connection.was_aborted)
        self.assert_over(slow)

    def test_a_message_longer_than_the_window_is_taken(self) -> None:
        self.start("[limits]\nevent_size = 2MiB\n")
        socket = self.open("/ws?channel=news&format=raw")
        socket.send(b"x" * 2**21)
        self.rig.turn()
        self.assertEqual(socket.connection.unsent, 0)
        self.assertEqual([len(message) for message in socket.messages], [2**21])

    def test_many_messages_are_taken(self) -> None:
        socket = self.open("/ws?channel=news&format=raw")
        for _ in range(100):
            socket.send(b"x" * 5000)
        self.rig.turn()
        self.assertEqual(socket.connection.unsent, 0)
        self.assertEqual(len(socket.messages), 100)

    def test_when_much_is_held_only_the_oldest_message_goes_on(self) -> None:
        self.start("[limits]\nevent_size = 4MiB\n[channels]\nhistory_size = 1\n")
        sockets = [self.open(f"/ws?channel={number}&format=raw") for number in range(4)]
        half, rest = frame(b"x" * 2**21, 2, fin=False), frame(b"x" * 2**20, 0)
        for socket in sockets:
            socket.connection.send(half)
        self.rig.turn()
        unsent = [socket.connection.unsent for socket in sockets]
        self.assertEqual(unsent[0], 0)
        self.assertGreater(min(unsent[2:]), 0)
        for socket in sockets:
            socket.connection.send(rest)
        self.rig.turn()
        self.assertEqual([socket.connection.unsent for socket in sockets], [0] * 4)
        self.assertEqual([[len(it) for it in socket.messages] for socket in sockets], [[3 * 2**20]] * 4)

    def test_what_is_held_is_counted_once(self) -> None:
        socket = self.open("/ws?channel=news&format=raw")
        socket.connection.send(frame(b"x" * 10_000, 2, fin=False))
        socket.connection.send(frame(b"x" * 100, 0)[:50])
        self.assertEqual(self.client.connection.protocol._bodies._total, 10_100)
        socket.connection.send(frame(b"x" * 100, 0)[50:])
        self.assertEqual(self.client.connection.protocol._bodies._total, 0)

    def test_small_messages_are_taken_while_much_is_held_elsewhere(self) -> None:
        self.start("[limits]\nevent_size = 4MiB\n")
        for _ in range(3):
            self.open("/ws?channel=a&format=raw").connection.send(frame(b"x" * 2**21, 2, fin=False))
        socket = self.open("/ws?channel=news&format=raw")
        for _ in range(100):
            socket.send(b"x" * 5000)
        self.rig.turn()
        self.assertEqual((socket.connection.unsent, len(socket.messages)), (0, 100))

    def test_a_message_that_is_too_large_is_not_held(self) -> None:
        self.start("[limits]\nevent_size = 64KiB\n")
        socket = self.open("/ws?channel=news&format=raw")
        socket.answers_pings = False
        socket.connection.send(b"\x82\xff" + (2**40).to_bytes(8, "big") + b"\0\0\0\0")
        socket.connection.send(b"x" * 2**20)
        self.rig.turn()
        assert socket.close is not None
        self.assertEqual(socket.close[0], 1009)
        self.assertEqual(socket.connection.unsent, 0, "its close frame may be behind that")
        self.assertEqual(self.client.connection.protocol._bodies._total, 0)

    def test_nothing_is_read_after_the_end(self) -> None:
        socket = self.open("/ws?channel=news&format=raw")
        socket.connection.send(frame(b"", fin=False) + frame(b"", 0, fin=False) * 4100)
        socket.connection.send(b"x" * 2**20)
        self.assertGreater(socket.connection.unsent, 2**19)

    def test_more_than_the_window_resets_the_stream(self) -> None:
        self.start("[limits]\nevent_size = 4MiB\n")
        others = [self.open("/ws?channel=a&format=raw") for _ in range(3)]
        for other in others:
            other.connection.send(frame(b"x" * 2**21, 2, fin=False))
        socket = self.open("/ws?channel=news&format=raw")
        stream_id = socket.connection.stream_id
        head = b"\x82\xff" + (2**20).to_bytes(8, "big") + b"\0\0\0\0"
        data = [head, *[b"x" * 16_000] * 4, b"x" * 2000]
        self.client.connection.send(b"".join(DataFrame(stream_id, chunk).serialize() for chunk in data))
        for other in others:
            other.connection.reset()
        self.assertTrue(self.client.connection.is_open)
        reset = stream_id.to_bytes(4, "big") + int(ErrorCodes.FLOW_CONTROL_ERROR).to_bytes(4, "big")
        self.rig.turn()
        self.assertIn(b"\0\0\4\3\0" + reset, self.client.connection.received)
        self.assert_over(socket)

    def test_whatever_comes_on_a_stream_the_others_go_on(self) -> None:
        other = self.open("/ws?channel=other")

        @examples(100)
        @given(st.lists(st.binary(min_size=1, max_size=300), max_size=6), st.booleans())
        def send(chunks: list[bytes], ends: bool) -> None:
            socket = self.open()
            for chunk in chunks:
                socket.connection.send(chunk)
            if ends and not socket.connection._is_over:
                socket.connection.send_end()
            self.rig.turn()
            if not socket.connection._is_over:
                socket.connection.reset()
            self.assertEqual(len(self.client.connection.protocol.streams), 1)

        send()
        self.rig.publish("other", b"still here")
        self.rig.turn()
        self.assertEqual(other.json[-1]["data"], "still here")
        self.assertEqual(self.rig.traces.sessions, self.before.sessions + 1)

    def test_padding_counts_for_the_window_and_is_given_back(self) -> None:
        socket = self.open("/ws?channel=news&format=raw")
        for number in range(1000):
            data = DataFrame(socket.connection.stream_id, frame(b"%d" % number), pad_length=200, flags=["PADDED"])
            self.client.connection.send(data.serialize())
        self.rig.turn()
        self.assertEqual(socket.messages, [str(number) for number in range(1000)])

    def test_events_for_several_streams_are_one_write(self) -> None:
        sockets = [self.open() for _ in range(5)]
        writes = len(self.client.connection.writes)
        self.rig.publish("news", b"one")
        self.rig.publish("news", b"two")
        self.rig.turn()
        self.assertEqual(len(self.client.connection.writes), writes + 1)
        self.assertEqual([[it["data"] for it in socket.json[1:]] for socket in sockets], [["one", "two"]] * 5)
