"""The life of an HTTP/2 connection: time-outs, stalls, the end; and what it does with Twisted's transports."""

from __future__ import annotations

from collections.abc import Callable

from hyperframe.frame import (
    ContinuationFrame,
    DataFrame,
    GoAwayFrame,
    HeadersFrame,
    PingFrame,
    SettingsFrame,
    WindowUpdateFrame,
)
from twisted.internet.interfaces import IPushProducer
from zope.interface import implementer
from zope.interface.verify import verifyObject

from pushd.bus.memory_headroom import memory
from pushd.server.http2.errors import Code
from pushd.server.request import Request
from tests.rigs.http2_peer import PREFACE, HTTP2TestCase, Peer
from tests.rigs.producers import Producer


class ReadingTests(HTTP2TestCase):
    def test_frames_cut_at_every_byte(self) -> None:
        """However the bytes are cut, what they say is the same."""
        whole = self.new_peer()
        said = b"".join(
            frame if isinstance(frame, bytes) else frame.serialize()
            for frame in (
                PREFACE,
                SettingsFrame(0, settings={3: 5}),
                whole.headers(1),
                whole.headers(3, method="POST", end=False),
                DataFrame(3, b"abc", flags=["END_STREAM"]),
                WindowUpdateFrame(0, window_increment=5),
                PingFrame(0, opaque_data=b"12345678"),
            )
        )
        for cut in range(1, len(said)):
            peer = self.new_peer()
            peer.send(said[:cut])
            peer.send(said[cut:])
            self.assertEqual((peer.body(1), peer.body(3)), (b"GET /echo", b"abc"), cut)
        peer = self.new_peer()
        for at in range(len(said)):
            peer.send(said[at : at + 1])
        self.assertEqual((peer.body(1), peer.body(3)), (b"GET /echo", b"abc"))

    def test_a_connection_that_is_lost_at_every_byte(self) -> None:
        """No exception comes out of it."""
        for cut in range(120):
            peer = self.new_peer()
            said = b"".join(
                f if isinstance(f, bytes) else f.serialize()
                for f in (
                    PREFACE,
                    SettingsFrame(0),
                    peer.headers(1, "/open"),
                    peer.headers(3, method="POST", end=False),
                )
            )
            peer.send(said[:cut])
            peer.lose()
            self.assertEqual(len(self.site.connections), 1)
        self.assertEqual(self.pages.open.lost, self.pages.open.requests)

    def test_noise_ends_the_connection_and_nothing_else(self) -> None:
        for seed in range(300):
            peer = self.new_peer()
            noise = bytes((seed * 7 + at * at * (seed | 1) + (at >> 3)) & 255 for at in range(200))
            peer.send(PREFACE, SettingsFrame(0), noise[: 9 + seed % 3], noise)
        self.assert_alive()

    def test_what_comes_after_the_end_is_not_read(self) -> None:
        self.peer.send(b"\0\0\0\6\0\0\0\0\1", self.peer.headers(1, "/open"))
        self.peer.get(3, "/open")
        self.assertEqual(self.pages.open.requests, [])
        self.assertEqual(len(self.peer.goaways()), 1)

    def test_data_for_a_response_that_is_complete(self) -> None:
        """The request was answered before its end; what still comes is ignored (RFC 9113, section 8.1)."""
        self.peer.post(1, fields=[("content-length", "1000000")])
        for _ in range(3):
            self.peer.data(1, b"x" * 100)
        self.assert_answers(1, 413)
        self.assert_reset(1, Code.NO_ERROR)

    def test_a_fault_of_a_page_is_answered_with_500(self) -> None:
        self.peer.get(1, "/boom")
        self.assert_answers(1, 500)
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)
        self.assert_alive()

    def test_a_fault_of_pushd_ends_the_connection_and_is_logged(self) -> None:
        self.peer.connection._begin = None  # type: ignore[method-assign,assignment]
        self.peer.get(1)
        self.assert_ended(Code.INTERNAL_ERROR)
        self.assertEqual(len(self.flushLoggedErrors(TypeError)), 1)


