"""Answers that nobody reads: what they hold is bounded over all connections, and they are to be read in time."""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import replace
from pathlib import Path
from shutil import rmtree
from tempfile import mkdtemp
from typing import Any

from hyperframe.frame import SettingsFrame
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.address import IPv4Address
from twisted.internet.testing import StringTransport
from twisted.trial.unittest import SynchronousTestCase

import pushd.server.http1.responses
from pushd.errors import Refused, TooMany, Unavailable
from pushd.server.http1.responses import HTTP1Answers
from pushd.server.http2.errors import Code
from pushd.server.unread_responses import NOTHING, OVERHEAD_BYTES, Held, UnreadResponses
from pushd.server.web.static import StaticFiles
from tests.rigs.http2_peer import HTTP2TestCase, Peer

MIB = 1024 * 1024


class HeldTests(SynchronousTestCase):
    def test_of_one_owner_a_share_is_held(self) -> None:
        answers = UnreadResponses(1000, 10)
        held = [Held(answers) for _ in range(3)]
        held[0].take("192.0.2.1", 60)
        self.assertRaises(TooMany, held[1].take, "192.0.2.1", 60)
        held[1].take("192.0.2.2", 60)
        held[0].shrink(30)
        held[2].take("192.0.2.1", 60)
        self.assertEqual(answers.shares.used, 150)

    def test_all_together_hold_no_more_than_the_total(self) -> None:
        answers = UnreadResponses(1000, 100)
        Held(answers).take("192.0.2.1", 600)
        self.assertRaises(Unavailable, Held(answers).take, "192.0.2.2", 600)
        self.assertFalse(Held(answers).can_take(None, 600))

    def test_who_holds_nothing_may_hold_one_answer_of_any_size(self) -> None:
        answers = UnreadResponses(1000, 10)
        held, other = Held(answers), Held(answers)
        held.take("192.0.2.1", 10**9)
        self.assertEqual(held.size, 100)
        self.assertRaises(TooMany, other.take, "192.0.2.1", 1)
        held.shrink(0)
        other.take("192.0.2.1", 1)

    @given(st.lists(st.tuples(st.integers(0, 4), st.sampled_from((None, "a", "b")), st.integers(0, 700))))
    def test_whatever_happens_it_is_bounded_and_all_is_given_back(self, steps: list[Any]) -> None:
        answers = UnreadResponses(1000, 50)
        held, owners = [Held(answers) for _ in range(5)], [None, None, "a", "a", "b"]
        for which, _, size in steps:
            if size % 2:
                held[which].can_take(owners[which], size)
            else:
                held[which].shrink(size)
            self.assertLessEqual(answers.shares.used, 1000)
            self.assertLessEqual(answers.shares.used_by("a"), 500)
            self.assertEqual(answers.shares.used, sum(one.size for one in held))
        for one in held:
            one.shrink(0)
        self.assertEqual((answers.shares.used, answers.shares.used_by("a")), (0, 0))


