"""HPACK (RFC 7541), as far as a server can show it."""

from __future__ import annotations

from hpack import Decoder, HPACKError
from hyperframe.frame import HeadersFrame, SettingsFrame
from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from pushd.server.http2.errors import Code, ConnectionFault
from pushd.server.http2.hpack_decoder import BlockDecoder
from pushd.server.http2.hpack_encoder import FieldEncoder
from tests.rigs.http2_peer import HTTP2TestCase

REQUEST = b"\x82\x87\x84\x41\x09localhost"
"""GET, https, /, and localhost as a field that is added to the table; the last by `headers`."""


class DecodingTests(HTTP2TestCase):
    def send(self, stream_id: int, block: bytes) -> None:
        self.peer.send(HeadersFrame(stream_id, data=block, flags=["END_HEADERS", "END_STREAM"]))

    def assert_decodes(self, block: bytes, expected: bytes) -> None:
        """The field after a good request is what `expected` shows."""
        peer = self.peer = self.new_peer().begin()
        prefix = b"\x82\x87\x44\x08/headers\x01\x09localhost"
        self.send(1, prefix + block)
        self.assertIn(expected, peer.body(1))

    def assert_refuses(self, block: bytes) -> None:
        """2.x, 3.x, 5.x, 6.x: a decoding error, which RFC 9113, section 4.3, makes COMPRESSION_ERROR."""
        self.peer = self.new_peer().begin()
        self.send(1, block)
        self.assert_ended(Code.COMPRESSION_ERROR)

    def test_fields_of_the_static_table(self) -> None:
        """2.3.1, 6.1"""
        self.assert_decodes(b"\x90", b"(b'accept-encoding', b'gzip, deflate')")

    def test_fields_are_added_to_the_dynamic_table_at_its_front(self) -> None:
        """2.3.2, 2.3.3: the newest has the lowest index, 62."""
        self.peer.get(1, fields=[("x-a", "1")])
        self.send(3, b"\x82\x87\x44\x08/headers\x41\x09localhost\x40\x03x-b\x012")
        self.send(5, b"\x82\x87\x04\x08/headers\xbf\xbe")
        self.assertIn(b"(b'x-b', b'2')", self.peer.body(5))
        self.assertIn(b"(b'host', b'localhost')", self.peer.body(5))

    def test_the_same_block_again_after_the_table_has_changed(self) -> None:
        """2.3.3: an index means what the table says now."""
        prefix = b"\x82\x87\x04\x08/headers\x01\x09localhost"
        self.send(1, prefix + b"\x40\x03x-a\x011")
        self.send(3, prefix + b"\xbe")
        self.send(5, prefix + b"\xbe")
        self.send(7, prefix + b"\x40\x03x-b\x012")
        self.send(9, prefix + b"\xbe")
        self.send(11, prefix + b"\xbf")
        for stream_id, name in (3, b"x-a"), (5, b"x-a"), (9, b"x-b"), (11, b"x-a"):
            self.assertIn(name, self.peer.body(stream_id))

    def test_an_index_that_is_not_in_the_tables(self) -> None:
        """2.3.3: MUST be treated as a decoding error."""
        self.assert_refuses(b"\xbe")
        self.assert_refuses(b"\xff\x80\x80\x04")

    def test_the_index_0(self) -> None:
        """6.1: MUST be treated as a decoding error."""
        self.assert_refuses(b"\x80")

    def test_the_order_of_fields_is_kept(self) -> None:
        """3.2"""
        self.assert_decodes(b"\x00\x01x\x011\x00\x01x\x012", b"(b'x', b'1'), (b'x', b'2')")

    def test_a_size_update_at_the_beginning(self) -> None:
        """4.2, 6.3: also two of them."""
        self.send(1, b"\x20\x3f\xe1\x1f\x82\x87\x84\x41\x09localhost")
        self.assertEqual(self.peer.status(1), 404)

    def test_a_size_update_after_a_field(self) -> None:
        """4.2: MUST occur at the beginning of the first header block."""
        self.assert_refuses(b"\x82\x20\x87\x84\x41\x09localhost")

    def test_a_size_update_over_the_limit(self) -> None:
        """6.3: more than SETTINGS_HEADER_TABLE_SIZE is a decoding error."""
        self.assert_refuses(b"\x3f\xe2\x1f\x82\x87\x84\x41\x09localhost")

    def test_a_size_update_empties_the_table(self) -> None:
        """4.3: entries are evicted until it fits."""
        self.peer.get(1, fields=[("x-a", "1")])
        self.send(3, b"\x20\x82\x87\x84\xbe")
        self.assert_ended(Code.COMPRESSION_ERROR)

    def test_a_field_larger_than_the_table_empties_it(self) -> None:
        """4.4: and is no error."""
        self.send(1, b"\x82\x87\x84\x41\x09localhost\x40\x01x\x7f\xa1\x1f" + b"y" * 4128)
        self.assertEqual(self.peer.status(1), 404)
        self.send(3, b"\x82\x87\x84\xbe")
        self.assert_ended(Code.COMPRESSION_ERROR)

    def test_an_integer_that_is_cut_off(self) -> None:
        """5.1"""
        self.assert_refuses(b"\xff\x80")
        self.assert_refuses(b"\x00\x01x\x7f\x80")

    def test_an_integer_without_end(self) -> None:
        """5.1: too large values MUST be treated as decoding errors."""
        self.assert_refuses(b"\xff" + b"\x80" * 1000 + b"\x01")
        self.assert_refuses(b"\xff" + b"\xff" * 1000 + b"\x01")

    def test_a_string_that_is_cut_off(self) -> None:
        """5.2"""
        self.assert_refuses(b"\x00\x05x")
        self.assert_refuses(b"\x00\x01x\x05ab")
        self.assert_refuses(b"\x00")

    def test_huffman(self) -> None:
        """5.2, appendix B: "no-cache" from appendix C.4.2."""
        self.assert_decodes(b"\x58\x86\xa8\xeb\x10\x64\x9c\xbf", b"(b'cache-control', b'no-cache')")

    def test_huffman_with_more_than_7_bits_of_padding(self) -> None:
        """5.2: MUST be treated as a decoding error."""
        self.assert_refuses(b"\x58\x87\xa8\xeb\x10\x64\x9c\xbf\xff")

    def test_huffman_with_padding_that_is_not_the_end_of_string(self) -> None:
        """5.2: MUST be treated as a decoding error."""
        self.assert_refuses(b"\x00\x81\x1c\x011")

    def test_huffman_with_the_end_of_string(self) -> None:
        """5.2: MUST be treated as a decoding error."""
        self.assert_refuses(b"\x00\x84\xff\xff\xff\xff\x011")

    def test_literals_of_all_three_kinds(self) -> None:
        """6.2.1 to 6.2.3"""
        for first in b"\x40", b"\x00", b"\x10":
            self.assert_decodes(first + b"\x03x-a\x03abc", b"(b'x-a', b'abc')")

    def test_literals_with_a_name_of_the_table(self) -> None:
        """6.2"""
        for first in b"\x5a", b"\x0f\x0b", b"\x1f\x0b":
            self.assert_decodes(first + b"\x03abc", b"(b'content-encoding', b'abc')")


class EncodingTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.encoder = FieldEncoder()

    @given(st.lists(st.tuples(st.binary(min_size=1, max_size=300), st.binary(max_size=300))))
    def test_whatever_is_encoded_can_be_decoded(self, fields: list[tuple[bytes, bytes]]) -> None:
        """6"""
        forbidden = {b"connection", b"proxy-connection", b"keep-alive", b"transfer-encoding", b"upgrade"}
        expected = [(n.lower(), v.strip(b" \t")) for n, v in fields if n.lower() not in forbidden]
        decoder = Decoder(max_header_list_size=10**9)
        self.assertEqual(
            [tuple(field) for field in decoder.decode(self.encoder.fields(fields), raw=True)], expected
        )
        self.assertEqual(len(decoder.header_table.dynamic_entries), 0)

    def test_a_field_of_the_static_table_is_one_octet(self) -> None:
        """6.1"""
        self.assertEqual(self.encoder.fields([(b":status", b"200")]), b"\x88")

    def test_what_is_secret_is_never_indexed(self) -> None:
        """7.1.3: also by those who pass it on."""
        self.assertEqual(self.encoder.fields([(b"Set-Cookie", b"a=1")]), b"\x1f\x28\x03a=1")

    def test_what_is_kept_is_bounded(self) -> None:
        for n in range(10_000):
            self.encoder.fields([(b"etag", b"%d" % n)])
        self.encoder.fields([(b"etag", b"x" * 1000)])
        self.assertLessEqual(len(self.encoder), 4096)
        self.assertNotIn((b"etag", b"x" * 1000), self.encoder)

    def test_what_hardly_comes_twice_is_not_kept(self) -> None:
        self.encoder.fields([(b"cache-control", b"no-store"), (b"event-id", b"a-1"), (b"Location", b"/a")])
        self.encoder.fields([(b"Sec-WebSocket-Accept", b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo=")])
        self.encoder.promise(b"localhost", b"/a", [], is_secure=True)
        kept = {b"cache-control", b":method", b":scheme", b":authority"}
        self.assertEqual({name for name, _ in self.encoder}, kept)


class TableSizeTests(HTTP2TestCase):
    def test_the_first_block_says_that_there_is_no_table(self) -> None:
        """4.2, 6.3"""
        self.peer.get(1)
        first = self.peer.all_frames(HeadersFrame, 1)[0]
        self.assertEqual(first.data[:2], b"\x20\x88")
        self.peer.get(3)
        self.assertEqual(self.peer.all_frames(HeadersFrame, 3)[0].data[:1], b"\x88")

    def test_a_client_that_changes_its_table_is_answered(self) -> None:
        """4.2: a change MUST be said at the beginning of the next block."""
        self.peer.get(1)
        self.peer.frames()
        self.peer.send(SettingsFrame(0, settings={SettingsFrame.HEADER_TABLE_SIZE: 0}))
        self.peer.get(3)
        self.assertEqual(self.peer.all_frames(HeadersFrame, 3)[0].data[:2], b"\x20\x88")


class RememberingTests(SynchronousTestCase):
    @given(
        st.lists(
            st.sampled_from([b"\x82", b"\xbe", b"\xbf", b"\x40\x01a\x011", b"\x40\x01b\x012", b"\x20\x3f\x45"])
        )
    )
    def test_what_is_remembered_is_what_would_be_decoded(self, blocks: list[bytes]) -> None:
        """Whatever the table: the same blocks with and without memory."""
        decoder, plain = BlockDecoder(Decoder(), 10**6), Decoder()
        for block in blocks:
            try:
                expected = tuple((n, v) for n, v in plain.decode(block, raw=True))
            except HPACKError:
                self.assertRaises(ConnectionFault, decoder.fields, block)
                return
            self.assertEqual(decoder.fields(block), expected)