class WritingTests(HTTP2TestCase):
    def test_what_is_written_in_one_turn_is_one_write(self) -> None:
        self.peer.send(*(self.peer.headers(n, "/open") for n in range(1, 200, 2)))
        self.peer.turn()
        for request in self.pages.open.requests:
            request.write(b"first")
        self.peer.turn()
        before = len(self.peer.transport.writes)
        for request in self.pages.open.requests:
            request.write(b"event")
            request.write(b"s")
        self.assertEqual(len(self.peer.transport.writes), before)
        self.peer.turn()
        self.assertEqual(len(self.peer.transport.writes), before + 1)
        self.assertEqual({self.peer.body(n) for n in range(1, 200, 2)}, {b"firstevents"})

    def test_requests_that_come_together_are_answered_together(self) -> None:
        before = len(self.peer.transport.writes)
        self.peer.send(*(self.peer.headers(n) for n in range(1, 21, 2)))
        self.assertEqual(len(self.peer.transport.writes), before + 1)

    def test_small_writes_are_joined_to_one_frame(self) -> None:
        self.peer.get(1, "/open")
        for _ in range(100):
            self.pages.open.requests[0].write(b"x")
        self.assertEqual([f.data for f in self.peer.all_frames(DataFrame, 1)], [b"x" * 100])

    def test_a_large_body_arrives_whole(self) -> None:
        peer = self.new_peer().begin({SettingsFrame.INITIAL_WINDOW_SIZE: 2**24})
        peer.open_window(0, 2**24)
        peer.get(1, "/big/3000064")
        self.assertEqual(peer.body(1), bytes(range(256)) * (3000064 // 256))
        self.assert_answers(1, peer=peer)

    def test_a_large_body_goes_in_several_turns(self) -> None:
        peer = self.new_peer().begin({SettingsFrame.INITIAL_WINDOW_SIZE: 2**24})
        peer.open_window(0, 2**24)
        peer.get(1, "/big/3000064")
        self.assertLess(max(map(len, peer.transport.writes)), 300_000)

    def test_nothing_is_written_while_the_transport_is_paused(self) -> None:
        self.peer.connection.pauseProducing()
        before = len(self.peer.transport.writes)
        self.peer.get(1)
        self.peer.turn()
        self.assertEqual(len(self.peer.transport.writes), before)
        self.peer.connection.resumeProducing()
        self.assert_answers(1)

    def test_it_is_a_producer(self) -> None:
        self.assertTrue(verifyObject(IPushProducer, self.peer.connection))
        self.assertIs(self.peer.transport.producer, self.peer.connection)

    def test_the_more_urgent_comes_first(self) -> None:
        """RFC 9218, section 10."""
        self.peer.send(
            self.peer.headers(1, "/big/20480", fields=[("priority", "u=6")]),
            self.peer.headers(3, "/big/20480"),
            self.peer.headers(5, "/big/20480", fields=[("priority", "u=0")]),
        )
        order = [f.stream_id for f in self.peer.all_frames(DataFrame)]
        self.assertEqual(list(dict.fromkeys(order)), [5, 3, 1])

    def test_priority_update(self) -> None:
        """RFC 9218, section 7.1; one of an unknown stream is ignored."""
        self.peer.connection.pauseProducing()
        self.peer.send(self.peer.headers(1, "/big/20480"), self.peer.headers(3, "/big/20480"))
        self.peer.send(b"\0\0\7\x10\0\0\0\0\0\0\0\0\3u=0", b"\0\0\7\x10\0\0\0\0\0\0\0\0\x99u=0")
        self.peer.connection.resumeProducing()
        self.assertEqual(self.peer.all_frames(DataFrame)[0].stream_id, 3)

    def test_a_download_does_not_stop_an_event_stream(self) -> None:
        peer = self.new_peer().begin({SettingsFrame.INITIAL_WINDOW_SIZE: 2**24})
        peer.open_window(0, 2**24)
        peer.get(1, "/open")
        self.pages.open.requests[0].write(b"first")
        peer.get(3, "/big/3000064")
        self.pages.open.requests[0].write(b"event")
        peer.turn()
        self.assertLess(b"".join(peer.transport.writes).index(b"event"), 500_000)


class ProducerTests(HTTP2TestCase):
    def setUp(self) -> None:
        super().setUp()
        self.peer = self.new_peer().begin({SettingsFrame.INITIAL_WINDOW_SIZE: 1000})
        self.peer.get(1, "/open")
        self.request = self.pages.open.requests[0]
        self.producer = Producer()
        self.request.registerProducer(self.producer, True)

    def test_a_stream_whose_window_is_shut_pauses_its_producer(self) -> None:
        self.request.write(b"x" * 66_000)
        self.assertEqual(self.producer.told, ["pause"])
        self.peer.turn()
        self.peer.open_window(1, 40_000)
        self.peer.turn()
        self.assertEqual(self.producer.told, ["pause"])
        self.peer.open_window(1, 20_000)
        self.peer.turn()
        self.assertEqual(self.producer.told, ["pause", "resume"])

    def test_other_streams_go_on(self) -> None:
        self.request.write(b"x" * 66_000)
        self.peer.get(3)
        self.assert_answers(3, peer=self.peer)

    def test_a_producer_is_stopped_when_its_stream_is_reset(self) -> None:
        self.peer.reset(1)
        self.assertEqual(self.producer.told, ["stop"])

    def test_a_producer_is_stopped_when_the_connection_is_lost(self) -> None:
        self.peer.lose()
        self.assertEqual(self.producer.told, ["stop"])

    def test_a_pull_producer_makes_what_the_window_takes(self) -> None:
        self.peer.get(3, "/open")
        request = self.pages.open.requests[1]
        made: list[int] = []

        class Pull:
            def resumeProducing(self) -> None:
                made.append(1)
                request.write(b"x" * 400)
                if len(made) == 10:
                    request.unregisterProducer()
                    request.finish()

            def stopProducing(self) -> None:
                made.append(-1)

        request.registerProducer(Pull(), False)
        self.peer.turn()
        self.assertEqual(len(made), 3)
        self.assertEqual(len(self.peer.body(3)), 1000)
        self.peer.open_window(3, 100)
        self.peer.turn()
        self.assertEqual(len(made), 3)
        self.peer.open_window(3, 10_000)
        self.assertEqual(len(self.peer.body(3)), 4000)
        self.assert_answers(3, peer=self.peer)

    def test_a_producer_that_fails_ends_its_response_and_is_logged(self) -> None:
        self.peer.get(3, "/open")

        class Pull:
            def resumeProducing(self) -> None:
                raise RuntimeError("boom")

            def stopProducing(self) -> None:
                pass

        self.pages.open.requests[1].registerProducer(Pull(), False)
        self.peer.turn()
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)
        self.assert_reset(3, Code.INTERNAL_ERROR, self.peer)
        self.assertEqual(len(self.peer.connection.streams), 1)

    def test_a_producer_without_memory_ends_its_response_and_is_no_fault(self) -> None:
        self.addCleanup(memory.look)
        self.peer.get(3, "/open")

        class Pull:
            def resumeProducing(self) -> None:
                raise MemoryError

            def stopProducing(self) -> None:
                pass

        self.pages.open.requests[1].registerProducer(Pull(), False)
        self.peer.turn()
        self.assertEqual(self.flushLoggedErrors(MemoryError), [])
        self.assertTrue(memory.is_short)
        self.assert_reset(3, Code.INTERNAL_ERROR, self.peer)


class ReentrantTests(HTTP2TestCase):
    """Producers that end their stream, or the connection, while they are told to go on."""

    def start(self, act: Callable[[Request], None], *, is_push: bool) -> None:
        self.peer = self.new_peer().begin({SettingsFrame.INITIAL_WINDOW_SIZE: 100_000})
        self.peer.get(1, "/open")
        request = self.pages.open.requests[-1]

        @implementer(IPushProducer)
        class Acting(Producer):
            def resumeProducing(self) -> None:
                act(request)

        request.registerProducer(Acting(), is_push)
        if is_push:
            request.write(b"x" * 66_000)
        self.peer.turn()
        self.peer.open_window(0, 10**6)

    def test_a_reset(self) -> None:
        for is_push in True, False:
            self.start(lambda request: request.connection.abort(), is_push=is_push)
            self.assert_reset(1, Code.CANCEL, self.peer)

    def test_an_end(self) -> None:
        def end(request: Request) -> None:
            request.unregisterProducer()
            request.finish()

        for is_push in True, False:
            self.start(end, is_push=is_push)
            self.assert_answers(1, peer=self.peer)
            self.assert_alive()

    def test_an_end_of_the_connection(self) -> None:
        for is_push in True, False:
            self.start(lambda request: self.peer.connection.close(Code.NO_ERROR), is_push=is_push)
            self.assert_ended(Code.NO_ERROR)

    def test_more_writing(self) -> None:
        for is_push in True, False:
            left = [3]

            def write(request: Request, left: list[int] = left) -> None:
                left[0] -= 1
                request.write(b"y" * 100)
                if not left[0]:
                    request.unregisterProducer()
                    request.finish()

            self.start(write, is_push=is_push)
            self.peer.open_window(0, 10**6)
            self.peer.turn()
            self.assertIn(b"y" * 100, self.peer.body(1))
            self.assert_alive()


class TimeOutTests(HTTP2TestCase):
    def test_a_client_that_says_nothing(self) -> None:
        peer = self.new_peer()
        peer.pass_time(9)
        self.assertFalse(peer.is_closed)
        peer.pass_time(5)
        self.assertTrue(peer.is_closed)

    def test_a_client_that_stops_within_its_preface(self) -> None:
        peer = self.new_peer()
        peer.send(PREFACE[:10])
        peer.pass_time(14)
        self.assertTrue(peer.is_closed)

    def test_a_connection_without_requests(self) -> None:
        self.peer.pass_time(58)
        self.assert_alive()
        self.peer.pass_time(6)
        self.assert_ended(Code.NO_ERROR)

    def test_pings_are_no_requests(self) -> None:
        for _ in range(70):
            self.peer.pass_time(1)
            if not self.peer.is_closed:
                self.peer.send(PingFrame(0, opaque_data=b"12345678"))
        self.assert_ended(Code.NO_ERROR)

    def test_the_time_begins_with_the_end_of_the_last_request(self) -> None:
        self.peer.pass_time(40)
        self.peer.get(1)
        self.peer.pass_time(40)
        self.assert_alive()
        self.peer.pass_time(24)
        self.assert_ended(Code.NO_ERROR)

    def test_a_silent_event_stream_is_never_touched(self) -> None:
        self.peer.get(1, "/open")
        self.pages.open.requests[0].write(b"first")
        self.peer.pass_time(10_000)
        self.assertEqual(self.peer.resets(1), [])
        self.assert_alive()

    def test_an_event_stream_that_took_everything_is_never_touched(self) -> None:
        """Its window may be used up, as long as nothing waits for it."""
        peer = self.new_peer().begin({SettingsFrame.INITIAL_WINDOW_SIZE: 5})
        peer.get(1, "/open")
        self.pages.open.requests[0].write(b"first")
        peer.pass_time(10_000)
        self.assert_alive(peer)
        self.assertEqual(len(peer.connection.streams), 1)

    def test_a_stream_for_which_no_window_is_opened(self) -> None:
        """Zero window with data queued: nothing happens but the time-out."""
        peer = self.new_peer().begin({SettingsFrame.INITIAL_WINDOW_SIZE: 0})
        peer.get(1, "/big/1024")
        peer.get(3, "/open")
        peer.turn()
        self.assertEqual(self.clock.getDelayedCalls(), [])
        before = len(peer.transport.writes)
        peer.pass_time(28)
        self.assertEqual(len(peer.transport.writes), before)
        self.assertEqual(peer.resets(1), [])
        peer.pass_time(6)
        self.assert_reset(1, Code.CANCEL, peer)
        self.assertEqual(len(self.pages.open.lost), 0)

    def test_a_window_that_is_opened_too_little_does_not_help(self) -> None:
        """Nor does one of another stream or of the connection."""
        peer = self.new_peer().begin({SettingsFrame.INITIAL_WINDOW_SIZE: 0})
        peer.get(1, "/big/1024")
        for _ in range(34):
            peer.open_window(0, 10)
            peer.pass_time(1)
        self.assert_reset(1, Code.CANCEL, peer)

    def test_a_slow_client_that_goes_on_is_not_cut_off(self) -> None:
        peer = self.new_peer().begin({SettingsFrame.INITIAL_WINDOW_SIZE: 0})
        peer.get(1, "/big/327680")
        for _ in range(16):
            peer.open_window(1, 20480)
            peer.pass_time(20)
            peer.open_window(0, 20480)
        self.assert_answers(1, peer=peer)

    def test_a_connection_window_that_is_never_opened(self) -> None:
        self.peer.send(SettingsFrame(0, settings={SettingsFrame.INITIAL_WINDOW_SIZE: 10**6}))
        self.peer.get(1, "/big/102400")
        self.peer.turn()
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.peer.pass_time(34)
        self.assert_reset(1, Code.CANCEL)

    def test_a_transport_that_takes_nothing(self) -> None:
        self.peer.get(1, "/open")
        self.peer.connection.pauseProducing()
        self.pages.open.requests[0].write(b"x")
        self.peer.turn()
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.peer.pass_time(28)
        self.assertFalse(self.peer.is_closed)
        self.peer.pass_time(6)
        self.assertTrue(self.peer.transport.is_aborted)

    def test_a_body_that_is_not_completed(self) -> None:
        """The time is what `tests.builders.PATIENCE` says; the other streams go on."""
        self.peer.get(1, "/open")
        self.peer.send(self.peer.headers(3, method="POST", end=False))
        self.peer.pass_time(50)
        self.peer.data(3, b"x")
        self.assertIsNone(self.peer.status(3))
        self.peer.pass_time(14)
        self.assert_answers(3, 408)
        self.assertIn(b'"status":408', self.peer.body(3))
        self.assertIn(b"only 1 bytes of the body arrived within 60 s", self.peer.body(3))
        self.assertEqual(self.peer.fields(3)["content-type"], "application/problem+json")
        self.peer.pass_time(1)
        self.assert_reset(3, Code.NO_ERROR)
        self.pages.open.requests[0].finish()
        self.assert_answers(1)
        self.assert_alive()

    def test_a_body_that_comes_as_fast_as_it_has_to(self) -> None:
        self.peer.send(self.peer.headers(1, method="POST", end=False))
        for _ in range(90):
            self.peer.data(1, b"x" * 1024)
            self.peer.pass_time(1)
        self.assertIsNone(self.peer.status(1))
        self.peer.data(1, end=True)
        self.assertEqual(self.peer.status(1), 200)

    def test_a_body_that_drips(self) -> None:
        self.peer.send(self.peer.headers(1, method="POST", end=False))
        for _ in range(66):
            self.peer.data(1, b"x" * 10)
            self.peer.pass_time(1)
        self.assert_answers(1, 408)

    def test_a_body_that_has_to_wait_for_others_is_not_blamed(self) -> None:
        object.__setattr__(self.site._http2.limits, "held_body_bytes", 30_000)
        peer = self.new_peer().begin()
        for stream_id in (1, 3, 5):
            peer.send(peer.headers(stream_id, method="POST", end=False))
        peer.data(3, b"x" * 16_000)
        peer.data(5, b"x" * 15_000)
        for _ in range(80):
            peer.data(1, b"x" * 1000)
            peer.pass_time(1)
        self.assertEqual([peer.status(stream_id) for stream_id in (1, 3, 5)], [None, None, None])
        peer.data(1, end=True)
        peer.pass_time(80)
        self.assertEqual([peer.status(stream_id) for stream_id in (1, 3, 5)], [200, 408, None])

    def test_a_header_block_that_drips_ends_the_connection(self) -> None:
        self.peer.get(1, "/open")
        self.peer.send(HeadersFrame(3, data=b"\x82"))
        for _ in range(8):
            self.peer.send(ContinuationFrame(3, b"\x84"))
            self.peer.pass_time(1)
        self.assertFalse(self.peer.is_closed)
        for _ in range(6):
            if not self.peer.is_closed:
                self.peer.send(ContinuationFrame(3, b"\x84"))
            self.peer.pass_time(1)
        self.assert_ended(Code.ENHANCE_YOUR_CALM)
        self.assertEqual(len(self.pages.open.lost), 1)

    def test_a_frame_of_headers_that_drips_ends_it_too(self) -> None:
        self.peer.get(1, "/open")
        block = self.peer.headers(3).serialize()
        for place in range(20):
            if not self.peer.is_closed:
                self.peer.send(block[place : place + 1])
            self.peer.pass_time(1)
        self.assert_ended(Code.ENHANCE_YOUR_CALM)

    def test_header_blocks_that_come_one_after_the_other_do_not(self) -> None:
        """Whenever it is looked, one is there in part."""
        rest = b""
        for stream_id in range(1, 61, 2):
            block = self.peer.headers(stream_id).serialize()
            self.peer.send(rest + block[:12])
            rest = block[12:]
            self.peer.pass_time(2)
        self.peer.send(rest)
        self.assert_alive()

    def test_all_alarms_end_with_the_connection(self) -> None:
        self.peer.get(1, "/open")
        self.peer.lose()
        self.assertEqual(len(self.wheel), 0)
        self.assertEqual(self.clock.getDelayedCalls(), [])


class EndTests(HTTP2TestCase):
    def last_streams(self, peer: Peer) -> list[int]:
        return [goaway.last_stream_id for goaway in peer.goaways()]

    def test_connections_are_counted(self) -> None:
        self.assertEqual(len(self.site.connections), 1)
        peer = self.new_peer()
        self.assertEqual(len(self.site.connections), 2)
        peer.lose()
        self.assertEqual(len(self.site.connections), 1)

    def test_a_graceful_end(self) -> None:
        """RFC 9113, section 6.8: GOAWAY with 2^31-1, then, a round trip later, with the last stream."""
        self.peer.get(1, "/open")
        self.peer.connection.finish()
        self.peer.turn()
        self.assertEqual(self.last_streams(self.peer), [2**31 - 1])
        self.peer.get(3)  # was on its way
        self.assert_answers(3)
        ping = self.peer.all_frames(PingFrame)[-1]
        self.peer.send(PingFrame(0, opaque_data=ping.opaque_data, flags=["ACK"]))
        self.peer.turn()
        self.assertEqual(self.last_streams(self.peer), [2**31 - 1, 3])
        self.peer.get(5)
        self.assertEqual(self.peer.resets(5), [Code.REFUSED_STREAM])
        self.assertFalse(self.peer.is_closed)
        self.pages.open.requests[0].write(b"late")
        self.pages.open.requests[0].finish()
        self.assertEqual(self.peer.body(1), b"late")
        self.assert_answers(1)
        self.assert_ended(Code.NO_ERROR)

    def test_a_graceful_end_of_a_client_that_does_not_answer(self) -> None:
        self.peer.connection.finish()
        self.peer.pass_time(4)
        self.assert_ended(Code.NO_ERROR)

    def test_finishing_twice(self) -> None:
        self.peer.connection.finish()
        self.peer.connection.finish()
        self.peer.turn()
        self.assertEqual(len(self.peer.goaways()), 1)

    def test_a_client_that_does_not_close_is_aborted(self) -> None:
        """A TLS transport would wait for its close_notify for ever."""
        self.peer.send(GoAwayFrame(0))
        self.assertTrue(self.peer.transport.disconnecting)
        self.assertIsNone(self.peer.transport.producer)
        self.assertFalse(self.peer.transport.is_aborted)
        self.peer.pass_time(7)
        self.assertTrue(self.peer.transport.is_aborted)

    def test_one_who_closes_is_not(self) -> None:
        self.peer.send(GoAwayFrame(0))
        self.peer.lose()
        self.peer.pass_time(7)
        self.assertFalse(self.peer.transport.is_aborted)

    def test_abort(self) -> None:
        self.peer.connection.abort()
        self.assertTrue(self.peer.transport.is_aborted)

    def test_a_lost_connection_ends_its_requests(self) -> None:
        self.peer.get(1, "/open")
        self.peer.get(3, "/open")
        self.peer.lose()
        self.assertEqual(self.pages.open.lost, self.pages.open.requests)

    def test_writing_to_a_request_whose_stream_was_reset(self) -> None:
        self.peer.get(1, "/open")
        self.peer.reset(1)
        self.pages.open.requests[0].write(b"x")
        self.peer.turn()
        self.assertEqual(self.peer.body(1), b"")
        self.assert_alive()

    def test_aborting_one_request_leaves_the_others(self) -> None:
        self.peer.get(1, "/open")
        self.peer.get(3, "/open")
        self.pages.open.requests[0].connection.abort()
        self.assert_reset(1, Code.CANCEL)
        self.assertEqual(self.pages.open.lost, self.pages.open.requests[:1])

    def test_a_response_that_cannot_be_completed(self) -> None:
        self.peer.get(1, "/open")
        self.pages.open.requests[0].write(b"x")
        self.pages.open.requests[0].loseConnection()
        self.assert_reset(1, Code.INTERNAL_ERROR)
