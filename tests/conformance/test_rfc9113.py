"""HTTP/2 (RFC 9113), section by section, from the outside: what a server must do with what a client sends."""

from __future__ import annotations

import struct

from hyperframe.frame import (
    ContinuationFrame,
    DataFrame,
    GoAwayFrame,
    HeadersFrame,
    PingFrame,
    PriorityFrame,
    PushPromiseFrame,
    SettingsFrame,
    WindowUpdateFrame,
)

from pushd.server.http2.errors import Code
from tests.rigs.http2_peer import MAX_BODY, PREFACE, HTTP2TestCase


def raw(kind: int, flags: int, stream_id: int, payload: bytes = b"") -> bytes:
    """Make a frame that no library would."""
    return struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + struct.pack(">I", stream_id) + payload


class Section3Tests(HTTP2TestCase):
    """Starting HTTP/2."""

    def test_the_server_preface_is_a_settings_frame(self) -> None:
        """3.4: the server preface is a potentially empty SETTINGS frame, the first that it sends."""
        peer = self.new_peer()
        first = peer.frames()[0]
        self.assertIsInstance(first, SettingsFrame)
        self.assertNotIn("ACK", first.flags)

    def test_an_invalid_preface_is_a_connection_error(self) -> None:
        """3.4: clients and servers MUST treat an invalid preface as PROTOCOL_ERROR."""
        peer = self.new_peer()
        peer.send(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        self.assert_ended(Code.PROTOCOL_ERROR, peer)

    def test_an_invalid_preface_is_noticed_at_its_first_wrong_octet(self) -> None:
        """3.4"""
        peer = self.new_peer()
        peer.send(b"PRI * HTTP/2.1")
        self.assert_ended(Code.PROTOCOL_ERROR, peer)

    def test_the_client_preface_has_to_go_on_with_settings(self) -> None:
        """3.4: the preface MUST be followed by a SETTINGS frame."""
        peer = self.new_peer()
        peer.send(PREFACE, PingFrame(0, opaque_data=b"12345678"))
        self.assert_ended(Code.PROTOCOL_ERROR, peer)

    def test_an_acknowledgement_is_no_preface(self) -> None:
        """3.4"""
        peer = self.new_peer()
        peer.send(PREFACE, SettingsFrame(0, flags=["ACK"]))
        self.assert_ended(Code.PROTOCOL_ERROR, peer)

    def test_requests_may_come_with_the_preface(self) -> None:
        """3.4: the client may send frames before it has the server's preface."""
        peer = self.new_peer()
        peer.send(PREFACE, SettingsFrame(0), peer.headers(1))
        self.assert_answers(1, peer=peer)


class Section4Tests(HTTP2TestCase):
    """Frames."""

    def test_frames_of_unknown_types_are_ignored(self) -> None:
        """4.1, 5.5: implementations MUST ignore and discard frames of unknown types."""
        self.peer.send(raw(0xFA, 0xFF, 0, b"x"), raw(0xFA, 0, 7))
        self.assert_alive()

    def test_unknown_flags_are_ignored(self) -> None:
        """4.1: flags without meaning for a type MUST be ignored."""
        self.peer.send(raw(6, 0xFE, 0, b"12345678"))
        self.assertEqual(self.peer.all_frames(PingFrame)[0].opaque_data, b"12345678")

    def test_the_reserved_bit_is_ignored(self) -> None:
        """4.1: R MUST be ignored when receiving."""
        self.peer.send(raw(6, 0, 0x80000000, b"12345678"))
        self.assertTrue(self.peer.all_frames(PingFrame))

    def test_a_frame_of_the_largest_size_is_taken(self) -> None:
        """4.2: all implementations MUST be capable of receiving frames of up to 2^14 octets."""
        self.peer.post(1, b"x" * 16384)
        self.assertEqual(len(self.peer.body(1)), 16384)

    def test_a_frame_over_the_largest_size_is_an_error(self) -> None:
        """4.2: FRAME_SIZE_ERROR if a frame exceeds SETTINGS_MAX_FRAME_SIZE."""
        self.peer.send(self.peer.headers(1, method="POST", end=False), raw(0, 0, 1, b"x" * 16385))
        self.assert_ended(Code.FRAME_SIZE_ERROR)

    def test_a_header_block_that_cannot_be_decoded_is_a_compression_error(self) -> None:
        """4.3: a decoding error MUST be treated as a connection error of type COMPRESSION_ERROR."""
        self.peer.send(raw(1, 5, 1, b"\xff\xff\xff\xff"))
        self.assert_ended(Code.COMPRESSION_ERROR)

    def test_header_blocks_come_in_one_piece(self) -> None:
        """4.3: no other frames within a header block."""
        block = self.peer.encoder.encode([(":method", "GET")])
        self.peer.send(raw(1, 1, 1, block), PingFrame(0, opaque_data=b"12345678"))
        self.assert_ended(Code.PROTOCOL_ERROR)

    def test_header_blocks_are_decoded_also_for_streams_that_are_refused(self) -> None:
        """4.3: the state of the decompressor is that of the connection."""
        for stream_id in range(1, 2 * 252, 2):
            self.peer.send(self.peer.headers(stream_id, "/open", fields=[("x-n", str(stream_id))]))
        self.assertEqual(self.peer.resets(503), [Code.REFUSED_STREAM])
        self.peer.reset(1)
        self.peer.get(505, "/headers", fields=[("x-n", "503")])
        self.assertIn(b"(b'x-n', b'503')", self.peer.body(505))


class Section5StatesTests(HTTP2TestCase):
    """5.1: the states of streams."""

    def test_idle_data(self) -> None:
        """5.1: DATA on an idle stream is a connection error of type PROTOCOL_ERROR."""
        self.peer.data(1)
        self.assert_ended(Code.PROTOCOL_ERROR)

    def test_idle_rst_stream(self) -> None:
        """5.1, 6.4: RST_STREAM on an idle stream is a connection error of type PROTOCOL_ERROR."""
        self.peer.reset(1)
        self.assert_ended(Code.PROTOCOL_ERROR)

    def test_idle_window_update(self) -> None:
        """5.1: WINDOW_UPDATE on an idle stream is a connection error of type PROTOCOL_ERROR."""
        self.peer.open_window(1, 1)
        self.assert_ended(Code.PROTOCOL_ERROR)

    def test_idle_continuation(self) -> None:
        """6.10: CONTINUATION without HEADERS is a connection error of type PROTOCOL_ERROR."""
        self.peer.send(ContinuationFrame(1, b"", flags=["END_HEADERS"]))
        self.assert_ended(Code.PROTOCOL_ERROR)

    def test_idle_priority(self) -> None:
        """5.1: PRIORITY can come in any state."""
        self.peer.send(PriorityFrame(9, depends_on=1, stream_weight=5))
        self.assert_alive()

    def test_half_closed_remote_data(self) -> None:
        """5.1: DATA after END_STREAM is a stream error of type STREAM_CLOSED."""
        self.peer.get(1, "/open")
        self.peer.data(1, b"x")
        self.assert_reset(1, Code.STREAM_CLOSED)
        self.assertEqual(len(self.pages.open.lost), 1)

    def test_half_closed_remote_headers(self) -> None:
        """5.1: HEADERS after END_STREAM is a stream error of type STREAM_CLOSED."""
        self.peer.get(1, "/open")
        self.peer.get(1, "/open")
        self.assert_reset(1, Code.STREAM_CLOSED)

    def test_half_closed_remote_window_update_and_priority(self) -> None:
        """5.1: WINDOW_UPDATE, PRIORITY and RST_STREAM are taken."""
        self.peer.get(1, "/open")
        self.peer.open_window(1, 5)
        self.peer.send(PriorityFrame(1, depends_on=0))
        self.peer.reset(1)
        self.assert_alive()

    def test_closed_data(self) -> None:
        """5.1: DATA on a stream that both have ended is a connection error of type STREAM_CLOSED."""
        self.peer.get(1)
        self.assert_answers(1)
        self.peer.data(1, b"x")
        self.assert_ended(Code.STREAM_CLOSED)

    def test_closed_headers(self) -> None:
        """5.1: HEADERS on a stream that both have ended is a connection error of type STREAM_CLOSED."""
        self.peer.get(1)
        self.assert_answers(1)
        self.peer.get(1)
        self.assert_ended(Code.STREAM_CLOSED)

    def test_closed_window_update_reset_and_priority(self) -> None:
        """5.1: they can come for a short time after the end, and are ignored."""
        self.peer.get(1)
        self.assert_answers(1)
        self.peer.open_window(1, 5)
        self.peer.send(PriorityFrame(1, depends_on=0))
        self.peer.reset(1)
        self.assert_alive()

    def test_reset_by_the_client_data(self) -> None:
        """5.1: frames after RST_STREAM are a stream error of type STREAM_CLOSED."""
        self.peer.send(self.peer.headers(1, method="POST", end=False))
        self.peer.reset(1)
        self.peer.data(1, b"x")
        self.assert_reset(1, Code.STREAM_CLOSED)

    def test_reset_by_the_client_headers(self) -> None:
        """5.1"""
        self.peer.get(1, "/open")
        self.peer.reset(1)
        self.peer.get(1)
        self.assert_reset(1, Code.STREAM_CLOSED)

    def test_reset_by_the_server_data_that_was_on_its_way(self) -> None:
        """5.1: an endpoint that sent RST_STREAM MUST be prepared to receive what was on its way."""
        self.peer.post(1, fields=[("content-length", str(MAX_BODY + 1))])
        self.assert_reset(1, Code.NO_ERROR)
        self.peer.data(1, b"x" * 1000)
        self.peer.data(1, b"x" * 1000, end=True)
        self.assert_reset(1, Code.NO_ERROR)

    def test_data_on_streams_that_are_over_counts_for_the_connection(self) -> None:
        """6.9: a receiver of DATA MUST always include its contribution to the connection's window."""
        self.peer.post(1, fields=[("content-length", str(MAX_BODY + 1))])
        self.peer.turn()
        for _ in range(70):
            self.peer.data(1, b"x" * 10_000)
        increments = sum(f.window_increment for f in self.peer.all_frames(WindowUpdateFrame, 0))
        self.assertGreaterEqual(increments, 500_000)
        self.assert_alive()


class Section5Tests(HTTP2TestCase):
    """5.1.1 to 5.5."""

    def test_a_client_stream_with_an_even_number(self) -> None:
        """5.1.1: a connection error of type PROTOCOL_ERROR."""
        self.peer.get(2)
        self.assert_ended(Code.PROTOCOL_ERROR)

    def test_a_stream_with_a_lower_number(self) -> None:
        """5.1.1: numbers only grow; else a connection error of type PROTOCOL_ERROR."""
        self.peer.get(5)
        self.peer.get(3)
        self.assert_ended(Code.PROTOCOL_ERROR)

    def test_a_stream_over_the_limit_is_refused(self) -> None:
        """5.1.2: a stream error of type PROTOCOL_ERROR or REFUSED_STREAM."""
        self.peer.send(*(self.peer.headers(n, "/open") for n in range(1, 501, 2)))
        self.peer.get(501, "/open")
        self.assert_reset(501, Code.REFUSED_STREAM)
        self.assertEqual(len(self.peer.connection.streams), 250)
        self.peer.reset(1)
        self.peer.get(503)
        self.assert_answers(503)

    def test_the_server_says_how_many_streams(self) -> None:
        """5.1.2, 6.5.2: SETTINGS_MAX_CONCURRENT_STREAMS."""
        settings = self.peer.all_frames(SettingsFrame)[0].settings
        self.assertEqual(settings[SettingsFrame.MAX_CONCURRENT_STREAMS], 250)

    def test_a_connection_error_is_said_with_the_last_stream(self) -> None:
        """5.4.1: GOAWAY with the identifier of the last stream."""
        self.peer.get(7)
        self.peer.data(9)
        self.assert_ended(Code.PROTOCOL_ERROR)
        self.assertEqual(self.peer.goaways()[0].last_stream_id, 7)

    def test_a_stream_error_is_not_answered_with_a_stream_error(self) -> None:
        """5.4.2: RST_STREAM MUST NOT be sent in response to RST_STREAM."""
        self.peer.get(1, "/open")
        self.peer.reset(1)
        self.peer.reset(1)
        self.assertEqual(self.peer.resets(1), [])
        self.assert_alive()

    def test_extension_frames_within_a_header_block_are_an_error(self) -> None:
        """5.5: extension frames in the middle of a field block are a connection error of type PROTOCOL_ERROR."""
        self.peer.send(raw(1, 1, 1, b""), raw(0xFA, 0, 1))
        self.assert_ended(Code.PROTOCOL_ERROR)


class Section6DataTests(HTTP2TestCase):
    """6.1: DATA."""

    def test_data_without_a_stream(self) -> None:
        """6.1: a connection error of type PROTOCOL_ERROR."""
        self.peer.send(raw(0, 0, 0, b"x"))
        self.assert_ended(Code.PROTOCOL_ERROR)

    def test_padding(self) -> None:
        """6.1: padding is no part of the body."""
        frame = DataFrame(1, b"abc", pad_length=100, flags=["PADDED", "END_STREAM"])
        self.peer.send(self.peer.headers(1, method="POST", end=False), frame)
        self.assertEqual(self.peer.body(1), b"abc")

    def test_padding_as_long_as_the_frame(self) -> None:
        """6.1: a connection error of type PROTOCOL_ERROR."""
        self.peer.send(self.peer.headers(1, method="POST", end=False), raw(0, 8, 1, b"\x04abc"))
        self.assert_ended(Code.PROTOCOL_ERROR)

    def test_padding_without_its_length(self) -> None:
        """4.2: too short to contain mandatory data: FRAME_SIZE_ERROR."""
        self.peer.send(self.peer.headers(1, method="POST", end=False), raw(0, 8, 1))
        self.assert_ended(Code.FRAME_SIZE_ERROR)

    def test_nothing_but_padding(self) -> None:
        """6.1"""
        self.peer.send(self.peer.headers(1, method="POST", end=False), raw(0, 9, 1, b"\x02\0\0"))
        self.assertEqual(self.peer.body(1), b"")
        self.assert_answers(1)


class Section6HeadersTests(HTTP2TestCase):
    """6.2 HEADERS, 6.10 CONTINUATION."""

    def test_headers_without_a_stream(self) -> None:
        """6.2: a connection error of type PROTOCOL_ERROR."""
        self.peer.send(raw(1, 5, 0, b"\x82"))
        self.assert_ended(Code.PROTOCOL_ERROR)

    def test_padded_headers_with_a_priority(self) -> None:
        """6.2"""
        frame = self.peer.headers(1)
        frame.flags |= {"PADDED", "PRIORITY"}
        frame.pad_length, frame.depends_on, frame.stream_weight = 10, 0, 5
        self.peer.send(frame)
        self.assert_answers(1)

    def test_padding_longer_than_the_frame(self) -> None:
        """6.2: a connection error of type PROTOCOL_ERROR."""
        self.peer.send(raw(1, 0xD, 1, b"\xff\x82"))
        self.assert_ended(Code.PROTOCOL_ERROR)

    def test_a_priority_that_is_cut_off(self) -> None:
        """4.2: FRAME_SIZE_ERROR."""
        self.peer.send(raw(1, 0x25, 1, b"\0\0\0"))
        self.assert_ended(Code.FRAME_SIZE_ERROR)

    def test_a_header_block_in_several_frames(self) -> None:
        """6.10"""
        block = self.peer.headers(1).data
        self.peer.send(raw(1, 1, 1, block[:3]), ContinuationFrame(1, block[3:5]), raw(9, 4, 1, block[5:]))
        self.assert_answers(1)

    def test_a_continuation_of_another_stream(self) -> None:
        """6.10: a connection error of type PROTOCOL_ERROR."""
        self.peer.send(raw(1, 1, 1, b"\x82"), ContinuationFrame(3, b"", flags=["END_HEADERS"]))
        self.assert_ended(Code.PROTOCOL_ERROR)

    def test_headers_within_a_header_block(self) -> None:
        """6.2: a connection error of type PROTOCOL_ERROR."""
        self.peer.send(raw(1, 1, 1, b"\x82"), raw(1, 5, 1, b"\x82"))
        self.assert_ended(Code.PROTOCOL_ERROR)

    def test_a_continuation_after_the_end_of_the_block(self) -> None:
        """6.10: a connection error of type PROTOCOL_ERROR."""
        self.peer.send(self.peer.headers(1), ContinuationFrame(1, b"", flags=["END_HEADERS"]))
        self.assert_ended(Code.PROTOCOL_ERROR)

    def test_a_continuation_without_a_stream(self) -> None:
        """6.10: a connection error of type PROTOCOL_ERROR."""
        self.peer.send(raw(9, 4, 0))
        self.assert_ended(Code.PROTOCOL_ERROR)


class Section6SmallFramesTests(HTTP2TestCase):
    """6.3 PRIORITY, 6.4 RST_STREAM, 6.6 PUSH_PROMISE, 6.7 PING, 6.8 GOAWAY."""

    def test_priority_without_a_stream(self) -> None:
        """6.3: a connection error of type PROTOCOL_ERROR."""
        self.peer.send(raw(2, 0, 0, b"\0" * 5))
        self.assert_ended(Code.PROTOCOL_ERROR)

    def test_priority_of_another_size(self) -> None:
        """6.3: FRAME_SIZE_ERROR, of the stream or, as section 5.4 allows, of the connection."""
        self.peer.send(raw(2, 0, 1, b"\0" * 4))
        self.assert_ended(Code.FRAME_SIZE_ERROR)

    def test_rst_stream_without_a_stream(self) -> None:
        """6.4: a connection error of type PROTOCOL_ERROR."""
        self.peer.send(raw(3, 0, 0, b"\0" * 4))
        self.assert_ended(Code.PROTOCOL_ERROR)

    def test_rst_stream_of_another_size(self) -> None:
        """6.4: a connection error of type FRAME_SIZE_ERROR."""
        self.peer.get(1, "/open")
        self.peer.send(raw(3, 0, 1, b"\0" * 3))
        self.assert_ended(Code.FRAME_SIZE_ERROR)

    def test_rst_stream_ends_the_request(self) -> None:
        """6.4"""
        self.peer.get(1, "/open")
        self.peer.reset(1)
        self.assertEqual(self.pages.open.lost, self.pages.open.requests)
        self.assertEqual(self.peer.connection.streams, {})

    def test_rst_stream_with_an_unknown_code(self) -> None:
        """7: unknown codes MUST NOT trigger any special behaviour."""
        self.peer.get(1, "/open")
        self.peer.reset(1, 0xABCDEF)
        self.assertEqual(len(self.pages.open.lost), 1)
        self.assert_alive()

    def test_push_promise_from_a_client(self) -> None:
        """8.4: a client cannot push; a connection error of type PROTOCOL_ERROR."""
        self.peer.send(PushPromiseFrame(1, promised_stream_id=2, data=b"", flags=["END_HEADERS"]))
        self.assert_ended(Code.PROTOCOL_ERROR)

    def test_ping_is_answered(self) -> None:
        """6.7: with the same payload, and ACK."""
        self.peer.send(PingFrame(0, opaque_data=b"abcdefgh"))
        pong = self.peer.all_frames(PingFrame)[0]
        self.assertEqual((pong.opaque_data, "ACK" in pong.flags), (b"abcdefgh", True))

    def test_an_acknowledgement_of_a_ping_is_not_answered(self) -> None:
        """6.7: an endpoint MUST NOT respond to PING frames with ACK."""
        self.peer.send(PingFrame(0, opaque_data=b"abcdefgh", flags=["ACK"]))
        self.assertEqual(self.peer.all_frames(PingFrame), [])
        self.assert_alive()

    def test_ping_on_a_stream(self) -> None:
        """6.7: a connection error of type PROTOCOL_ERROR."""
        self.peer.send(raw(6, 0, 1, b"12345678"))
        self.assert_ended(Code.PROTOCOL_ERROR)

    def test_ping_of_another_size(self) -> None:
        """6.7: a connection error of type FRAME_SIZE_ERROR."""
        self.peer.send(raw(6, 0, 0, b"1234567"))
        self.assert_ended(Code.FRAME_SIZE_ERROR)

    def test_goaway_on_a_stream(self) -> None:
        """6.8: a connection error of type PROTOCOL_ERROR."""
        self.peer.send(raw(7, 0, 1, b"\0" * 8))
        self.assert_ended(Code.PROTOCOL_ERROR)

    def test_goaway_that_is_cut_off(self) -> None:
        """4.2: FRAME_SIZE_ERROR."""
        self.peer.send(raw(7, 0, 0, b"\0" * 7))
        self.assert_ended(Code.FRAME_SIZE_ERROR)

    def test_goaway_lets_the_responses_in_flight_end(self) -> None:
        """6.8: the streams that are there go on; then the connection is closed."""
        self.peer.get(1, "/open")
        self.peer.send(GoAwayFrame(0, last_stream_id=0, error_code=0))
        self.assertFalse(self.peer.is_closed)
        self.pages.open.requests[0].write(b"late")
        self.pages.open.requests[0].finish()
        self.assertEqual(self.peer.body(1), b"late")
        self.assert_answers(1)
        self.assert_ended(Code.NO_ERROR)

    def test_goaway_without_streams_closes(self) -> None:
        """6.8"""
        self.peer.send(GoAwayFrame(0, last_stream_id=0, error_code=0))
        self.assert_ended(Code.NO_ERROR)

    def test_goaway_with_an_error_closes(self) -> None:
        """6.8"""
        self.peer.get(1, "/open")
        self.peer.send(GoAwayFrame(0, last_stream_id=0, error_code=Code.INTERNAL_ERROR))
        self.assert_ended(Code.NO_ERROR)
        self.assertEqual(len(self.pages.open.lost), 1)


class Section6SettingsTests(HTTP2TestCase):
    """6.5: SETTINGS."""

    def test_settings_are_acknowledged(self) -> None:
        """6.5.3: as soon as they are applied."""
        self.assertTrue(any("ACK" in f.flags for f in self.peer.all_frames(SettingsFrame)))

    def test_an_acknowledgement_with_a_payload(self) -> None:
        """6.5: a connection error of type FRAME_SIZE_ERROR."""
        self.peer.send(raw(4, 1, 0, b"\0\3\0\0\0\1"))
        self.assert_ended(Code.FRAME_SIZE_ERROR)

    def test_settings_on_a_stream(self) -> None:
        """6.5: a connection error of type PROTOCOL_ERROR."""
        self.peer.send(raw(4, 0, 1))
        self.assert_ended(Code.PROTOCOL_ERROR)

    def test_settings_of_another_size(self) -> None:
        """6.5: a connection error of type FRAME_SIZE_ERROR."""
        self.peer.send(raw(4, 0, 0, b"\0\3\0"))
        self.assert_ended(Code.FRAME_SIZE_ERROR)

    def assert_refuses_setting(self, setting: int, value: int, code: Code) -> None:
        peer = self.new_peer().begin()
        peer.send(raw(4, 0, 0, struct.pack(">HI", setting, value)))
        self.assert_ended(code, peer)

    def test_enable_push_is_0_or_1(self) -> None:
        """6.5.2: else a connection error of type PROTOCOL_ERROR."""
        self.assert_refuses_setting(2, 2, Code.PROTOCOL_ERROR)

    def test_initial_window_size_is_at_most_2_31_1(self) -> None:
        """6.5.2: else a connection error of type FLOW_CONTROL_ERROR."""
        self.assert_refuses_setting(4, 2**31, Code.FLOW_CONTROL_ERROR)

    def test_max_frame_size_is_between_2_14_and_2_24_1(self) -> None:
        """6.5.2: else a connection error of type PROTOCOL_ERROR."""
        self.assert_refuses_setting(5, 2**14 - 1, Code.PROTOCOL_ERROR)
        self.assert_refuses_setting(5, 2**24, Code.PROTOCOL_ERROR)

    def test_unknown_settings_are_ignored(self) -> None:
        """6.5.2: an unknown identifier MUST be ignored."""
        self.peer.send(raw(4, 0, 0, struct.pack(">HI", 0xFFFF, 1) * 100))
        self.assert_alive()

    def test_the_last_of_equal_settings_counts(self) -> None:
        """6.5.3: values are processed in the order in which they appear."""
        self.peer.send(raw(4, 0, 0, struct.pack(">HIHI", 4, 5, 4, 7)))
        self.peer.get(1, "/big/256")
        self.assertEqual(len(self.peer.body(1)), 7)

    def test_the_server_does_not_set_enable_push(self) -> None:
        """6.5.2: a server MUST NOT send it as 1; pushd does not send it."""
        self.assertNotIn(SettingsFrame.ENABLE_PUSH, self.peer.all_frames(SettingsFrame)[0].settings)

    def test_frames_are_no_longer_than_the_client_allows(self) -> None:
        """4.2, 6.5.2: SETTINGS_MAX_FRAME_SIZE."""
        self.peer.get(1, "/big/51200")
        self.assertEqual({len(f.data) for f in self.peer.all_frames(DataFrame, 1)} - {16384}, {51200 - 3 * 16384})
        peer = self.new_peer().begin({SettingsFrame.MAX_FRAME_SIZE: 40_000})
        peer.get(1, "/big/51200")
        self.assertEqual([len(f.data) for f in peer.all_frames(DataFrame, 1)], [40_000, 11_200])


class Section6FlowControlTests(HTTP2TestCase):
    """6.9: flow control, also 5.2."""

    def test_no_more_is_sent_than_the_window_of_the_stream(self) -> None:
        """6.9.1"""
        peer = self.new_peer().begin({SettingsFrame.INITIAL_WINDOW_SIZE: 100})
        peer.get(1, "/big/1024")
        self.assertEqual(len(peer.body(1)), 100)
        peer.open_window(1, 50)
        self.assertEqual(len(peer.body(1)), 150)
        peer.open_window(1, 2000)
        self.assertEqual(peer.body(1), bytes(range(256)) * 4)
        self.assert_answers(1, peer=peer)

    def test_no_more_is_sent_than_the_window_of_the_connection(self) -> None:
        """6.9.1"""
        self.peer.send(SettingsFrame(0, settings={SettingsFrame.INITIAL_WINDOW_SIZE: 10**6}))
        self.peer.get(1, "/big/102400")
        self.peer.get(3, "/big/102400")
        self.assertEqual(len(self.peer.body(1)) + len(self.peer.body(3)), 65535)
        self.peer.open_window(0, 10**6)
        self.assertEqual((len(self.peer.body(1)), len(self.peer.body(3))), (102400, 102400))

    def test_frames_without_data_need_no_window(self) -> None:
        """6.9: only DATA is flow-controlled, and an empty frame takes nothing."""
        peer = self.new_peer().begin({SettingsFrame.INITIAL_WINDOW_SIZE: 0})
        peer.get(1, "/status/204")
        self.assert_answers(1, 204, peer)
        peer.get(3, "/open")
        self.pages.open.requests[0].finish()
        self.assert_answers(3, peer=peer)

    def test_a_larger_initial_window_opens_the_streams_that_are_there(self) -> None:
        """6.9.2: an endpoint MUST adjust the windows of all streams by the difference."""
        peer = self.new_peer().begin({SettingsFrame.INITIAL_WINDOW_SIZE: 0})
        peer.get(1, "/big/1024")
        self.assertEqual(peer.body(1), b"")
        peer.send(SettingsFrame(0, settings={SettingsFrame.INITIAL_WINDOW_SIZE: 1}))
        self.assertEqual(len(peer.body(1)), 1)
        peer.send(SettingsFrame(0, settings={SettingsFrame.INITIAL_WINDOW_SIZE: 2000}))
        self.assertEqual(len(peer.body(1)), 1024)

    def test_a_window_can_be_negative(self) -> None:
        """6.9.2: a sender MUST track the negative window and not send until it is positive."""
        peer = self.new_peer().begin({SettingsFrame.INITIAL_WINDOW_SIZE: 100})
        peer.get(1, "/big/1024")
        self.assertEqual(len(peer.body(1)), 100)
        peer.send(SettingsFrame(0, settings={SettingsFrame.INITIAL_WINDOW_SIZE: 40}))
        peer.open_window(1, 60)
        self.assertEqual(len(peer.body(1)), 100)
        peer.open_window(1, 1)
        self.assertEqual(len(peer.body(1)), 101)
        peer.open_window(1, 5000)
        self.assertEqual(peer.body(1), bytes(range(256)) * 4)

    def test_window_update_by_0_on_a_stream(self) -> None:
        """6.9: a stream error of type PROTOCOL_ERROR."""
        self.peer.get(1, "/open")
        self.peer.send(raw(8, 0, 1, b"\0\0\0\0"))
        self.assert_reset(1, Code.PROTOCOL_ERROR)

    def test_window_update_by_0_on_the_connection(self) -> None:
        """6.9: a connection error of type PROTOCOL_ERROR."""
        self.peer.send(raw(8, 0, 0, b"\0\0\0\0"))
        self.assert_ended(Code.PROTOCOL_ERROR)

    def test_window_update_of_another_size(self) -> None:
        """6.9: a connection error of type FRAME_SIZE_ERROR."""
        self.peer.send(raw(8, 0, 0, b"\0\0\1"))
        self.assert_ended(Code.FRAME_SIZE_ERROR)

    def test_a_stream_window_that_is_too_large(self) -> None:
        """6.9.1: a stream error of type FLOW_CONTROL_ERROR."""
        self.peer.get(1, "/open")
        self.peer.open_window(1, 2**31 - 1)
        self.assert_reset(1, Code.FLOW_CONTROL_ERROR)

    def test_a_connection_window_that_is_too_large(self) -> None:
        """6.9.1: a connection error of type FLOW_CONTROL_ERROR."""
        self.peer.open_window(0, 2**31 - 1)
        self.assert_ended(Code.FLOW_CONTROL_ERROR)

    def test_an_initial_window_that_makes_a_stream_window_too_large(self) -> None:
        """6.9.2: a connection error of type FLOW_CONTROL_ERROR."""
        self.peer.get(1, "/open")
        self.peer.open_window(1, 2**31 - 1 - 65535)
        self.peer.send(SettingsFrame(0, settings={SettingsFrame.INITIAL_WINDOW_SIZE: 65536}))
        self.assert_ended(Code.FLOW_CONTROL_ERROR)

    def test_more_data_than_the_window_of_the_stream(self) -> None:
        """6.9.1: a receiver MAY respond with FLOW_CONTROL_ERROR."""
        self.peer.send(self.peer.headers(1, method="POST", end=False))
        self.peer.connection.codec.grant = lambda stream_id, window: None  # type: ignore[method-assign]
        self.peer.connection._bodies._grant = lambda stream_id, window: None
        for _ in range(5):
            self.peer.data(1, b"x" * 16384)
        self.assert_reset(1, Code.FLOW_CONTROL_ERROR)

    def test_windows_are_opened_as_bodies_come(self) -> None:
        """5.2.2, 6.9"""
        self.peer.send(self.peer.headers(1, method="POST", end=False))
        for _ in range(6):
            self.peer.data(1, b"x" * 16000)
        self.assertGreater(sum(f.window_increment for f in self.peer.all_frames(WindowUpdateFrame, 1)), 65535)
        self.peer.open_window(1, 10**6)
        self.peer.open_window(0, 10**6)
        self.peer.data(1, b"", end=True)
        self.assert_answers(1)


class Section8Tests(HTTP2TestCase):
    """Expressing HTTP semantics."""

    def assert_malformed(self, *fields: tuple[str | bytes, str | bytes], end: bool = True) -> None:
        """8.1.1: a stream error of type PROTOCOL_ERROR, and the connection goes on."""
        peer = self.new_peer().begin()
        peer.send(peer.block(1, fields, end=end))
        self.assert_reset(1, Code.PROTOCOL_ERROR, peer)
        self.assertEqual(peer.connection.streams, {})

    def request(self, *fields: tuple[str | bytes, str | bytes]) -> list[tuple[str | bytes, str | bytes]]:
        return [(":method", "GET"), (":scheme", "https"), (":authority", "localhost"), (":path", "/"), *fields]

    def test_a_response_ends_its_stream(self) -> None:
        """8.1: HEADERS, DATA, and END_STREAM on the last of them."""
        self.peer.get(1)
        self.assert_answers(1)
        self.assertEqual(self.peer.body(1), b"GET /echo")

    def test_a_response_without_a_body_is_one_frame(self) -> None:
        """8.1: HEADERS with END_STREAM, for HEAD, 204 and 304."""
        self.peer.get(1, "/echo", method="HEAD")
        self.peer.get(3, "/status/204")
        self.peer.get(5, "/status/304")
        for stream_id, status in (1, 200), (3, 204), (5, 304):
            self.assert_answers(stream_id, status)
            self.assertEqual(self.peer.all_frames(DataFrame, stream_id), [])
        self.assertEqual(self.peer.fields(1)["content-length"], "10")
        self.assertNotIn("content-length", self.peer.fields(3))

    def test_trailers_are_taken(self) -> None:
        """8.1: a request may end with trailers."""
        self.peer.post(1, b"abc", end=False)
        self.peer.send(self.peer.block(1, [("x-checksum", "1")]))
        self.assert_answers(1)
        self.assertEqual(self.peer.body(1), b"abc")

    def test_trailers_that_do_not_end_the_stream(self) -> None:
        """8.1: malformed."""
        self.peer.post(1, b"abc", end=False)
        self.peer.send(self.peer.block(1, [("x-checksum", "1")], end=False))
        self.assert_reset(1, Code.PROTOCOL_ERROR)

    def test_trailers_with_pseudo_header_fields(self) -> None:
        """8.1: malformed."""
        self.peer.post(1, b"abc", end=False)
        self.peer.send(self.peer.block(1, [(":method", "GET")]))
        self.assert_reset(1, Code.PROTOCOL_ERROR)

    def test_a_body_that_is_not_as_long_as_content_length(self) -> None:
        """8.1.1: malformed."""
        self.peer.post(1, b"abcd", fields=[("content-length", "3")])
        self.peer.post(3, b"ab", fields=[("content-length", "3")])
        self.peer.get(5, fields=[("content-length", "3")])
        self.peer.get(7, fields=[("content-length", "0")])
        self.peer.post(9, b"ab", b"c", fields=[("content-length", "3")])
        for stream_id in 1, 3, 5:
            self.assert_reset(stream_id, Code.PROTOCOL_ERROR)
        self.assert_answers(7)
        self.assert_answers(9)

    def test_a_content_length_that_is_none(self) -> None:
        """8.1.1: malformed."""
        for value in "x", "-1", "1_0", "+1", "", "9" * 30:
            self.assert_malformed(*self.request(("content-length", value)), end=False)
        self.assert_malformed(*self.request(("content-length", "1"), ("content-length", "2")), end=False)

    def test_names_with_upper_case(self) -> None:
        """8.2.1: malformed."""
        self.assert_malformed(*self.request(("X-Name", "x")))

    def test_names_with_characters_that_no_name_has(self) -> None:
        """8.2.1: malformed."""
        for name in b"", b"a b", b"a\0", b"a\r", b"a:b", b"\xe4", b"a\x7f":
            self.assert_malformed(*self.request((name, b"x")))

    def test_values_with_characters_that_no_value_has(self) -> None:
        """8.2.1: malformed: NUL, CR, LF, or space at either end."""
        for value in b"a\0b", b"a\rb", b"a\nb", b" a", b"a ", b"\ta", b"a\t":
            self.assert_malformed(*self.request((b"x", value)))

    def test_values_with_other_characters(self) -> None:
        """8.2.1: anything else is valid."""
        self.peer.get(1, "/headers", fields=[("x", "a b\t c"), ("y", ""), ("z", "ü")])
        self.assertIn(b"(b'x', b'a b\\t c')", self.peer.body(1))

    def test_connection_specific_fields(self) -> None:
        """8.2.2: malformed."""
        for name in "connection", "proxy-connection", "keep-alive", "transfer-encoding", "upgrade":
            self.assert_malformed(*self.request((name, "x")))

    def test_te_says_only_trailers(self) -> None:
        """8.2.2: TE MUST NOT contain any value other than "trailers"."""
        self.assert_malformed(*self.request(("te", "gzip")))
        self.peer.get(1, fields=[("te", "trailers")])
        self.assert_answers(1)

    def test_responses_have_no_connection_specific_fields(self) -> None:
        """8.2.2, 8.2.1: nor names with upper case, nor values with space at either end."""
        self.peer.get(1, "/headers")
        fields = self.peer.fields(1)
        gone = {"connection", "proxy-connection", "keep-alive", "transfer-encoding", "upgrade"}
        self.assertEqual(gone & fields.keys(), set())
        self.assertEqual(fields["x-mixed-case"], "spaced")
        self.assertEqual([name for name in fields if name != name.lower()], [])

    def test_crumbs_of_cookies_are_joined(self) -> None:
        """8.2.3: with "; ", before they are passed on."""
        self.peer.get(1, "/headers", fields=[("cookie", "a=1"), ("cookie", "b=2")])
        self.assertIn(b"(b'cookie', b'a=1; b=2')", self.peer.body(1))

    def test_unknown_pseudo_header_fields(self) -> None:
        """8.3: malformed."""
        self.assert_malformed((":x", "y"), *self.request())
        self.assert_malformed((":status", "200"), *self.request())

    def test_pseudo_header_fields_twice(self) -> None:
        """8.3: malformed."""
        for field in self.request():
            self.assert_malformed(field, *self.request())

    def test_pseudo_header_fields_after_others(self) -> None:
        """8.3: malformed."""
        self.assert_malformed(*self.request()[:3], ("x", "y"), (":path", "/"))

    def test_pseudo_header_fields_that_are_missing(self) -> None:
        """8.3.1: all requests MUST include :method, :scheme and :path."""
        for missing in 0, 1, 3:
            fields = self.request()
            del fields[missing]
            self.assert_malformed(*fields)

    def test_paths_that_are_none(self) -> None:
        """8.3.1: :path MUST NOT be empty, and begins with a slash."""
        for path in "", "x", "*", "http://localhost/", "/a b", "/\u00e4":
            fields = self.request()
            fields[3] = (":path", path)
            self.assert_malformed(*fields)

    def test_asterisk_for_options(self) -> None:
        """8.3.1: "*" is the path of an OPTIONS request for the whole server."""
        self.peer.send(
            self.peer.block(1, [(":method", "OPTIONS"), (":scheme", "https"), (":authority", "x"), (":path", "*")])
        )
        self.assert_answers(1)

    def test_authorities_that_are_none(self) -> None:
        """8.3.1: no userinfo, and not empty."""
        for authority in "", "user@localhost", "a b":
            fields = self.request()
            fields[2] = (":authority", authority)
            self.assert_malformed(*fields)

    def test_authority_is_the_host(self) -> None:
        """8.3.1"""
        self.peer.get(1, "/headers")
        self.assertIn(b"(b'host', b'localhost')", self.peer.body(1))

    def test_a_host_instead_of_an_authority(self) -> None:
        """8.3.1: for a request that was translated from HTTP/1.1."""
        fields = [(":method", "GET"), (":scheme", "https"), (":path", "/headers"), ("host", "localhost")]
        self.peer.send(self.peer.block(1, fields))
        self.assertIn(b"(b'host', b'localhost')", self.peer.body(1))

    def test_a_host_that_is_not_the_authority(self) -> None:
        """8.3.1: SHOULD be treated as malformed."""
        self.assert_malformed(*self.request(("host", "elsewhere")))
        self.peer.get(1, "/headers", fields=[("host", "localhost")])
        self.assertEqual(self.peer.body(1).count(b"b'host'"), 1)

    def test_connect_without_an_authority_or_with_a_path(self) -> None:
        """8.5: malformed."""
        self.assert_malformed((":method", "CONNECT"))
        self.assert_malformed((":method", "CONNECT"), (":authority", "x:1"), (":path", "/"))
        self.assert_malformed((":method", "CONNECT"), (":authority", "x:1"), (":scheme", "https"))
        self.assert_malformed((":method", "CONNECT"), (":authority", "x:1"), (":protocol", "websocket"))

    def test_connect_is_answered_that_it_is_not_served(self) -> None:
        """8.5, RFC 9110, section 9.3.6."""
        self.peer.send(self.peer.block(1, [(":method", "CONNECT"), (":authority", "x:1")], end=False))
        self.assertEqual(self.peer.status(1), 405)
        self.assert_reset(1, Code.NO_ERROR)

    def test_a_response_before_the_end_of_its_request(self) -> None:
        """8.1: complete, and then RST_STREAM with NO_ERROR."""
        self.peer.post(1, fields=[("content-length", str(MAX_BODY + 1))])
        self.peer.data(1, b"x" * 100)
        self.assert_answers(1, 413)
        self.assertEqual(self.peer.resets(1), [])
        self.assert_reset(1, Code.NO_ERROR)

    def test_the_end_of_a_request_that_was_answered_before_it(self) -> None:
        """8.1: then there is nothing to reset."""
        self.peer.post(1, fields=[("content-length", str(MAX_BODY + 1))])
        self.assert_answers(1, 413)
        self.peer.data(1, b"x", end=True)
        self.peer.pass_time(1)
        self.assertEqual(self.peer.resets(1), [])
        self.assert_alive()

    def test_100_continue(self) -> None:
        """8.1, RFC 9110, section 10.1.1."""
        self.peer.post(1, fields=[("expect", "100-continue"), ("content-length", "3")])
        first = self.peer.all_frames(HeadersFrame, 1)[0]
        self.assertEqual((first.fields[":status"], "END_STREAM" in first.flags), ("100", False))
        self.peer.data(1, b"abc", end=True)
        self.assert_answers(1)

    def test_no_100_for_a_body_that_is_refused(self) -> None:
        """RFC 9110, section 10.1.1."""
        self.peer.post(1, fields=[("expect", "100-continue"), ("content-length", str(MAX_BODY + 1))])
        self.assertEqual([f.fields[":status"] for f in self.peer.all_frames(HeadersFrame, 1)], ["413"])


class Section10Tests(HTTP2TestCase):
    """Security considerations; the floods are in ``tests/component/server/test_http2_floods.py``."""

    def test_a_header_section_over_the_limit(self) -> None:
        """10.5.1: a server MAY send 431."""
        self.peer.get(1, fields=[(f"x-{n}", "y" * 1000) for n in range(17)])
        self.assert_answers(1, 431)
        self.peer.get(3)
        self.assert_answers(3)
        self.peer.get(5, method="HEAD", fields=[(f"x-{n}", "y" * 1000) for n in range(17)])
        self.assert_answers(5, 431)
        self.assertEqual(self.peer.body(5), b"")

    def test_a_header_section_far_over_the_limit(self) -> None:
        """10.5.1"""
        self.peer.get(1, fields=[("x", "y" * 3000)] + [("x", "y" * 3000)] * 30)
        self.assert_ended(Code.ENHANCE_YOUR_CALM)
