"""What is looked at before a long JSON text is parsed."""

from __future__ import annotations

import contextlib
import json
from base64 import b64encode

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from pushd.errors import BadRequest, Refused, TooLarge
from pushd.wire.json_shape import check_shape
from pushd.wire.messages import longest_message, parse_draft, parse_object
from tests.rigs.effort import examples

SIZE = 2**20
MANY = 2**16 // 3 + 100


def line(data: bytes, name: str = "data") -> bytes:
    """Write an event with JSON that is escaped already."""
    return b'{"channel":"a","' + name.encode() + b'":"' + data + b'"}'


class ShapeTests(SynchronousTestCase):
    """`parse_object` with a limit."""

    def read(self, text: bytes) -> bytes:
        """Read an event; return its data."""
        self.assertLessEqual(len(text), longest_message(SIZE))
        return parse_draft(parse_object(text, SIZE)).data

    def test_every_way_to_write_an_event_of_the_largest_size_is_read(self) -> None:
        names = b",".join(b'"%s%03d"' % (b"\\u0430" * 100, number) for number in range(100))
        for name, escaped in {
            "plain": b"a" * SIZE,
            "control characters": b"\\u0001" * SIZE,
            "quotes": b'\\"' * SIZE,
            "backslashes": b"\\\\" * SIZE,
            "Cyrillic": b"\\u0430" * (SIZE // 2),
            "Cyrillic as it is": "\u0430".encode() * (SIZE // 2),
            "others": b"\\ud83d\\ude00" * (SIZE // 4),
            "escaped letters": b"\\u0061" * SIZE,
            "a bit of all": b'\\"\\\\\\u0001\\u0430\\ud83d\\ude00a\\n' * (SIZE // 11),
        }.items():
            with self.subTest(name):
                self.assertLessEqual(len(self.read(line(escaped))), SIZE)
                with_names = b'{"channels":[' + names + b'],"data":"' + escaped + b'"}'
                self.assertEqual(parse_object(with_names, SIZE)["channels"], json.loads(b"[" + names + b"]"))
        for data in (bytes(SIZE), b"\xff" * SIZE):
            encoded = b64encode(data)
            for form in (encoded, encoded.replace(b"/", b"\\/"), b"\\u002f" + encoded[1:]):
                self.assertEqual(len(self.read(line(form, "data_base64"))), SIZE)

    @examples(50)
    @given(st.text(min_size=1, max_size=50), st.booleans())
    def test_any_text_is_read_however_it_is_written(self, text: str, ascii_only: bool) -> None:
        if not text.isprintable():
            text = text.encode("utf-8", "ignore").decode()
        data = text * (SIZE // max(1, len(text.encode())))
        written = json.dumps({"channel": "a", "data": data}, ensure_ascii=ascii_only).encode()
        self.assertEqual(self.read(written), data.encode())

    def test_what_a_parser_would_make_many_objects_of_is_refused(self) -> None:
        for name, text in {
            "lists": b'{"data":[' + b"[]," * MANY + b"1]}",
            "objects": b'{"data":[' + b"{}," * MANY + b"1]}",
            "numbers": b'{"data":[' + b"1," * 2 * MANY + b"1]}",
            "names": b'{"channels":[' + b'"a",' * MANY + b'"a"]}',
            "members": b"{" + b",".join(b'"%d":1' % number for number in range(MANY)) + b"}",
            "open lists": b"[" * 10**6,
            "a long number": b'{"data":' + b"1" * 10**5 + b"}",
            "beside quotes": b'{"data":["' + b'\\"' * 10_000 + b'",' + b"[]," * MANY + b"1]}",
        }.items():
            with self.subTest(name):
                self.assertRaises(BadRequest, parse_object, text, SIZE)

    def test_an_escaped_quote_does_not_end_a_string(self) -> None:
        """Else what follows it would count as outside of strings, of which there are 64 KiB at most."""
        for few in (1, 2, 31):
            data = b'\\\\\\"' * few + b"a" * (MANY * 4) + b'\\"' * few
            self.assertEqual(len(self.read(line(data))), 3 * few + MANY * 4)

    def test_what_is_not_json_and_has_many_quotes_is_left_to_the_parser(self) -> None:
        many = b'\\"' * 40_000
        for end, why in ((b"\xff", "not valid UTF-8"), (b"\\x", "not JSON"), (b'","', "not JSON")):
            with self.assertRaises(BadRequest) as raised:
                self.read(line(many + end))
            self.assertIn(why, str(raised.exception))

    def test_a_message_too_large_names_the_limit_of_an_event(self) -> None:
        size = SIZE // 2
        for data in (b"a" * 2 * size, b'\\"' * 9000 + b"a" * (size + size // 7)):
            with self.assertRaises(TooLarge) as raised:
                check_shape(line(data + b'","b":"' * 70), size, 1000)
            self.assertIn(f"up to {size} bytes", str(raised.exception))

    def test_what_cannot_be_an_event_is_not_parsed(self) -> None:
        most = longest_message(SIZE)
        for escape in (b"a", b'\\"', b"\\\\", b"\\u0430", b"\\ud83d\\ude00", b"\xd0\xb0"):
            self.assertRaises(TooLarge, parse_object, line(escape * (most // len(escape))), SIZE)

    @examples(200)
    @given(st.lists(st.sampled_from([b'"', b"\\", b"[", b",", b"a", b"\\u", b"\xff"]), min_size=1, max_size=6))
    def test_nothing_raises_anything_else(self, pieces: list[bytes]) -> None:
        text = b"".join(pieces) * 40_000
        with contextlib.suppress(Refused):
            parse_object(text, SIZE)
