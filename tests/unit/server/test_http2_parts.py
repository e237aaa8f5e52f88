"""The parts of HTTP/2 that know no connection: frames, heads of requests, priorities, queues, bodies."""

from __future__ import annotations

from hyperframe.frame import Frame as WireFrame
from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from pushd.server.http2 import frames as framing
from pushd.server.http2 import priority
from pushd.server.http2.body_windows import BodyWindows
from pushd.server.http2.codec import STREAM_WINDOW
from pushd.server.http2.errors import Code, ConnectionFault, Malformed, code_name
from pushd.server.http2.frames import Frame, Reader
from pushd.server.http2.head import field_section_size, parse_request
from pushd.server.http2.priority import Priority
from pushd.server.http2.scheduler import Next, Outgoing, Scheduler

PSEUDO = ((b":method", b"GET"), (b":scheme", b"https"), (b":authority", b"localhost"), (b":path", b"/a?b"))


class ReaderTests(SynchronousTestCase):
    def new_reader(self) -> Reader:
        reader = Reader(1000, 4, lambda kind, flags, size: None)
        list(reader.read(framing.PREFACE))
        return reader

    def read(self, data: bytes) -> list[Frame]:
        return list(self.new_reader().read(data))

    @given(
        st.lists(st.tuples(st.sampled_from([6, 0xFA, 0]), st.binary(max_size=40))), st.lists(st.integers(0, 400))
    )
    def test_cuts_do_not_matter(self, frames: list[tuple[int, bytes]], cuts: list[int]) -> None:
        frames = [(kind, data[:8].ljust(8) if kind == 6 else data) for kind, data in frames]
        whole = b"".join(framing.frame_bytes(kind, 0, int(kind == 0), data) for kind, data in frames)
        reader, found, last = self.new_reader(), [], 0
        for cut in [*sorted(cuts), len(whole)]:
            found += list(reader.read(whole[last:cut]))
            last = max(last, cut)
        self.assertEqual([(f.type, f.payload) for f in found], frames)

    def test_a_head_that_is_wrong_is_refused_before_its_payload_comes(self) -> None:
        fault = self.assertRaises(ConnectionFault, self.read, b"\xff\xff\xff\0\0\0\0\0\1")
        self.assertEqual(fault.code, Code.FRAME_SIZE_ERROR)

    def test_padding_counts_for_flow_control(self) -> None:
        (frame,) = self.read(framing.frame_bytes(framing.DATA, 8, 1, b"\3abc\0\0\0"))
        self.assertEqual((frame.payload, frame.size), (b"abc", 7))

    def test_a_header_block_in_several_frames_is_one(self) -> None:
        frames = self.read(
            framing.frame_bytes(framing.HEADERS, 1, 5, b"ab")
            + framing.frame_bytes(framing.CONTINUATION, 0, 5, b"cd")
            + framing.frame_bytes(framing.CONTINUATION, 4, 5, b"ef")
        )
        self.assertEqual([(f.stream_id, f.flags, f.payload) for f in frames], [(5, 5, b"abcdef")])

    def test_header_blocks_are_bounded_in_bytes_and_frames(self) -> None:
        first = framing.frame_bytes(framing.HEADERS, 0, 1, b"x")
        for rest in framing.frame_bytes(9, 0, 1, b"x" * 1000), framing.frame_bytes(9, 0, 1, b"x") * 4:
            fault = self.assertRaises(ConnectionFault, self.read, first + rest)
            self.assertEqual(fault.code, Code.ENHANCE_YOUR_CALM)

    def test_what_is_made_can_be_parsed_by_others(self) -> None:
        for data in (
            framing.reset_bytes(5, Code.CANCEL),
            framing.window_bytes(5, 1000),
            framing.settings_bytes({4: 5}),
            framing.goaway_bytes(7, Code.NO_ERROR, "because"),
        ):
            frame, length = WireFrame.parse_frame_header(memoryview(data[:9]))
            frame.parse_body(memoryview(data[9:]))
            self.assertEqual((frame.serialize(), length), (data, len(data) - 9))

    def test_codes_that_nobody_knows_have_a_name(self) -> None:
        self.assertEqual((code_name(8), code_name(0x99)), ("CANCEL", "0x99"))


