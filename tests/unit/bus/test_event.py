"""Drafts, ids and types: what comes from outside and what the daemon makes itself."""

from __future__ import annotations

import unittest

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from pushd.bus.event import MAX_ID_BYTES, Draft, Entry, check_id, check_type, own_id, own_sequence
from pushd.errors import BadRequest
from tests.rigs.builders import EPOCH, entry


class IdTests(SynchronousTestCase):
    def assertRefused(self, event_id: str, saying: str) -> None:
        error = self.assertRaises(BadRequest, check_id, event_id)
        self.assertEqual(error.field, "id")
        self.assertIn(saying, error.detail)
        error.detail.encode()  # the detail can be sent

    def test_an_id_is_answered_as_it_is(self) -> None:
        for event_id in ("1", "urn:uuid:5e94c686", "é", "a b", "Latest", "a/b", "a\u2028b"):
            self.assertEqual(check_id(event_id), event_id)

    def test_an_id_that_a_header_would_not_bring_back_is_refused(self) -> None:
        for event_id in (" a", "a ", " ", "a\u2003"):
            self.assertRefused(event_id, "begins or ends with white space")

    def test_an_id_has_1_to_255_bytes(self) -> None:
        self.assertEqual(MAX_ID_BYTES, 255)
        for event_id in ("a", "a" * 255, "é" * 127 + "a"):
            self.assertEqual(check_id(event_id), event_id)
        for event_id in ("", "a" * 256, "é" * 128):
            self.assertRefused(event_id, f"1 to 255 bytes of UTF-8, not {len(event_id.encode())}")

    def test_control_characters_are_refused(self) -> None:
        for code in (*range(0x20), *range(0x7F, 0xA0)):
            self.assertRefused(f"a{chr(code)}", "control character")

    def test_a_lone_surrogate_is_refused(self) -> None:
        self.assertRefused("a\ud800", "not valid Unicode")

    def test_the_words_for_positions_are_refused(self) -> None:
        for word in ("latest", "earliest"):
            self.assertRefused(word, "keeps for itself")

    def test_the_form_of_the_daemons_ids_is_refused_whatever_the_epoch(self) -> None:
        for event_id in (f"{EPOCH}-0", f"{EPOCH}-17", "zzzzzzzzzz-1", f"{EPOCH}-{10**19 - 1}"):
            self.assertRefused(event_id, "keeps for itself")

    def test_what_only_looks_like_an_id_of_the_daemon_is_not_refused(self) -> None:
        for event_id in (
            f"{EPOCH}-01",
            f"{EPOCH}-",
            f"{EPOCH}-{10**19}",
            f"{EPOCH}--1",
            f"{EPOCH}1-1",
            "ABCDEFGHIJ-1",
            f"{EPOCH}-\u0661",
        ):
            self.assertEqual(check_id(event_id), event_id)
            self.assertIsNone(own_sequence(EPOCH, event_id), event_id)


class OwnIdTests(unittest.TestCase):
    @given(st.text("0123456789abcdefghijklmnopqrstuvwxyz", min_size=10, max_size=10), st.integers(0, 10**18))
    def test_an_own_id_says_where_it_stands(self, epoch: str, sequence: int) -> None:
        self.assertEqual(own_sequence(epoch, own_id(epoch, sequence)), sequence)

    @given(st.integers(0, 10**18))
    def test_no_publisher_can_give_an_own_id(self, sequence: int) -> None:
        with self.assertRaises(BadRequest):
            check_id(own_id(EPOCH, sequence))

    @given(st.text())
    def test_any_text_is_safe_to_ask(self, text: str) -> None:
        self.assertIsNone(own_sequence(EPOCH, text))

    def test_an_id_of_another_epoch_is_not_ours(self) -> None:
        self.assertIsNone(own_sequence(EPOCH, own_id("abcdefghij", 1)))


class TypeTests(SynchronousTestCase):
    def test_a_type_is_answered_as_it_is(self) -> None:
        for event_type in ("a", "latest", f"{EPOCH}-1", "t" * 255, "news.sport", "pushd", "pushdown", "a.pushd.b"):
            self.assertEqual(check_type(event_type), event_type)

    def test_a_type_that_would_break_a_line_is_refused(self) -> None:
        for event_type in ("a\nb", "a\r", "\x00", "\x85", "", "t" * 256, "\udc00"):
            error = self.assertRaises(BadRequest, check_type, event_type)
            self.assertEqual(error.field, "event")

    def test_a_type_of_the_daemon_is_refused_from_publishers_and_can_be_its_own(self) -> None:
        for event_type in ("pushd.", "pushd.gap", "pushd.closed", "PUSHD.join", "Pushd.open", "pushd.anything"):
            error = self.assertRaises(BadRequest, check_type, event_type)
            self.assertEqual((error.status, error.field), (400, "event"))
            self.assertIn(f"{event_type!r} begins with pushd.", error.detail)
            self.assertRaises(BadRequest, Draft.checked, ("a",), b"x", type=event_type)
            self.assertEqual(Draft(("a",), b"x", True, event_type).type, event_type)


class DraftTests(SynchronousTestCase):
    def test_nothing_but_channels_and_data_is_needed(self) -> None:
        self.assertEqual(Draft.checked(("a",), b"x"), Draft(("a",), b"x", True, None, None))

    def test_each_channel_counts_once_and_the_first_stays_first(self) -> None:
        self.assertEqual(Draft.checked(("b", "a", "b", "c", "a"), b"").channels, ("b", "a", "c"))

    def test_no_channel_at_all_is_refused(self) -> None:
        error = self.assertRaises(BadRequest, Draft.checked, (), b"x")
        self.assertEqual(error.field, "channel")

    def test_every_channel_is_checked(self) -> None:
        for wrong in ("", "a/*", "**", "a\n", "\ud800", "a" * 256):
            error = self.assertRaises(BadRequest, Draft.checked, ("a", wrong), b"x")
            self.assertEqual(error.field, "channel")

    def test_the_id_and_the_type_are_checked(self) -> None:
        for field, wrong in (("id", "latest"), ("id", ""), ("id", "a\n"), ("event", ""), ("event", "a\n")):
            given = {"id": wrong} if field == "id" else {"type": wrong}
            error = self.assertRaises(BadRequest, Draft.checked, ("a",), b"x", **given)
            self.assertEqual(error.field, field)

    def test_data_that_is_utf_8_is_text_unless_the_publisher_says_otherwise(self) -> None:
        for data, is_text in ((b"", True), ("é".encode(), True), (b"\xff", False), (b"\xed\xa0\x80", False)):
            self.assertIs(Draft.checked(("a",), data).is_text, is_text)
        self.assertIs(Draft.checked(("a",), b"x", is_text=False).is_text, False)


class FrameTests(SynchronousTestCase):
    def test_an_entry_is_encoded_once_for_each_wire_format(self) -> None:
        encoded: list[str] = []

        def upper(entry: Entry) -> bytes:
            encoded.append("upper")
            return entry.event.data.upper()

        def twice(entry: Entry) -> bytes:
            encoded.append("twice")
            return entry.event.data * 2

        one = entry(1, data=b"x")
        for _ in range(3):
            self.assertEqual((one.frame(upper), one.frame(twice)), (b"X", b"xx"))
        self.assertEqual(encoded, ["upper", "twice"])

    def test_the_frames_of_one_entry_are_not_those_of_another(self) -> None:
        def data(entry: Entry) -> bytes:
            return entry.event.data

        self.assertEqual([entry(1, data=d).frame(data) for d in (b"x", b"y")], [b"x", b"y"])
