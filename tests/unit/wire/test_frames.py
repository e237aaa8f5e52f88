"""The frames: what an event looks like in each wire format, read back by a parser of that format."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from unittest import TestCase

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase
from websockets.frames import Frame, Opcode
from websockets.streams import StreamReader

from pushd.bus.closing import CloseCause, CloseReason
from pushd.bus.event import Encoder, Entry, Event, check_id, check_type
from pushd.bus.position import HistoryPage
from pushd.errors import BadRequest
from pushd.wire.frames import (
    BINARY,
    TEXT,
    event_json,
    page_json,
    sse_block,
    sse_event,
    sse_json_event,
    sse_line,
    stream_end,
    stream_line,
    websocket_data,
    websocket_event,
    websocket_frame,
    websocket_message,
)
from pushd.wire.json import json_bytes, json_line
from tests.rigs.builders import EPOCH

ENCODERS: tuple[Encoder, ...] = (
    event_json,
    stream_line,
    websocket_event,
    websocket_data,
    sse_event,
    sse_json_event,
)
SIZES = (0, 1, 124, 125, 126, 127, 65534, 65535, 65536, 65537)
BREAKS = ("\n", "\r", "\r\n")


def published(
    data: bytes, *, is_text: bool = True, type: str | None = None, id: str = f"{EPOCH}-7", time: float = 1.5
) -> Entry:
    """Make an entry as it stands in a channel."""
    return Entry(Event(id, f"{EPOCH}-7", data, is_text, type, time, 7, 0), "news", 3, 3600.0)


def is_accepted(check: Callable[[str], str]) -> Callable[[str], bool]:
    """Make a filter of what `check` does not refuse."""

    def accepts(text: str) -> bool:
        try:
            check(text)
        except BadRequest:
            return False
        return True

    return accepts


texts = st.text(st.characters(codec="utf-8"))
lines = st.text(st.sampled_from("\r\n: \ufeffa\x00é\u2028\x85")) | texts
types = st.none() | texts.filter(is_accepted(check_type))
ids = texts.filter(is_accepted(check_id))


@st.composite
def entries(draw: st.DrawFn) -> Entry:
    """Make any entry that there can be."""
    data, is_text = draw(st.tuples(lines.map(str.encode), st.just(True)) | st.tuples(st.binary(), st.booleans()))
    if is_text:
        data = data.decode(errors="replace").encode()
    time = draw(st.floats(0, 1e11))
    return published(data, is_text=is_text, type=draw(types), id=draw(ids), time=time)


def members(data: bytes) -> dict[str, object]:
    """Read the one JSON object that `data` must be."""
    value = json.loads(data.decode())
    assert isinstance(value, dict), value
    return value


@dataclass
class Message:
    """An event as a browser dispatches it."""

    data: str
    type: str = "message"
    id: str = ""


def dispatched(stream: bytes) -> list[Message]:
    """Interpret an event stream: WHATWG HTML, section 9.2.6, step by step."""
    text = stream.decode(errors="replace").removeprefix("\ufeff")
    found: list[Message] = []
    data = event_type = last_id = ""
    *complete, _ = re.split("\r\n|\r|\n", text)
    for line in complete:
        if line == "":
            if data != "":
                found.append(Message(data.removesuffix("\n"), event_type or "message", last_id))
            data = event_type = ""
        elif not line.startswith(":"):
            name, _, value = line.partition(":")
            value = value.removeprefix(" ")
            if name == "event":
                event_type = value
            elif name == "data":
                data += value + "\n"
            elif name == "id" and "\x00" not in value:
                last_id = value
    return found


def unframed(data: bytes) -> Frame:
    """Read the one WebSocket frame that `data` must be, with the parser of `websockets`."""
    reader = StreamReader()
    reader.feed_data(data)
    reader.feed_eof()
    parsing = Frame.parse(reader.read_exact, mask=False)
    try:
        next(parsing)
    except StopIteration as stop:
        frame = stop.value
    else:
        raise AssertionError("the frame is not complete")
    assert not reader.buffer, "something is behind the frame"
    assert isinstance(frame, Frame)
    return frame


class JsonTests(SynchronousTestCase):
    def assertShows(self, entry: Entry, expected: str) -> None:
        self.assertEqual(event_json(entry).decode(), expected)

    def test_text_is_data_as_it_was_published(self) -> None:
        self.assertShows(
            published('é "1"\n'.encode()),
            '{"id":"0123456789-7","channel":"news","offset":3,"data":"é \\"1\\"\\n","time":1.5}',
        )

    def test_an_id_of_another_form_does_not_hide_the_position(self) -> None:
        self.assertShows(
            published(b"x", id="order-17"),
            '{"id":"order-17","position":"0123456789-7","channel":"news","offset":3,"data":"x","time":1.5}',
        )
        self.assertShows(
            published(b"x", id="abcdefghij-7"),  # of a former epoch
            '{"id":"abcdefghij-7","position":"0123456789-7","channel":"news","offset":3,"data":"x","time":1.5}',
        )

    def test_binary_is_data_base64(self) -> None:
        self.assertShows(
            published(b"\xff\xfe\x00", is_text=False),
            '{"id":"0123456789-7","channel":"news","offset":3,"data_base64":"//4A","time":1.5}',
        )

    def test_a_type_is_event_and_without_one_there_is_no_such_member(self) -> None:
        self.assertShows(
            published(b"", type="sport"),
            '{"id":"0123456789-7","channel":"news","offset":3,"data":"","event":"sport","time":1.5}',
        )

    def test_the_time_has_microseconds(self) -> None:
        self.assertEqual(members(event_json(published(b"", time=1700000000.1234567)))["time"], 1700000000.123457)

    def test_the_channel_is_that_of_the_entry_not_the_canonical_one(self) -> None:
        entry = replace(published(b""), channel="other", frames={})
        self.assertEqual(members(event_json(entry))["channel"], "other")

    def test_a_stream_line_is_the_event_with_a_type_of_message_on_a_line(self) -> None:
        self.assertEqual(
            stream_line(published(b"a\nb")).decode(),
            '{"type":"event","id":"0123456789-7","channel":"news","offset":3,"data":"a\\nb","time":1.5}\n',
        )

    def test_the_end_of_a_stream_says_why_and_when_to_come_back(self) -> None:
        ending = CloseReason(CloseCause.STOPPING, "pushd stops")
        self.assertEqual(stream_end(ending), b'{"type":"closed","detail":"pushd stops"}\n')
        later = replace(ending, retry_s=1.23456)
        self.assertEqual(stream_end(later), b'{"type":"closed","detail":"pushd stops","retry_after":1.235}\n')

    def test_an_object_is_written_without_spaces_and_as_utf_8(self) -> None:
        self.assertEqual(json_bytes({"a": [1, None], "b": "é"}), '{"a":[1,null],"b":"é"}'.encode())
        self.assertEqual(json_line({}), b"{}\n")

    def test_what_json_does_not_have_is_an_error_of_ours(self) -> None:
        self.assertRaises(ValueError, json_bytes, {"a": float("nan")})


class PageTests(SynchronousTestCase):
    def test_a_page_is_one_object_on_a_line(self) -> None:
        page = HistoryPage([published(b"1"), published(b"\xff", is_text=False)], f"{EPOCH}-7", True)
        one, two = (event_json(entry).decode() for entry in page.entries)
        self.assertEqual(
            page_json(page).decode(),
            f'{{"events":[{one},{two}],"position":"0123456789-7","recovered":true}}\n',
        )

    def test_an_empty_page_has_an_empty_array(self) -> None:
        self.assertEqual(
            page_json(HistoryPage([], f"{EPOCH}-0", False)),
            b'{"events":[],"position":"0123456789-0","recovered":false}\n',
        )


class SseTests(SynchronousTestCase):
    def assertDispatches(self, block: bytes, *expected: Message) -> None:
        self.assertEqual(dispatched(block), list(expected))

    def test_a_block_has_the_id_the_type_and_the_data(self) -> None:
        self.assertEqual(
            sse_event(published(b"hello", type="sport")), b"id: 0123456789-7\nevent: sport\ndata: hello\n\n"
        )

    def test_the_id_is_the_position_whatever_id_the_publisher_gave(self) -> None:
        self.assertEqual(sse_event(published(b"hello", id="order-17")), b"id: 0123456789-7\ndata: hello\n\n")

    def test_an_event_stream_of_json_has_the_channel_and_no_event_line(self) -> None:
        event = published(b"a\r\nb", type="sport", id="order-17")
        begin, rest = b"id: 0123456789-7\ndata: ", b"\n\n"
        self.assertEqual(sse_json_event(event), begin + event_json(event) + rest)
        self.assertEqual(len(sse_json_event(event).splitlines()), 3)

    def test_without_type_or_id_there_are_no_such_lines(self) -> None:
        self.assertEqual(sse_event(published(b"hello")), b"id: 0123456789-7\ndata: hello\n\n")
        self.assertEqual(sse_block("hello"), b"data: hello\n\n")
        self.assertEqual(sse_line(b"hello", "ping", "7"), sse_block("hello", type="ping", id="7"))

    def test_each_form_of_line_break_begins_a_new_line_of_data(self) -> None:
        for line_break in BREAKS:
            block = sse_block(f"a{line_break}b")
            self.assertEqual(block, b"data: a\ndata: b\n\n")
            self.assertDispatches(block, Message("a\nb"))

    def test_two_line_breaks_are_an_empty_line_of_data_and_do_not_end_the_event(self) -> None:
        for first in BREAKS:
            for second in BREAKS:
                count = 1 if first + second == "\r\n" else 2
                self.assertDispatches(sse_block(f"a{first}{second}b"), Message("a" + "\n" * count + "b"))

    def test_empty_data_is_dispatched_all_the_same(self) -> None:
        self.assertEqual(sse_block(""), b"data: \n\n")
        self.assertDispatches(sse_block("", type="ping"), Message("", "ping"))

    def test_leading_and_trailing_line_breaks_are_kept(self) -> None:
        for line_break in BREAKS:
            self.assertDispatches(sse_block(f"{line_break}a{line_break}{line_break}"), Message("\na\n\n"))
            self.assertDispatches(sse_block(line_break), Message("\n"))

    def test_what_looks_like_a_field_or_a_comment_is_data(self) -> None:
        for text in (": no comment", "id: 5\nevent: x", "data", "retry: 1", " a", "  a", "\ufeff", "a:b"):
            self.assertDispatches(sse_block(text), Message(text))

    def test_a_leading_space_belongs_to_the_type_and_to_the_id(self) -> None:
        self.assertDispatches(sse_block("", type=" a", id=" b"), Message("", " a", " b"))

    def test_other_separators_are_no_line_breaks(self) -> None:
        text = "a\x0bb\x0cc\x1cd\x85e\u2028f\u2029g"
        self.assertEqual(sse_block(text).count(b"\n"), 2)
        self.assertDispatches(sse_block(text), Message(text))

    def test_binary_is_a_json_object_of_data_base64(self) -> None:
        block = sse_event(published(b"\xff\n", is_text=False, type="t"))
        self.assertEqual(block, b'id: 0123456789-7\nevent: t\ndata: {"data_base64":"/wo="}\n\n')


class WebSocketTests(SynchronousTestCase):
    def test_the_length_takes_one_three_or_nine_bytes(self) -> None:
        for size, head in (
            (0, "8100"),
            (125, "817d"),
            (126, "817e007e"),
            (65535, "817effff"),
            (65536, "817f0000000000010000"),
        ):
            frame = websocket_frame(bytes(size), TEXT)
            self.assertEqual(frame[: len(head) // 2].hex(), head)
            self.assertEqual(len(frame), len(head) // 2 + size)

    def test_a_frame_of_any_length_is_read_as_it_was_written(self) -> None:
        for size in SIZES:
            frame = unframed(websocket_frame(b"x" * size, BINARY))
            self.assertEqual((frame.opcode, frame.fin, len(frame.data)), (Opcode.BINARY, True, size))

    def test_a_message_is_a_text_frame_of_json(self) -> None:
        frame = unframed(websocket_message({"type": "error", "detail": "é"}))
        self.assertEqual((frame.opcode, frame.data), (Opcode.TEXT, '{"type":"error","detail":"é"}'.encode()))

    def test_an_event_is_a_text_frame_even_if_its_data_are_binary(self) -> None:
        for entry in (published(b"x"), published(b"\xff", is_text=False)):
            frame = unframed(websocket_event(entry))
            self.assertEqual((frame.opcode, bytes(frame.data) + b"\n"), (Opcode.TEXT, stream_line(entry)))

    def test_bare_data_are_text_or_binary_as_published(self) -> None:
        for is_text, opcode in ((True, Opcode.TEXT), (False, Opcode.BINARY)):
            frame = unframed(websocket_data(published(b"x", is_text=is_text)))
            self.assertEqual((frame.opcode, frame.data), (opcode, b"x"))


class OnceTests(SynchronousTestCase):
    def test_every_format_of_an_event_is_made_once(self) -> None:
        for encode in ENCODERS:
            entry = published(b"x")
            self.assertIs(entry.frame(encode), entry.frame(encode))
            self.assertEqual(entry.frame(encode), encode(published(b"x")))

    def test_all_json_formats_share_one_encoding_of_the_event(self) -> None:
        entry = published(b"x")
        entry.frames[event_json] = b'{"made":"before"}'
        self.assertEqual(page_json(HistoryPage([entry], "p", True))[:29], b'{"events":[{"made":"before"}]')
        self.assertIn(b'"made":"before"', stream_line(entry))
        self.assertIn(b'"made":"before"', websocket_event(entry))


class AnyEventTests(TestCase):
    @given(entries())
    def test_json_says_what_the_event_is(self, entry: Entry) -> None:
        event, found = entry.event, members(event_json(entry))
        if event.is_text:
            self.assertEqual(str(found["data"]).encode(), event.data)
        else:
            self.assertNotIn("data", found)
        self.assertEqual((found["id"], found.get("event")), (event.id, event.type))
        self.assertEqual(found.get("position", found["id"]), event.position)

    @given(st.lists(entries(), max_size=3), ids, st.booleans())
    def test_a_page_is_valid_json_on_one_line(self, some: list[Entry], position: str, recovered: bool) -> None:
        line = page_json(HistoryPage(some, position, recovered))
        self.assertEqual((line.count(b"\n"), line[-1:]), (1, b"\n"))
        self.assertEqual(
            members(line),
            {
                "events": [members(event_json(one)) for one in some],
                "position": position,
                "recovered": recovered,
            },
        )

    @given(entries())
    def test_a_stream_line_is_one_line(self, entry: Entry) -> None:
        line = stream_line(entry)
        self.assertEqual((line.count(b"\n"), line[-1:], b"\r" in line), (1, b"\n", False))
        self.assertEqual(members(line), {"type": "event", **members(event_json(entry))})

    @given(lines, types, ids)
    def test_an_event_stream_gives_the_data_back_with_line_breaks_normalised(
        self, text: str, event_type: str | None, event_id: str
    ) -> None:
        block = sse_event(published(text.encode(), type=event_type, id=event_id))
        data = text.replace("\r\n", "\n").replace("\r", "\n")
        self.assertEqual(dispatched(block), [Message(data, event_type or "message", f"{EPOCH}-7")])

    @given(st.lists(entries(), max_size=4))
    def test_blocks_in_a_row_are_events_in_a_row(self, some: list[Entry]) -> None:
        stream = b"retry: 2000\nid: begin\n\n" + b":\n".join(map(sse_event, some))
        self.assertEqual([message.id for message in dispatched(stream)], [entry.event.position for entry in some])

    @given(st.binary() | st.sampled_from(SIZES).map(bytes), st.sampled_from((TEXT, BINARY)))
    def test_a_websocket_frame_gives_the_payload_back(self, payload: bytes, opcode: int) -> None:
        frame = unframed(websocket_frame(payload, opcode))
        self.assertEqual((frame.data, frame.opcode, frame.fin), (payload, opcode, True))
        self.assertEqual((frame.rsv1, frame.rsv2, frame.rsv3), (False, False, False))