class HeadTests(SynchronousTestCase):
    def test_a_head(self) -> None:
        head = parse_request([*PSEUDO, (b"x", b"y"), (b"content-length", b"5"), (b"priority", b"u=1")])
        self.assertEqual((head.method, head.path, head.authority), (b"GET", b"/a?b", b"localhost"))
        self.assertEqual(head.fields[:2], ((b"host", b"localhost"), (b"x", b"y")))
        self.assertEqual((head.content_length, head.priority.urgency), (5, 1))

    def test_a_protocol_only_where_it_is_taken(self) -> None:
        """RFC 8441, section 4."""
        fields = [(b":method", b"CONNECT"), *PSEUDO[1:], (b":protocol", b"websocket")]
        head = parse_request(fields, takes_protocols=True)
        self.assertEqual((head.protocol, head.path, head.is_connect), (b"websocket", b"/a?b", False))
        self.assertEqual(head.fields, ((b"host", b"localhost"),))
        self.assertRaises(Malformed, parse_request, fields)
        self.assertRaises(Malformed, parse_request, [*PSEUDO, fields[-1]], takes_protocols=True)
        self.assertIsNone(parse_request(PSEUDO, takes_protocols=True).protocol)

    @given(st.lists(st.tuples(st.binary(), st.binary())))
    def test_whatever_comes_is_a_head_or_malformed(self, fields: list[tuple[bytes, bytes]]) -> None:
        try:
            head = parse_request([*PSEUDO, *fields])
        except Malformed:
            return
        for name, value in head.fields:
            self.assertEqual(name, name.lower())
            self.assertNotIn(b"\n", value)

    def test_the_size_of_a_section(self) -> None:
        """RFC 9113, section 6.5.2: 32 bytes for each field."""
        self.assertEqual(field_section_size([(b"ab", b"c"), (b"", b"")]), 67)


class PriorityTests(SynchronousTestCase):
    def test_fields(self) -> None:
        """RFC 9218, section 4."""
        for value, expected in {
            b"": Priority(3, False),
            b"u=0": Priority(0, False),
            b"u=7, i": Priority(7, True),
            b"i, u=2": Priority(2, True),
            b"u=1;x=y,i=?1": Priority(1, True),
            b"u=5, i=?0": Priority(5, False),
            b"u=8": Priority(3, False),
            b"u=-1, x=y": Priority(3, False),
            b"u=a,,": Priority(3, False),
            b"u=1, u=2": Priority(2, False),
        }.items():
            self.assertEqual(priority.parse(value), expected, value)

    @given(st.binary())
    def test_whatever_comes_is_some_priority(self, value: bytes) -> None:
        self.assertIn(priority.parse(value).urgency, range(8))


class OutgoingTests(SynchronousTestCase):
    @given(st.lists(st.binary(min_size=1, max_size=50)), st.lists(st.integers(1, 60)))
    def test_what_is_taken_is_what_was_put(self, pieces: list[bytes], sizes: list[int]) -> None:
        outgoing, out = Outgoing(), []
        for piece in pieces:
            outgoing.put(piece)
        for size in [*sizes, *[50] * 50]:
            if outgoing.size:
                left = outgoing.size
                taken = bytes(outgoing.take(size))
                self.assertTrue(0 < len(taken) <= size)
                self.assertEqual(outgoing.size, left - len(taken))
                out.append(taken)
        self.assertEqual(b"".join(out), b"".join(pieces)[: len(b"".join(out))])
        if not outgoing.size:
            self.assertEqual(b"".join(out), b"".join(pieces))

    def test_what_is_large_is_not_copied(self) -> None:
        outgoing, data = Outgoing(), bytes(10**6)
        outgoing.put(data)
        views = [outgoing.take(16384) for _ in range(3)]
        self.assertTrue(all(isinstance(view, memoryview) and view.obj is data for view in views))

    def test_a_piece_that_is_taken_whole_is_the_same(self) -> None:
        outgoing, data = Outgoing(), b"abc"
        outgoing.put(data)
        self.assertIs(outgoing.take(3), data)


