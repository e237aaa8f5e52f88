"""The outbox: frames in their order, bounded in bytes."""

from __future__ import annotations

from unittest import TestCase

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from pushd.sessions.outbox import Outbox


class OutboxTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.outbox = Outbox(10)

    def assertTaken(self, frame: bytes) -> None:
        self.assertIs(self.outbox.put(frame), True)

    def assertNotTaken(self, frame: bytes) -> None:
        before = self.outbox.size
        self.assertIs(self.outbox.put(frame), False)
        self.assertEqual(self.outbox.size, before)

    def test_it_begins_empty(self) -> None:
        self.assertEqual((self.outbox.size, self.outbox.max_bytes, self.outbox.take()), (0, 10, b""))

    def test_room_is_made_of_the_older_half_of_what_is_marked_and_the_order_stays(self) -> None:
        for frame in (b"a1", b"B", b"a2", b"a3", b"a4"):
            self.assertTaken(frame)
            if frame != b"B":
                self.outbox.mark()
        self.assertEqual(self.outbox.make_room(2), 2)
        self.assertEqual(self.outbox.size, 5)
        self.assertTaken(b"C")
        self.assertEqual(self.outbox.make_room(6), 1)
        self.assertEqual(self.outbox.take(), b"Ba4C")

    def test_nothing_is_thrown_away_if_there_is_room_or_nothing_is_marked(self) -> None:
        self.assertTaken(b"12345")
        self.assertEqual(self.outbox.make_room(6), 0)
        self.outbox.mark()
        self.assertEqual(self.outbox.make_room(5), 0)
        self.assertEqual(self.outbox.take(), b"12345")

    def test_a_mark_does_not_outlive_its_frame(self) -> None:
        self.assertTaken(b"12345")
        self.outbox.mark()
        self.outbox.take()
        self.assertTaken(b"67890")
        self.assertEqual(self.outbox.make_room(6), 0)

    def test_if_it_is_not_enough_all_that_is_marked_is_gone(self) -> None:
        self.assertTaken(b"12345")
        self.assertTaken(b"678")
        self.outbox.mark()
        self.assertEqual(self.outbox.make_room(6), 1)
        self.assertIs(self.outbox.has_room(6), False)
        self.assertIs(self.outbox.has_room(5), True)

    def test_frames_come_out_as_one_piece_in_their_order(self) -> None:
        for frame in (b"1", b"22", b"", b"333"):
            self.assertTaken(frame)
        self.assertEqual(self.outbox.size, 6)
        self.assertEqual(self.outbox.take(), b"122333")

    def test_what_was_taken_is_gone(self) -> None:
        self.assertTaken(b"12345")
        self.outbox.take()
        self.assertEqual((self.outbox.size, self.outbox.take()), (0, b""))

    def test_a_single_frame_is_not_copied(self) -> None:
        frame = bytes(9)
        self.assertTaken(frame)
        self.assertIs(self.outbox.take(), frame)

    def test_exactly_as_much_as_it_may_hold_fits(self) -> None:
        self.assertTaken(b"12345")
        self.assertTaken(b"67890")
        self.assertNotTaken(b"1")

    def test_a_frame_that_does_not_fit_changes_nothing_and_a_smaller_one_may_still_fit(self) -> None:
        self.assertTaken(b"123456789")
        self.assertNotTaken(b"ab")
        self.assertTaken(b"0")
        self.assertEqual(self.outbox.take(), b"1234567890")

    def test_an_empty_one_takes_a_frame_of_any_size(self) -> None:
        self.assertTaken(bytes(1000))
        self.assertEqual(self.outbox.size, 1000)
        self.assertNotTaken(b"1")

    def test_it_is_empty_again_after_take_and_after_clear(self) -> None:
        for be_empty in (self.outbox.take, self.outbox.clear):
            self.assertTaken(bytes(11))
            be_empty()
            self.assertEqual(self.outbox.size, 0)
            self.assertTaken(bytes(11))
            be_empty()

    def test_what_is_going_to_be_taken_at_once_is_put_in_whatever_its_size(self) -> None:
        self.assertTaken(b"12345")
        self.outbox.put_anyway(bytes(100))
        self.assertEqual(self.outbox.size, 105)
        self.assertNotTaken(b"1")
        self.assertEqual(self.outbox.take(), b"12345" + bytes(100))
        self.assertEqual(self.outbox.size, 0)

    def test_what_was_cleared_does_not_come_out(self) -> None:
        self.assertTaken(b"1")
        self.outbox.clear()
        self.assertTaken(b"2")
        self.assertEqual(self.outbox.take(), b"2")


class AnyUseTests(TestCase):
    @given(st.integers(0, 20), st.lists(st.none() | st.binary(max_size=12)))
    def test_it_holds_what_it_took_and_no_more_than_it_may(self, max_bytes: int, steps: list[bytes | None]) -> None:
        outbox, wanted = Outbox(max_bytes), list[bytes]()
        for frame in steps:
            if frame is None:
                self.assertEqual(outbox.take(), b"".join(wanted))
                wanted = []
            elif outbox.put(frame):
                wanted.append(frame)
            else:
                self.assertGreater(outbox.size + len(frame), max_bytes)
            self.assertEqual(outbox.size, sum(map(len, wanted)))
            self.assertTrue(outbox.size <= max_bytes or len(wanted) == 1)
