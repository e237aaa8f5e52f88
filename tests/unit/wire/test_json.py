"""JSON, whoever reads and writes it: the standard library is the measure."""

from __future__ import annotations

import json
from math import inf, isfinite, nan
from typing import Any

from hypothesis import example, given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from pushd.wire.json import json_bytes, json_line, read_json, read_strict_json

INTEGERS = st.integers(-(2**63), 2**64 - 1)
VALUES = st.recursive(
    st.none() | st.booleans() | INTEGERS | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)
WELL_FORMED = VALUES.map(json.dumps) | VALUES.map(lambda value: json.dumps(value, ensure_ascii=False, indent=1))
PIECES = ("{", "}", "[", "]", ":", ",", '"', "\\", "\\ud800", "\\u", "0", "-", "1", ".", "e9", "a", " ", "\n")
FRAGMENTS = st.lists(st.sampled_from((*PIECES, "true", "null", "NaN", "\x00", "\ufeff", "\xa0", "é"))).map("".join)

REFUSED = (
    "", " ", "{", '{"a":}', "{'a':1}", '{"a":1}x', "{}{}", '["\n"]', '"\x00"', "\x00", "01", ".1", "1.", "+1", "1e",
    "[1,]", '{"a":1,}', '"\\x"', '"\\u12"', "\ufeff{}", "\x0c{}", "\xa0{}", "tru", "NaN", "-Infinity", "[Infinity]",
    "1" * 4301, "1" * 5000,
)  # fmt: skip
"""Not JSON, or more than anybody wants to read."""


def expected(text: str) -> Any:
    """Read `text` with the standard library, which is to take no more than JSON is."""

    def refuse(name: str) -> None:
        raise ValueError(f"{name} is not JSON")

    return json.loads(text, parse_constant=refuse)


class ReadTests(SynchronousTestCase):
    def test_nesting_is_limited_to_1024_with_every_python(self) -> None:
        self.assertIsInstance(read_json("[" * 1024 + "]" * 1024), list)
        for depth in (1025, 30_000):
            self.assertRaises(RecursionError, read_json, "[" * depth + "]" * depth)

    def assertRead(self, text: str) -> None:
        """It comes as the standard library reads it, or is refused in the same words."""
        try:
            value = expected(text)
        except ValueError as error:
            for form in text, text.encode():
                self.assertEqual(str(self.assertRaises(ValueError, read_json, form)), str(error))
        else:
            for form in text, text.encode():
                self.assertEqual(repr(read_json(form)), repr(value))

    @given(WELL_FORMED | FRAGMENTS)
    def test_what_is_read_and_what_is_refused_is_as_by_the_standard_library(self, text: str) -> None:
        self.assertRead(text)

    def test_what_is_refused_is_refused_in_its_words(self) -> None:
        for text in REFUSED:
            self.assertRaises(ValueError, expected, text)
            self.assertRead(text)

    def test_of_members_with_one_name_the_last_counts_at_the_place_of_the_first(self) -> None:
        self.assertRead('{"b":1,"a":1,"b":2}')

    def test_numbers_at_the_limits(self) -> None:
        for number in (2**64 - 1, -(2**63), "-0", "-0.0", "5e-324", "1e-400", "1e999", "-1e999"):
            self.assertRead(str(number))
        self.assertRead("1" * 4300)

    def test_an_integer_of_more_than_64_bits_is_a_number(self) -> None:
        for number in (2**64, -(2**63) - 1, 10**300):
            self.assertAlmostEqual(read_json(str(number)) / number, 1)

    def test_a_lone_surrogate_in_an_escape_comes_as_one(self) -> None:
        for text in ('"\\ud800"', '"a\\udfffb"', '{"\\udc00":"\\ud83d\\ude00"}', '"\\ud800\\ud800"'):
            self.assertRead(text)

    def test_what_is_not_utf_8_is_refused(self) -> None:
        for text in (b'"\xff"', b'"\xc3"', b'"\xed\xa0\x80"', b'"\xc0\x80"', b'"\xf4\x90\x80\x80"', b"\xa0{}"):
            self.assertRaises(UnicodeDecodeError, read_json, text)
        self.assertRaises(ValueError, read_json, '"\ud800'.encode("utf-8", "surrogatepass"))
        for encoding in ("utf-16", "utf-32-le"):
            self.assertRaises(ValueError, read_json, "{}".encode(encoding))

    def test_a_lone_surrogate_in_text_comes_as_one(self) -> None:
        self.assertEqual(read_json('"\ud800"'), "\ud800")

    def test_nesting_is_read_or_refused_but_never_too_much(self) -> None:
        for depth in (100, 500, 100_000, 1_000_000):
            for begin, end in (("[", "]"), ('{"a":', "}")):
                text = begin * depth + "0" + end * depth
                if depth > 1000:
                    self.assertRaises(RecursionError, read_json, text)
                    self.assertRaises(RecursionError, read_json, text.encode())
                else:
                    self.assertEqual(read_json(text), read_json(text.encode()))


