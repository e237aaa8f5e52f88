"""Clients that cost more than they are worth: each is stopped, and none of them stops the server."""

from __future__ import annotations

import struct
from typing import Any, cast

from hyperframe.frame import (
    ContinuationFrame,
    DataFrame,
    HeadersFrame,
    PingFrame,
    PriorityFrame,
    RstStreamFrame,
    SettingsFrame,
    WindowUpdateFrame,
)
from twisted.logger import ILogObserver, LogLevel, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from pushd.server.http2.errors import Code, ConnectionFault
from pushd.server.http2.limits import Budgets, Kind
from tests.rigs.http2_peer import MAX_BODY, HTTP2TestCase


class BudgetTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.now = 0.0
        self.budgets = Budgets(lambda: self.now)

    def spend(self, kind: Kind, times: int) -> None:
        for _ in range(times):
            self.budgets.spend(kind)

    def test_a_burst_is_allowed_and_one_more_is_not(self) -> None:
        self.spend(Kind.SETTINGS, 100)
        fault = self.assertRaises(ConnectionFault, self.budgets.spend, Kind.SETTINGS)
        self.assertEqual(fault.code, Code.ENHANCE_YOUR_CALM)

    def test_it_fills_up_again_with_time_but_not_over_the_burst(self) -> None:
        self.spend(Kind.SETTINGS, 100)
        self.now = 2.0
        self.spend(Kind.SETTINGS, 20)
        self.assertRaises(ConnectionFault, self.budgets.spend, Kind.SETTINGS)
        self.now = 1000.0
        self.spend(Kind.SETTINGS, 99)
        self.assertRaises(ConnectionFault, self.spend, Kind.SETTINGS, 2)

    def test_each_kind_has_its_own(self) -> None:
        self.spend(Kind.SETTINGS, 100)
        for kind in Kind:
            if kind is not Kind.SETTINGS:
                self.budgets.spend(kind)

    def test_what_is_earned_can_be_spent(self) -> None:
        self.spend(Kind.WINDOW_UPDATE, 5000)
        self.budgets.earn(Kind.WINDOW_UPDATE, 10)
        self.spend(Kind.WINDOW_UPDATE, 10)
        self.assertRaises(ConnectionFault, self.budgets.spend, Kind.WINDOW_UPDATE)


