"""What a client of HTTP/2 makes a connection remember: a bounded amount, whatever it sends."""

from __future__ import annotations

import gc
import tracemalloc
from collections.abc import Callable

from hpack import Decoder, Encoder
from hyperframe.frame import PingFrame, PriorityFrame, RstStreamFrame, SettingsFrame
from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from pushd.server.http2.errors import Malformed
from pushd.server.http2.hpack_decoder import BlockDecoder, Memory
from tests.rigs.http2_peer import HTTP2TestCase, Peer

PSEUDO = [(b":method", b"GET"), (b":scheme", b"https"), (b":authority", b"localhost")]
GET = b"\x82"
"""``:method: GET``, by its index in the static table."""


def a_request(path: str, *fields: tuple[bytes, bytes]) -> bytes:
    """Make the block of a request that leaves the dynamic table as it is."""
    block: bytes = Encoder().encode([(name, value, True) for name, value in (*PSEUDO, (b":path", path.encode()))])
    rest: bytes = Encoder().encode([(name, value, True) for name, value in fields])
    return block + rest


class MemoryTests(SynchronousTestCase):
    """What is remembered of header blocks."""

    def new_decoder(self, memory: Memory | None = None) -> BlockDecoder:
        return BlockDecoder(Decoder(), 1 << 16, memory=memory)

    def read(self, decoder: BlockDecoder, block: bytes) -> None:
        decoder.head(block, decoder.fields(block))

    def test_the_block_of_a_request_is_remembered(self) -> None:
        decoder, block = self.new_decoder(), a_request("/sse?channel=news")
        self.read(decoder, block)
        self.assertIs(decoder.fields(block), decoder.fields(block))
        self.assertIs(decoder.head(block, ()), decoder.head(block, ()))

    def test_a_large_block_is_not(self) -> None:
        decoder = self.new_decoder()
        self.read(decoder, a_request("/", *((b"accept", b"x") for _ in range(100))))
        self.assertEqual(decoder.remembered_bytes, 0)

    def test_a_block_that_is_refused_is_not(self) -> None:
        decoder = self.new_decoder()
        for block in GET, a_request("no path"), a_request("/", (b"connection", b"close")), GET * 1500:
            fields = decoder.fields(block)
            self.assertRaises(Malformed, decoder.head, block, fields)
        self.assertEqual(decoder.remembered_bytes, 0)

    @given(st.lists(st.tuples(st.integers(0, 60), st.integers(0, 3000)), max_size=60))
    def test_one_connection_remembers_a_bounded_amount(self, requests: list[tuple[int, int]]) -> None:
        memory = Memory()
        decoder = self.new_decoder(memory)
        for count, length in requests:
            self.read(decoder, a_request("/" + "x" * length, *((b"accept", b"y") for _ in range(count))))
            self.assertLessEqual(decoder.remembered_bytes, 32 * 1024)
            self.assertEqual(memory.used, decoder.remembered_bytes)
        decoder.forget()
        self.assertEqual(memory.used, 0)

    def test_all_connections_remember_a_bounded_amount_and_work_beyond_it(self) -> None:
        memory = Memory(10_000)
        decoders = [self.new_decoder(memory) for _ in range(100)]
        for number, decoder in enumerate(decoders):
            block = a_request(f"/{number}")
            self.read(decoder, block)
            self.assertEqual(decoder.head(block, decoder.fields(block)).path, b"/%d" % number)
            self.assertLessEqual(memory.used, 10_000)
        self.assertGreater(memory.used, 8_000)
        for decoder in decoders:
            decoder.forget()
        self.assertEqual(memory.used, 0)

    def test_a_change_of_the_dynamic_table_makes_it_forget(self) -> None:
        memory = Memory()
        decoder, block = self.new_decoder(memory), a_request("/")
        self.read(decoder, block)
        decoder.fields(Encoder().encode([(b"x-new", b"1")]))
        self.assertEqual((memory.used, decoder.remembered_bytes), (0, 0))


class HeldTests(HTTP2TestCase):
    """Bytes that one connection holds after a flood, of whatever its limits let through."""

    def held(self, flood: Callable[[Peer], None]) -> int:
        """Return how much memory one connection holds after `flood`, over a connection that had none."""
        flood(self.new_peer().begin())  # what is cached once for all connections
        tracemalloc.start()
        try:
            peer = self.new_peer().begin()
            peer.frames()
            before = tracemalloc.get_traced_memory()[0]
            flood(peer)
            peer.frames()
            peer.seen.clear()
            peer.transport.writes.clear()
            peer.pass_time(1)
            gc.collect()
            return tracemalloc.get_traced_memory()[0] - before
        finally:
            tracemalloc.stop()

    def test_32_blocks_of_1850_fields(self) -> None:
        def flood(peer: Peer) -> None:
            for number in range(32):
                block = GET * (1500 + number)
                frame = peer.block(2 * number + 1, [])
                frame.data = block
                peer.send(frame)

        self.assertLess(self.held(flood), 100_000)

    def test_different_requests(self) -> None:
        def flood(peer: Peer) -> None:
            for number in range(100):
                frame = peer.block(2 * number + 1, [])
                frame.data = a_request(f"/status/404?{number}" + "x" * 1000)
                peer.send(frame)

        self.assertLess(self.held(flood), 100_000)

    def test_entries_of_the_dynamic_table(self) -> None:
        def flood(peer: Peer) -> None:
            for number in range(200):
                peer.get(2 * number + 1, "/status/404", fields=[(f"x-{number}-{at}", "") for at in range(50)])

        self.assertLess(self.held(flood), 150_000)

    def test_settings_that_change_the_size_of_a_table(self) -> None:
        def flood(peer: Peer) -> None:
            for _ in range(100):
                peer.pass_time(2)
                peer.send(*(SettingsFrame(0, settings={1: size}) for size in range(1, 20)))

        self.assertLess(self.held(flood), 20_000)

    def test_streams_that_are_over(self) -> None:
        def flood(peer: Peer) -> None:
            for number in range(1500):
                if number % 10 == 0:
                    peer.get(2 * number + 1, "/open")
                    peer.send(RstStreamFrame(2 * number + 1, error_code=8))
                else:
                    peer.get(2 * number + 1, "/status/204")
                if number % 100 == 0:
                    peer.frames()
                    peer.seen.clear()
                    self.pages.open.requests.clear()
                    self.pages.open.lost.clear()

        self.assertLess(self.held(flood), 300_000)

    def test_frames_about_streams_that_do_not_exist(self) -> None:
        def flood(peer: Peer) -> None:
            peer.send(*(PriorityFrame(2 * number + 1, depends_on=0, stream_weight=1) for number in range(1000)))
            peer.send(*(PingFrame(0, opaque_data=b"12345678") for _ in range(200)))

        self.assertLess(self.held(flood), 20_000)