class StrictTests(SynchronousTestCase):
    @given(VALUES)
    def test_what_was_written_is_read(self, value: Any) -> None:
        self.assertEqual(repr(read_strict_json(json.dumps(value).encode())), repr(value))

    def test_what_others_may_read_as_something_else_is_refused(self) -> None:
        for text, why in (
            (b'{"a":1,"b":2,"a":1}', "the member 'a' is there more than once"),
            (b'[{"a":{"b":1,"\\u0062":1}}]', "the member 'b' is there more than once"),
            (b"[NaN]", "NaN is not JSON"),
            (b"-Infinity", "-Infinity is not JSON"),
            (b"1e400", "a number is too large"),
            (b"[-1e400]", "a number is too large"),
            (b"1" * 101, "an integer has 101 digits"),
        ):
            error = self.assertRaises(ValueError, read_strict_json, text)
            self.assertEqual(str(error), why)
        self.assertEqual(read_strict_json(b"1" * 100), int("1" * 100))

    def test_bytes_have_to_be_utf_8(self) -> None:
        for text in b"\xff", "{}".encode("utf-16"), b"\xef\xbb\xbf{}":
            self.assertRaises(ValueError, read_strict_json, text)


class WriteTests(SynchronousTestCase):
    @given(st.dictionaries(st.text(), VALUES))
    @example({"a": "".join(map(chr, range(0x180))) + "\u2028\u2029\ufeff\uffff\U0010ffff"})
    @example({"a": "null", "b": None, "null": [None]})
    @example({"time": 1_700_000_000.123456, "b": 0.1, "c": -0.0})
    def test_it_is_what_the_standard_library_reads(self, message: dict[str, Any]) -> None:
        self.assertEqual(repr(json.loads(json_bytes(message))), repr(message))

    @given(st.dictionaries(st.text(), st.text(st.characters()) | INTEGERS | st.none() | st.booleans()))
    @example({"a": "".join(map(chr, range(0x180))) + "\u2028\u2029\ufeff\uffff\U0010ffff"})
    def test_it_is_what_the_standard_library_writes(self, message: dict[str, Any]) -> None:
        written = json.dumps(message, ensure_ascii=False, separators=(",", ":"))
        self.assertEqual(json_bytes(message), written.encode(errors="backslashreplace"))

    def test_a_lone_surrogate_is_escaped(self) -> None:
        self.assertEqual(json_bytes({"a": "\ud800b", "\udfff": None}), b'{"a":"\\ud800b","\\udfff":null}')

    def test_an_integer_of_any_size_is_written(self) -> None:
        for number in (2**64, -(2**63) - 1, 10**300):
            self.assertEqual(json_bytes({"a": number}), b'{"a":%d}' % number)

    def test_a_number_that_is_not_finite_is_a_fault(self) -> None:
        for number in (nan, inf, -inf):
            self.assertFalse(isfinite(number))
            self.assertRaises(ValueError, json_bytes, {"a": [{"b": number}]})

    def test_a_line_ends(self) -> None:
        self.assertEqual(json_line({"a": "\n"}), b'{"a":"\\n"}\n')
