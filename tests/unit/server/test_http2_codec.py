"""The codec, and the private names of h2 that it relies on: each of them is pinned here."""

from __future__ import annotations

import ast
import gc
import weakref
from pathlib import Path

import h2
from h2.config import H2Configuration
from h2.connection import AllowedStreamIDs, H2Connection
from h2.settings import SettingCodes, Settings
from h2.stream import StreamClosedBy, StreamInputs
from hpack import Encoder
from hyperframe.frame import SettingsFrame
from twisted.trial.unittest import SynchronousTestCase

import pushd.server.http2.codec
from pushd.server.http2.codec import STREAM_WINDOW, ClosedStream, Codec
from pushd.server.http2.errors import Code, ConnectionFault, StreamFault
from pushd.server.http2.limits import Limits
from tests.rigs.builders import PATIENCE


class PinTests(SynchronousTestCase):
    """What the codec takes for granted of h2."""

    PINNED = {
        "_settings",
        "_closed_streams",
        "_begin_new_stream",
        "_inbound_flow_control_window_manager",
        "_inbound_window_manager",
        "_frame_dispatch_table",
    }

    def setUp(self) -> None:
        self.connection = H2Connection(H2Configuration(client_side=False, header_encoding=None))

    def test_these_are_all_the_private_names(self) -> None:
        tree = ast.parse(Path(pushd.server.http2.codec.__file__).read_text())
        found = {
            node.attr
            for node in ast.walk(tree)
            if isinstance(node, ast.Attribute)
            and node.attr.startswith("_")
            and not (isinstance(node.value, ast.Name) and node.value.id == "self")
        }
        self.assertEqual(found, self.PINNED)

    def test_the_version_is_one_that_setup_cfg_allows(self) -> None:
        major, minor = map(int, h2.__version__.split(".")[:2])
        self.assertTrue((4, 3) <= (major, minor) < (5, 0))

    def test_settings_keep_their_values_in_deques_by_number(self) -> None:
        settings = Settings(client=False, initial_values={SettingCodes.MAX_CONCURRENT_STREAMS: 5})
        self.assertEqual(list(settings._settings[SettingCodes.MAX_CONCURRENT_STREAMS]), [5])
        self.assertIn(SettingCodes.ENABLE_PUSH, settings._settings)

    def test_a_connection_refers_to_itself_only_where_its_end_forgets_it(self) -> None:
        gone = weakref.ref(self.connection)
        self.connection._frame_dispatch_table.clear()
        gc.disable()
        self.addCleanup(gc.enable)
        del self.connection
        self.assertIsNone(gone())

    def test_a_new_stream_is_entered_and_its_state_is_idle(self) -> None:
        stream = self.connection._begin_new_stream(1, AllowedStreamIDs.ODD)
        self.assertIs(self.connection.streams[1], stream)
        self.assertEqual(self.connection.highest_inbound_stream_id, 1)
        stream.state_machine.process_input(StreamInputs.RECV_HEADERS)
        self.assertTrue(stream.open)

    def test_a_stream_can_be_promised_without_its_frames(self) -> None:
        """The states of both are all that h2 needs; its own `push_stream` would encode and send, too."""
        parent = self.connection._begin_new_stream(1, AllowedStreamIDs.ODD)
        parent.state_machine.process_input(StreamInputs.RECV_HEADERS)
        parent.state_machine.process_input(StreamInputs.SEND_PUSH_PROMISE)
        pushed = self.connection._begin_new_stream(2, AllowedStreamIDs.EVEN)
        self.assertEqual(self.connection.highest_outbound_stream_id, 2)
        pushed.state_machine.process_input(StreamInputs.SEND_PUSH_PROMISE)
        pushed.state_machine.process_input(StreamInputs.SEND_HEADERS)
        pushed.state_machine.process_input(StreamInputs.SEND_END_STREAM)
        self.assertTrue(pushed.closed)

    def test_closed_streams_are_a_mapping_to_how_they_were_closed(self) -> None:
        self.connection._closed_streams[1] = StreamClosedBy.SEND_END_STREAM
        self.assertIs(self.connection._closed_streams.get(1), StreamClosedBy.SEND_END_STREAM)

    def test_closed_streams_are_bounded_by_a_class_attribute(self) -> None:
        codec = Codec(Limits(max_body_bytes=1, timeouts=PATIENCE))
        for n in range(2000):
            codec._state._closed_streams[n] = None
        self.assertEqual(len(codec._state._closed_streams), 1000)

    def test_windows_count_what_comes_and_say_when_to_open(self) -> None:
        manager = self.connection._inbound_flow_control_window_manager
        self.assertEqual(manager.current_window_size, 65535)
        manager.window_consumed(40_000)
        self.assertEqual(manager.current_window_size, 25_535)
        self.assertEqual(manager.process_bytes(40_000), 40_000)
        stream = self.connection._begin_new_stream(1, AllowedStreamIDs.ODD)
        stream._inbound_window_manager.window_consumed(5)
        stream._inbound_window_manager.window_opened(5)
        self.assertEqual(stream._inbound_window_manager.current_window_size, 65535)

    def test_settings_change_the_windows_of_all_streams(self) -> None:
        """Also below 0."""
        stream = self.connection._begin_new_stream(1, AllowedStreamIDs.ODD)
        self.connection.receive_data(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
        stream.outbound_flow_control_window -= 100
        self.connection.receive_data(SettingsFrame(0, settings={4: 50}).serialize())
        self.assertEqual(stream.outbound_flow_control_window, -50)
        self.assertTrue(self.connection.data_to_send())

    def test_the_dynamic_table_is_a_deque_with_the_newest_first(self) -> None:
        """What `pushd.server.http2.hpack_decoder` recognises a change by; public, but worth a pin."""
        decoder = self.connection.decoder
        encoder = Encoder()
        decoder.decode(encoder.encode([("x", "1")]), raw=True)
        first = decoder.header_table.dynamic_entries[0]
        decoder.decode(encoder.encode([("x", "1")]), raw=True)
        self.assertIs(decoder.header_table.dynamic_entries[0], first)
        decoder.decode(encoder.encode([("y", "1")]), raw=True)
        self.assertIsNot(decoder.header_table.dynamic_entries[0], first)
        self.assertEqual(len(decoder.header_table.dynamic_entries), 2)


class CodecTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.codec = Codec(Limits(max_body_bytes=1000, timeouts=PATIENCE))
        self.codec.start()
        self.codec.take()
        self.codec.receive_settings(0, b"")
        self.codec.take()

    def test_what_is_sent_is_taken_once_and_as_one_piece(self) -> None:
        self.codec.open(1, is_ended=True)
        self.codec.send_headers(1, b"\x88", is_ended=False)
        self.codec.send_data(1, memoryview(b"abc"), is_ended=True)
        expected = b"\0\0\2\1\4\0\0\0\1\x20\x88" + b"\0\0\3\0\1\0\0\0\1abc"
        self.assertEqual(self.codec.take(), expected)
        self.assertEqual(self.codec.take(), b"")

    def test_data_takes_from_both_windows(self) -> None:
        self.codec.open(1, is_ended=True)
        self.codec.send_headers(1, b"\x88", is_ended=False)
        self.codec.send_data(1, b"abc", is_ended=False)
        self.assertEqual(self.codec.room(1), 65532)
        self.codec.open_window(1, 100)
        self.assertEqual(self.codec.room(1), 65532)
        self.codec.open_window(0, 50)
        self.assertEqual(self.codec.room(1), 65582)

    def test_a_stream_is_forgotten_when_both_sides_have_ended_it(self) -> None:
        self.codec.open(1, is_ended=False)
        self.codec.send_headers(1, b"\x88", is_ended=True)
        self.assertTrue(self.codec.is_open(1))
        self.codec.received(1, is_trailers=False, is_ended=True)
        self.codec.retire(1)
        self.assertFalse(self.codec.is_open(1))
        self.assertIs(self.codec.past(1), ClosedStream.ENDED)

    def test_what_became_of_a_stream(self) -> None:
        self.codec.open(3, is_ended=True)
        self.codec.reset(3, Code.CANCEL)
        self.codec.open(5, is_ended=True)
        self.codec.received_reset(5)
        pasts = [self.codec.past(n) for n in (1, 2, 3, 5, 7)]
        self.assertEqual(
            pasts,
            [
                ClosedStream.SKIPPED,
                ClosedStream.IDLE,
                ClosedStream.RESET_HERE,
                ClosedStream.RESET_THERE,
                ClosedStream.IDLE,
            ],
        )

    def test_faults_have_the_codes_of_the_rfc(self) -> None:
        self.codec.open(1, is_ended=True)
        fault = self.assertRaises(StreamFault, self.codec.received, 1, is_trailers=False, is_ended=False)
        self.assertEqual(fault.code, Code.STREAM_CLOSED)
        connection_fault = self.assertRaises(ConnectionFault, self.codec.consume_connection, 2**21)
        self.assertEqual(connection_fault.code, Code.FLOW_CONTROL_ERROR)

    def test_a_window_is_granted_when_it_is_worth_a_frame(self) -> None:
        self.codec.open(1, is_ended=False)
        self.codec.consume_stream(1, 1000)
        self.codec.grant(1, STREAM_WINDOW)
        self.assertEqual(self.codec.take(), b"")
        self.codec.consume_stream(1, 40_000)
        self.codec.grant(1, STREAM_WINDOW)
        self.assertEqual(self.codec.take(), b"\0\0\4\x08\0\0\0\0\1" + (41_000).to_bytes(4, "big"))

    def test_settings_that_nobody_knows_are_not_kept(self) -> None:
        """h2 keeps them all: 64 Ki of them would be 40 MB."""
        for start in range(100, 60_000, 2000):
            payload = b"".join(n.to_bytes(2, "big") + bytes(4) for n in range(start, start + 2000))
            self.codec.receive_settings(0, payload)
        self.assertLess(len(self.codec._state.remote_settings), 10)

    def test_a_large_header_block_goes_in_several_frames(self) -> None:
        self.codec.open(1, is_ended=True)
        self.codec.send_headers(1, b"x" * 40_000, is_ended=True)
        out = self.codec.take()
        self.assertEqual(out[3:5], b"\1\1")
        self.assertEqual(out[9 + 16384 + 3 : 9 + 16384 + 5], b"\x09\0")
        self.assertEqual(out[2 * (9 + 16384) + 3 : 2 * (9 + 16384) + 5], b"\x09\4")
        self.assertEqual(len(out), 40_001 + 3 * 9)