class FloodTests(HTTP2TestCase):
    def test_3000_resets(self) -> None:
        """CVE-2023-44487: requests that are reset at once."""
        for stream_id in range(1, 6001, 2):
            if self.peer.is_closed:
                break
            self.peer.send(self.peer.headers(stream_id, "/open"), RstStreamFrame(stream_id, error_code=8))
        self.assert_ended(Code.ENHANCE_YOUR_CALM)
        self.assertLessEqual(len(self.pages.open.requests), 1001)
        self.assertEqual(len(self.pages.open.lost), len(self.pages.open.requests))

    def test_3000_resets_in_one_piece(self) -> None:
        frames = []
        for stream_id in range(1, 6001, 2):
            frames += [self.peer.headers(stream_id, "/open"), RstStreamFrame(stream_id, error_code=8)]
        self.peer.send(*frames)
        self.assert_ended(Code.ENHANCE_YOUR_CALM)
        self.assertLessEqual(len(self.pages.open.requests), 1001)

    def test_resets_that_the_server_is_made_to_send(self) -> None:
        """CVE-2025-8671: requests with a fault that makes the server reset them."""
        for stream_id in range(1, 6001, 2):
            if self.peer.is_closed:
                break
            zero = struct.pack(">HBBBI", 0, 4, 8, 0, stream_id) + bytes(4)  # WINDOW_UPDATE by 0
            self.peer.send(self.peer.headers(stream_id, "/open"), zero)
        self.assert_ended(Code.ENHANCE_YOUR_CALM)
        self.assertLessEqual(len(self.pages.open.requests), 1001)

    def test_malformed_requests(self) -> None:
        for stream_id in range(1, 6001, 2):
            if self.peer.is_closed:
                break
            self.peer.send(self.peer.block(stream_id, [(":method", "GET")]))
        self.assert_ended(Code.ENHANCE_YOUR_CALM)

    def test_requests_over_the_limit_of_streams(self) -> None:
        for stream_id in range(1, 6001, 2):
            if self.peer.is_closed:
                break
            self.peer.get(stream_id, "/open")
        self.assert_ended(Code.ENHANCE_YOUR_CALM)

    def test_a_browser_that_leaves_a_page_is_no_flood(self) -> None:
        for stream_id in range(1, 400, 2):
            self.peer.send(self.peer.headers(stream_id, "/open"), RstStreamFrame(stream_id, error_code=8))
        self.assert_alive()

    def test_1000_priority_frames_leave_nothing_behind(self) -> None:
        self.peer.send(*(PriorityFrame(n, depends_on=0, stream_weight=1) for n in range(1, 2001, 2)))
        self.assert_alive()
        self.assertEqual(self.peer.connection.codec.open_requests, 0)

    def test_priority_frames_without_end(self) -> None:
        self.peer.send(*(PriorityFrame(1, depends_on=0) for _ in range(3000)))
        self.assert_ended(Code.ENHANCE_YOUR_CALM)

    def test_settings_without_end(self) -> None:
        self.peer.send(*(SettingsFrame(0, settings={4: 1000 + n}) for n in range(300)))
        self.assert_ended(Code.ENHANCE_YOUR_CALM)

    def test_pings_without_end(self) -> None:
        self.peer.send(*(PingFrame(0, opaque_data=b"12345678") for _ in range(1000)))
        self.assert_ended(Code.ENHANCE_YOUR_CALM)

    def test_a_ping_each_second_is_no_flood(self) -> None:
        self.peer.get(1, "/open")
        for _ in range(500):
            self.peer.send(PingFrame(0, opaque_data=b"12345678"))
            self.peer.pass_time(1)
        self.assert_alive()

    def test_empty_data_without_end(self) -> None:
        self.peer.send(self.peer.headers(1, method="POST", end=False), *(DataFrame(1, b"") for _ in range(1000)))
        self.assert_ended(Code.ENHANCE_YOUR_CALM)

    def test_continuations_without_end(self) -> None:
        """CVE-2024-27316 and its kin."""
        self.peer.send(HeadersFrame(1, data=b"\x82"), *(ContinuationFrame(1, b"\x00") for _ in range(100)))
        self.assert_ended(Code.ENHANCE_YOUR_CALM)

    def test_empty_continuations_without_end(self) -> None:
        self.peer.send(HeadersFrame(1, data=b"\x82"), *(ContinuationFrame(1, b"") for _ in range(1000)))
        self.assert_ended(Code.ENHANCE_YOUR_CALM)

    def test_a_header_block_that_is_too_large(self) -> None:
        self.peer.send(HeadersFrame(1, data=b"\x82"), *(ContinuationFrame(1, b"\x82" * 16384) for _ in range(5)))
        self.assert_ended(Code.ENHANCE_YOUR_CALM)

    def test_a_compression_bomb(self) -> None:
        """RFC 7541, section 7.3: one field in the dynamic table, named again and again."""
        peer = self.peer
        peer.get(1, fields=[("x", "y" * 3000)])
        block = peer.encoder.encode([("x", "y" * 3000)])
        peer.send(HeadersFrame(3, data=block * 5000, flags=["END_HEADERS", "END_STREAM"]))
        self.assert_ended(Code.ENHANCE_YOUR_CALM)

    def test_window_updates_without_end(self) -> None:
        self.peer.send(*(WindowUpdateFrame(0, window_increment=1) for _ in range(10_000)))
        self.assert_ended(Code.ENHANCE_YOUR_CALM)

    def test_window_updates_of_one_who_takes_much_are_no_flood(self) -> None:
        for n in range(200):
            stream_id = 2 * n + 1
            self.peer.get(stream_id, "/big/65280")
            self.peer.turn(1)
            for _ in range(51):
                self.peer.open_window(0, 1280)
            self.assertEqual(len(self.peer.body(stream_id)), 65280)
        self.assert_alive()

    def test_frames_of_unknown_types_without_end(self) -> None:
        self.peer.send(*(struct.pack(">HBBBI", 0, 0, 0xFA, 0, 0) for _ in range(5000)))
        self.assert_ended(Code.ENHANCE_YOUR_CALM)

    def test_answers_that_nobody_reads(self) -> None:
        """A client that asks and does not read: no more than a little waits for it."""
        self.peer.connection.pauseProducing()
        for _ in range(1000):
            self.peer.pass_time(1)
            if self.peer.is_closed:
                break
            self.peer.send(*(PingFrame(0, opaque_data=b"12345678") for _ in range(15)))
            self.assertLess(self.peer.connection.codec.control_bytes, 70_000)
        self.assertTrue(self.peer.is_closed)

    def test_large_answers_that_nobody_reads(self) -> None:
        """Each waits as a whole; so there are no more of them until they were read."""
        object.__setattr__(self.site._http2.limits, "max_unsent_bytes", 1_000_000)
        peer = self.peer
        for stream_id in range(1, 19, 2):
            peer.get(stream_id, "/big/199936")
        peer.turn()
        self.assertLess(peer.connection.scheduler.unsent_bytes, 1_300_000)
        self.assertEqual([n for n in range(1, 19, 2) if peer.status(n) == 429], [13, 15, 17])
        self.assertEqual(peer.fields(17)["retry-after"], "1")
        peer.open_window(0, 10_000_000)
        for stream_id in range(1, 13, 2):
            peer.open_window(stream_id, 200_000)
        peer.turn()
        self.assertEqual([len(peer.body(n)) for n in range(1, 13, 2)], [199_936] * 6)
        self.assertEqual(peer.connection.scheduler.unsent_bytes, 0)
        self.assertIn(b"read them first", peer.body(17))
        self.assert_alive()

    def test_what_is_refused_is_logged_once_and_not_without_end(self) -> None:
        said: list[str] = []

        def observe(event: Any) -> None:
            if event.get("log_namespace") == "pushd.server.http2.connection.HTTP2":
                self.assertEqual(event["log_level"], LogLevel.info)
                said.append(str(event["detail"]) if "detail" in event else "more")

        observer = cast(ILogObserver, observe)
        globalLogPublisher.addObserver(observer)
        self.addCleanup(globalLogPublisher.removeObserver, observer)
        self.peer.send(self.peer.block(1, [(":method", "GET")]))
        self.assertEqual(len(said), 1)
        self.assertIn("malformed request", said[0])
        for stream_id in range(3, 101, 2):
            self.peer.send(self.peer.block(stream_id, [(":method", "GET")]))
        self.assertEqual(len(said), 11)
        self.assertEqual(said[-1], "more")