class Sender:
    """Sends what it has, as far as its window goes."""

    def __init__(self, name: str, log: list[str], has: int, window: int = 10**9, urgency: int = 3) -> None:
        self.name, self.log, self.has, self.window, self.urgency = name, log, has, window, urgency
        self.outgoing = Outgoing()

    def send(self, most: int) -> tuple[int, Next]:
        """Send."""
        if self.has < 0:
            raise ZeroDivisionError(self.name)
        sent = min(most, self.has, self.window)
        self.has -= sent
        self.window -= sent
        self.log.append(self.name)
        after = Next.NOTHING if not self.has else Next.AGAIN if self.window else Next.WINDOW
        return sent, after


class SchedulerTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.now = 0.0
        self.log: list[str] = []
        self.failed: list[str] = []
        self.scheduler: Scheduler[Sender] = Scheduler(
            lambda: self.now, lambda sender: self.failed.append(sender.name)
        )

    def add(self, name: str, has: int, window: int = 10**9, urgency: int = 3) -> Sender:
        sender = Sender(name, self.log, has, window, urgency)
        self.scheduler.add(sender)
        return sender

    def test_those_of_one_urgency_take_turns(self) -> None:
        self.add("a", 150_000)
        self.add("b", 150_000)
        self.scheduler.run(10**6)
        self.assertEqual("".join(self.log), "ababab")

    def test_the_more_urgent_come_first(self) -> None:
        self.add("a", 150_000)
        self.add("b", 150_000, urgency=2)
        self.scheduler.run(10**6)
        self.assertEqual("".join(self.log), "bbbaaa")

    def test_a_run_ends_with_its_budget_and_the_next_goes_on_in_turn(self) -> None:
        a, b = self.add("a", 10**6), self.add("b", 10**6)
        self.scheduler.run(100_000)
        self.assertEqual(2 * 10**6 - a.has - b.has, 100_000)
        self.assertTrue(self.scheduler.has_ready)
        self.scheduler.run(100_000)
        self.assertEqual("".join(self.log)[:3], "aba")

    def test_one_without_a_window_waits_until_it_opens(self) -> None:
        a = self.add("a", 100, window=0)
        self.scheduler.run(10**6)
        self.assertFalse(self.scheduler.has_ready)
        self.scheduler.add(a)
        self.assertFalse(self.scheduler.has_ready)
        a.window = 1000
        self.scheduler.opened(a)
        self.scheduler.run(10**6)
        self.assertEqual(a.has, 0)
        self.assertEqual(list(self.scheduler.stalled(10**9)), [])

    def test_those_that_wait_too_long_are_told_the_longest_first(self) -> None:
        a = self.add("a", 100, window=0)
        self.scheduler.run(10**6)
        self.now = 5.0
        b = self.add("b", 100, window=0)
        self.scheduler.run(10**6)
        self.scheduler.all_opened()
        self.now = 9.0
        self.scheduler.run(10**6)
        self.assertEqual(list(self.scheduler.stalled(4.0)), [a])
        self.assertEqual(list(self.scheduler.stalled(5.0)), [a, b])

    def test_one_that_sends_a_little_waits_anew(self) -> None:
        a = self.add("a", 100, window=0)
        self.scheduler.run(10**6)
        self.now = 8.0
        a.window = 1
        self.scheduler.opened(a)
        self.scheduler.run(10**6)
        self.assertEqual(list(self.scheduler.stalled(7.0)), [])
        self.assertEqual(list(self.scheduler.stalled(8.0)), [a])

    def test_those_that_have_waited_come_before_those_that_have_not(self) -> None:
        a, b = self.add("a", 100, window=0), self.add("b", 100, window=0)
        self.scheduler.run(10**6)
        self.log.clear()
        self.add("c", 100)
        a.window = b.window = 1000
        self.scheduler.all_opened()
        self.scheduler.run(10**6)
        self.assertEqual("".join(self.log), "abc")

    def test_a_turn_that_is_cut_short_by_the_window_goes_on_in_its_place(self) -> None:
        senders = [self.add(name, 100, window=0) for name in "abc"]
        self.scheduler.run(10**6)
        senders[0].window = 50
        self.scheduler.all_opened()
        self.scheduler.run(10**6)
        self.log.clear()
        for sender in senders:
            sender.window = 1000
        self.scheduler.all_opened()
        self.scheduler.run(10**6)
        self.assertEqual("".join(self.log), "abc")

    def test_a_turn_that_goes_on_is_no_longer_for_that(self) -> None:
        a, b = self.add("a", 10**6, window=0), self.add("b", 10**6, window=0)
        self.scheduler.run(10**6)
        firsts = ""
        for sender in (a, a, a, a, b, b, b, b, a):
            self.log.clear()
            sender.window = 16 * 1024
            self.scheduler.all_opened()
            self.scheduler.run(10**6)
            firsts += self.log[0]
        self.assertEqual(firsts, "aaaabbbba")

    def test_one_whose_urgency_changes_moves(self) -> None:
        self.add("a", 150_000)
        b = self.add("b", 150_000)
        self.scheduler.move(b, 0)
        self.scheduler.run(10**6)
        self.assertEqual("".join(self.log), "bbbaaa")

    def test_one_that_is_discarded_sends_nothing(self) -> None:
        a, b = self.add("a", 100), self.add("b", 100)
        self.scheduler.move(b, 0)
        self.scheduler.discard(a)
        self.scheduler.discard(b)
        self.scheduler.run(10**6)
        self.assertEqual(self.log, [])

    def test_one_that_fails_does_not_stop_the_others(self) -> None:
        self.add("a", -1)
        self.add("b", 100)
        self.scheduler.run(10**6)
        self.assertEqual((self.failed, self.log), (["a"], ["b"]))


class BodiesTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.granted: list[tuple[int, int]] = []
        self.bodies = BodyWindows(100_000, lambda *grant: self.granted.append(grant))
        for stream_id in 1, 3, 5:
            self.bodies.begun(stream_id)

    def streams(self) -> list[int]:
        streams = [stream_id for stream_id, _ in self.granted]
        self.granted.clear()
        return streams

    def test_all_go_on_while_little_is_held(self) -> None:
        self.bodies.received(3, 1000)
        self.bodies.received(1, 1000)
        self.assertEqual(self.granted[0], (3, STREAM_WINDOW))
        self.assertGreater(self.granted[1][1], STREAM_WINDOW)

    def test_only_the_oldest_goes_on_when_much_is_held(self) -> None:
        self.bodies.received(3, 100_001)
        self.bodies.received(5, 10)
        self.assertEqual(self.streams(), [])
        self.bodies.received(1, 10)
        self.assertEqual(self.streams(), [1])

    def test_the_others_go_on_when_one_has_ended(self) -> None:
        self.bodies.received(3, 100_001)
        self.bodies.received(5, 10)
        self.bodies.ended(3)
        self.assertEqual(self.streams(), [1, 5])

    def test_the_next_is_the_oldest_when_the_oldest_has_ended(self) -> None:
        self.bodies.received(5, 100_001)
        self.bodies.ended(1)
        self.assertEqual(self.streams(), [3])

    def test_what_is_not_a_body_is_not_counted(self) -> None:
        self.bodies.received(7, 10**9)
        self.bodies.ended(7)
        self.bodies.received(3, 1)
        self.assertEqual(self.streams(), [3])

    def test_of_messages_what_is_held_now_counts(self) -> None:
        for stream_id in 1, 3, 5:
            self.bodies.ended(stream_id)
        for _ in range(100):
            self.bodies.holds(7, 90_000)
            self.bodies.holds(7, 0)
        self.bodies.holds(9, 90_000)
        self.assertEqual(self.granted[-3][0], 7)
        self.assertEqual(self.granted[-2], (7, STREAM_WINDOW))
        self.assertEqual(self.granted[-1][0], 9)

    def test_a_long_message_waits_while_much_is_held_and_a_short_one_does_not(self) -> None:
        self.bodies.received(1, 100_001)
        self.streams()
        self.bodies.holds(7, STREAM_WINDOW)
        self.bodies.holds(9, 1000)
        self.bodies.holds(9, 0)
        self.assertNotIn(7, {stream_id for stream_id, _ in self.granted})
        self.assertEqual([it for it in self.granted if it[0] == 9], [(9, STREAM_WINDOW - 1000), (9, STREAM_WINDOW)])
        self.streams()
        self.bodies.ended(1)
        self.assertIn(7, self.streams())