class Http2Tests(HTTP2TestCase):
    """Over HTTP/2, where a client can ask for much and open no window."""

    def setUp(self) -> None:
        super().setUp()
        self.shares = self.site.answers.shares

    def tearDown(self) -> None:
        self.assertEqual(NOTHING.size, 0)

    def reader(self, owner: str | None, window: int = 0) -> Peer:
        """Make a peer that opens a window of so many bytes for each stream."""
        peer = self.new_peer().begin({SettingsFrame.INITIAL_WINDOW_SIZE: window})
        peer.connection.info = replace(peer.connection.info, owner=owner)
        return peer

    def test_what_is_read_at_once_holds_nothing(self) -> None:
        for stream_id in range(1, 41, 2):
            self.peer.get(stream_id, "/big/1024")
        self.peer.frames()
        self.assertEqual(self.shares.used, 0)

    def test_100_pages_of_1_mib_that_nobody_reads(self) -> None:
        self.site.answers.limit(64 * MIB, 10)
        peers = [self.reader("192.0.2.1") for _ in range(4)]
        for peer in peers:
            for stream_id in range(1, 51, 2):
                peer.get(stream_id, f"/big/{MIB}")
        self.assertLessEqual(self.shares.used, self.shares.most_per_owner)
        waiting = sum(s.outgoing.size for peer in peers for s in peer.connection.streams.values())
        self.assertLessEqual(waiting, self.shares.most_per_owner + 4 * 25 * 1024)
        for peer in peers[1:]:
            peer.frames()
        self.assertEqual({peers[3].status(stream_id) for stream_id in range(1, 51, 2)} & {200}, set())
        other = self.reader("192.0.2.2", MIB)
        other.get(1, "/big/1024")
        self.assert_answers(1, peer=other)
        for peer in peers:
            peer.lose()
        self.assertEqual(self.shares.used, 0)

    def test_who_is_refused_is_told_why(self) -> None:
        self.site.answers.limit(20 * MIB, 10)
        peer = self.reader("192.0.2.1")
        peer.get(1, f"/big/{3 * MIB}")
        peer.get(3, "/big/1024")
        self.assertEqual(peer.resets(3) or [peer.status(3)], [429])
        self.assertIn("retry-after", peer.fields(3))
        peer.open_window(3, 10_000)
        peer.frames()
        self.assertIn(b"[limits] answers", peer.body(3))

    def test_what_was_sent_is_given_back_at_once(self) -> None:
        peer = self.reader("192.0.2.1")
        peer.get(1, f"/big/{MIB}")
        peer.frames()
        self.assertEqual(self.shares.used, MIB + OVERHEAD_BYTES)
        peer.open_window(1, MIB // 2)
        peer.open_window(0, MIB)
        peer.frames()
        self.assertEqual(self.shares.used, MIB // 2 + OVERHEAD_BYTES)
        peer.reset(1)
        self.assertEqual(self.shares.used, 0)

    def test_a_byte_now_and_then_does_not_keep_an_answer_alive(self) -> None:
        peer = self.reader("192.0.2.1")
        peer.get(1, f"/big/{MIB}")
        for _ in range(6):
            peer.open_window(1, 1)
            peer.pass_time(15)
        self.assert_reset(1, Code.CANCEL, peer)
        self.assertEqual(self.shares.used, 0)

    def test_nor_does_a_byte_of_the_window_of_the_connection(self) -> None:
        peer = self.reader("192.0.2.1", MIB)
        for stream_id in 1, 3, 5:
            peer.get(stream_id, f"/big/{MIB}")
        for _ in range(20):
            peer.open_window(0, 3)
            peer.pass_time(15)
        for stream_id in 1, 3, 5:
            self.assertEqual(peer.resets(stream_id), [Code.CANCEL])

    def test_an_answer_that_waits_for_others_is_not_too_slow(self) -> None:
        """Ten streams get 400 bytes a second each."""
        peer, stream_ids = self.reader("192.0.2.1", 4 * MIB), range(1, 21, 2)
        for stream_id in stream_ids:
            peer.get(stream_id, f"/big/{MIB}")
        for _ in range(30):
            peer.pass_time(10)
            peer.open_window(0, 40_960)
        self.assertEqual([peer.resets(stream_id) for stream_id in stream_ids], [[]] * 10)

    def test_an_answer_without_an_end_that_has_nothing_to_send_is_not_too_slow(self) -> None:
        self.peer.get(1, "/open")
        (request,) = self.pages.open.requests
        request.write(b"x")
        self.peer.pass_time(600)
        self.assertEqual(self.peer.resets(1), [])

    def open_files(self, size: int, method: str = "GET") -> int:
        """Return how many files stay open after 100 requests for one of `size` bytes, which nobody reads."""
        directory = Path(mkdtemp())
        self.addCleanup(rmtree, directory)
        (directory / "page.txt").write_bytes(b"x" * size)
        self.pages.putChild(b"files", StaticFiles(str(directory)))
        peer = self.files_reader = self.reader("192.0.2.1")
        before = len(os.listdir("/proc/self/fd"))
        for stream_id in range(1, 201, 2):
            peer.get(stream_id, "/files/page.txt", method=method)
        peer.frames()
        return len(os.listdir("/proc/self/fd")) - before

    def test_small_files_are_not_kept_open(self) -> None:
        self.assertEqual(self.open_files(50_000), 0)

    def test_there_are_so_many_large_files_open_of_an_owner_and_in_all(self) -> None:
        files = self.site.answers.files
        for most, share, found in ((50, 10, 5), (7, 100, 7), (4096, 100, 100)):
            with self.subTest((most, share)):
                self.site.answers.limit(1000 * MIB, 100, most)
                files.limit(most, share)
                self.assertEqual(self.open_files(1_000_000), found)
                self.assertEqual(files.used, found)
                statuses = Counter(self.files_reader.status(stream_id) for stream_id in range(1, 201, 2))
                self.assertEqual(statuses[200], found)
                self.files_reader.lose()
                self.assertEqual(files.used, 0)

    def test_a_file_of_which_only_the_head_is_asked_for_is_closed(self) -> None:
        self.assertEqual(self.open_files(1_000_000, "HEAD"), 0)
        self.assertEqual(self.site.answers.files.used, 0)

    def test_large_files_are_kept_open_as_far_as_their_owner_has_room(self) -> None:
        self.site.answers.limit(10 * MIB, 10)
        self.assertLessEqual(self.open_files(1_000_000), 1024 // 72)
        self.assertLessEqual(self.shares.used, MIB)

    @given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 3), st.integers(1, 100_000)), max_size=30))
    def test_all_is_given_back(self, steps: list[tuple[int, int, int]]) -> None:
        peer = self.reader("192.0.2.1", 1000)
        latest = 1
        for what, which, size in steps:
            if what < 3:
                peer.get(latest, f"/big/{size}")
                latest += 2
            elif what == 3:
                peer.open_window(max(1, latest - 2 - 2 * which) if latest > 1 else 0, size)
            elif what == 4:
                peer.open_window(0, size)
            elif latest > 1:
                peer.reset(max(1, latest - 2 - 2 * which))
            peer.frames()
            streams = peer.connection.streams.values()
            self.assertLessEqual(sum(one.outgoing.size for one in streams), self.shares.used)
        peer.lose()
        self.assertEqual(self.shares.used, 0)