class BodyTests(HTTP2TestCase):
    def test_a_body_that_says_that_it_is_too_large(self) -> None:
        self.peer.post(1, b"x" * 1000, fields=[("content-length", str(MAX_BODY + 1))], end=False)
        self.assert_answers(1, 413)
        self.assertIn(b'"status":413', self.peer.body(1))
        self.assert_reset(1, Code.NO_ERROR)

    def test_a_body_that_turns_out_to_be_too_large(self) -> None:
        self.peer.send(self.peer.headers(1, method="POST", end=False))
        for _ in range(20):
            self.peer.data(1, b"x" * 10_000)
            self.peer.turn()
        self.assert_answers(1, 413)
        self.assert_reset(1, Code.NO_ERROR)

    def test_unfinished_bodies_are_bounded_and_the_oldest_can_be_finished(self) -> None:
        limits = self.site._http2.limits
        object.__setattr__(limits, "held_body_bytes", 100_000)
        peer = self.new_peer().begin()
        windows = {}
        for stream_id in range(1, 21, 2):
            peer.send(peer.headers(stream_id, method="POST", end=False))
            windows[stream_id] = 65535
        sent = dict.fromkeys(windows, 0)
        for _ in range(30):
            for stream_id in windows:
                for frame in peer.frames():
                    if isinstance(frame, WindowUpdateFrame) and frame.stream_id:
                        windows[frame.stream_id] += frame.window_increment
                if windows[stream_id] >= 8000 and sent[stream_id] < 96_000:
                    peer.data(stream_id, b"x" * 8000)
                    windows[stream_id] -= 8000
                    sent[stream_id] += 8000
        self.assertEqual(sent[1], 96_000)
        self.assertLess(sum(sent.values()), 100_000 + 10 * 65535)
        peer.open_window(0, 10**6)
        peer.open_window(1, 10**6)
        peer.data(1, end=True)
        self.assert_answers(1, peer=peer)
        self.assertTrue(peer.all_frames(WindowUpdateFrame, 3))