class Paused(StringTransport):
    """A transport whose client takes nothing once it has `full` bytes."""

    full = 100_000

    def write(self, data: bytes) -> None:
        """Override: pause the producer if there is too much."""
        super().write(data)
        if len(self.value()) > self.full and self.producer is not None:
            self.producer.pauseProducing()


class Http1Tests(HTTP2TestCase):
    """Over HTTP/1.1, where each connection has one answer at a time."""

    def client(self, full: int) -> tuple[Any, Paused]:
        transport = Paused(peerAddress=IPv4Address("TCP", "192.0.2.1", 4711))
        transport.full = full
        transport.aborted = False  # type: ignore[attr-defined]
        switch: Any = self.site.buildProtocol(None)
        switch.makeConnection(transport)
        return switch, transport

    def get(self, client: Any, path: str) -> None:
        client.dataReceived(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        self.clock.advance(0)

    def pass_time(self, seconds: int) -> None:
        for _ in range(seconds):
            self.clock.advance(1)
            self.wheel.turn()

    def test_an_answer_that_is_taken_holds_nothing(self) -> None:
        client, transport = self.client(10**9)
        self.get(client, f"/big/{MIB}")
        self.assertEqual(self.site.answers.shares.used, 0)
        self.assertIn(b"200 OK", transport.value()[:40])

    def test_many_answers_that_are_not_taken_are_bounded(self) -> None:
        self.site.answers.limit(40 * MIB, 10)
        shares = self.site.answers.shares
        clients = [self.client(1000) for _ in range(10)]
        for client, _ in clients:
            self.get(client, f"/big/{MIB}")
        self.assertEqual(shares.used, 4 * MIB)
        statuses = [transport.value()[9:12] for _, transport in clients]
        self.assertEqual(statuses, [b"200"] * 4 + [b"429"] * 6)
        refused = clients[9][1].value()
        self.assertIn(b"[limits] answers", refused)
        self.assertIn(b"application/problem+json", refused)
        for client, _ in clients:
            client.connectionLost(None)
        self.assertEqual(shares.used, 0)

    def test_what_is_taken_in_the_end_is_given_back(self) -> None:
        client, transport = self.client(1000)
        self.get(client, f"/big/{MIB}")
        transport.full = 10**9
        assert transport.producer is not None
        transport.producer.resumeProducing()
        self.assertEqual(self.site.answers.shares.used, 0)
        self.get(client, f"/big/{MIB}")
        self.assertEqual(transport.value().count(b"HTTP/1.1 200 OK"), 2)

    def test_who_takes_nothing_for_too_long_is_cut_off(self) -> None:
        client, _ = self.client(1000)
        aborted: list[bool] = []
        self.patch(HTTP1Answers, "abort", lambda connection: aborted.append(True))
        self.get(client, f"/big/{MIB}")
        self.pass_time(55)
        self.assertEqual(aborted, [])
        self.pass_time(10)
        self.assertEqual(aborted, [True])

    def test_who_takes_a_byte_now_and_then_is_cut_off_and_who_takes_more_is_not(self) -> None:
        aborted: list[bool] = []
        left = [MIB]
        self.patch(HTTP1Answers, "abort", lambda connection: aborted.append(True))
        self.patch(pushd.server.http1.responses, "waiting_bytes", lambda transport: left[0])
        for rate, ends in (2000, []), (1, [True]):
            client, transport = self.client(1000)
            left[0] = MIB
            self.get(client, f"/big/{MIB}")
            for _ in range(300):
                left[0] -= rate
                self.pass_time(1)
            self.assertEqual(aborted[:1], ends)
            self.assertEqual(transport.disconnecting, bool(ends))
            client.connectionLost(None)


class RefusedTests(SynchronousTestCase):
    def test_it_is_refused_with_a_time_to_come_back(self) -> None:
        answers = UnreadResponses(10, 100)
        Held(answers).take(None, 10)
        refused = self.assertRaises(Refused, Held(answers).take, "192.0.2.1", 10)
        self.assertGreater(refused.retry_s or 0, 0)
