"""What clients send as JSON: taken whole, or refused with the field that was wrong."""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Callable
from typing import Any
from unittest import TestCase

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from pushd.bus.event import Draft
from pushd.bus.patterns import Pattern
from pushd.config import loader as reading
from pushd.errors import BadRequest, Refused, TooLarge
from pushd.transports.websocket.commands import Command, Publish, Subscribe, Unsubscribe, parse_command, parse_ref
from pushd.wire.json import json_bytes
from pushd.wire.messages import Ref, check_since, check_size, parse_draft, parse_object

Message = dict[str, Any]

LONE_SURROGATES = "\ud800", "a\udfff", "\udc80b"
NO_STRINGS: tuple[Any, ...] = (None, True, False, 0, 1.5, [], ["a"], {}, {"a": "b"})
NO_REFS: tuple[Any, ...] = (
    True,
    False,
    1.5,
    [],
    {},
    "a\nb",
    "\x00",
    "x" * 256,
    "\ud800",
    2**53,
    -(2**53),
    10**4000,
)
FIELDS = ("type", "channel", "channels", "data", "data_base64", "event", "id", "since", "ref")

scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters())
values = st.recursive(scalars, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=8)
plausible = st.sampled_from(("subscribe", "unsubscribe", "publish", "a", "news/*", "latest", "YQ==", "", "a\n", 7))
commands = st.fixed_dictionaries(
    {"type": st.sampled_from(("subscribe", "unsubscribe", "publish")) | values},
    optional={field: plausible | values for field in FIELDS if field != "type"},
)
messages = commands | st.dictionaries(st.sampled_from(FIELDS) | st.text(), plausible | values)


def draft(**members: Any) -> Message:
    """Make what is published with nothing else said."""
    return {"channel": "a", "data": "x", **members}


def subscribe(**members: Any) -> Message:
    """Make a command to subscribe."""
    return {"type": "subscribe", "channel": "a", **members}


def without(message: Message, field: str) -> Message:
    """Leave out one field."""
    return {name: value for name, value in message.items() if name != field}


class MessageCase(SynchronousTestCase):
    def assertRefused(
        self, parse: Callable[[Message], object], message: Message, field: str, says: str = ""
    ) -> None:
        """Check that a bad request says which field was wrong, and can be told to the client."""
        error = self.assertRaises(BadRequest, parse, message)
        self.assertEqual(error.field, field, (message, error.detail))
        self.assertIn(says, error.detail)
        self.assertEqual(json.loads(json_bytes(error.problem()))["detail"], error.detail)


class ObjectTests(SynchronousTestCase):
    def assertNoObject(self, text: bytes | str, *says: str) -> None:
        error = self.assertRaises(BadRequest, parse_object, text)
        self.assertTrue(error.detail.endswith("expected a JSON object"), error.detail)
        for part in says:
            self.assertIn(part, error.detail)

    def test_an_object_is_read_from_text_and_from_utf_8(self) -> None:
        for text in ('{"a": "é", "b": [1, null]}', ' {"a":"\\u00e9","b":[1,null]}\n'):
            self.assertEqual(parse_object(text), {"a": "é", "b": [1, None]})
            self.assertEqual(parse_object(text.encode()), {"a": "é", "b": [1, None]})

    def test_any_other_json_value_is_refused_by_its_kind(self) -> None:
        for text, kind in (
            ("[]", "array"),
            ('"a"', "string"),
            ("1", "number"),
            ("1.5", "number"),
            ("true", "boolean"),
            ("null", "null"),
        ):
            self.assertNoObject(text, f"a JSON {kind};")

    def test_what_is_not_json_is_refused_with_the_place(self) -> None:
        for text in ("", " ", "{", "{'a':1}", '{"a":1}x', '{"a":1}{"a":1}', '{"a":"\n"}', "\x00", '{"a":01}'):
            self.assertNoObject(text, "not JSON", "char ")

    def test_what_is_not_utf_8_is_refused(self) -> None:
        for text in (b'{"a":"\xff"}', b'{"a":"\xc3"}', b"\x80"):
            self.assertNoObject(text, "not valid UTF-8")

    def test_numbers_that_json_does_not_have_are_refused(self) -> None:
        for name in ("NaN", "Infinity", "-Infinity"):
            self.assertNoObject(f'{{"a":{name}}}', f"{name} is not JSON")

    def test_an_integer_too_long_to_convert_is_refused(self) -> None:
        for text in (f'{{"a":{"1" * 5001}}}', f'{{"a":-{"9" * 100_000}}}', f'{{"a":[{{"b":1{"0" * 5000}}}]}}'):
            self.assertNoObject(text)

    def test_a_long_integer_that_can_be_converted_is_only_a_number(self) -> None:
        self.assertEqual(parse_object(f'{{"a":1{"0" * 4000}}}'), {"a": 10**4000})

    def test_deep_nesting_is_refused(self) -> None:
        for depth in (10_000, 200_000):
            for begin, end in (("[", "]"), ('{"a":', "}")):
                self.assertNoObject('{"a":' + begin * depth + "1" + end * depth + "}", "nested too deeply")
                self.assertNoObject('{"a":' + begin * depth, "nested too deeply")

    def test_of_a_key_that_is_there_twice_the_last_one_counts(self) -> None:
        self.assertEqual(parse_object('{"a":1,"b":2,"a":3}'), {"a": 3, "b": 2})

    def test_other_encodings_are_refused(self) -> None:
        for encoding in ("utf-16", "utf-16-le", "utf-32"):
            self.assertNoObject('{"a":1}'.encode(encoding))


class DraftTests(MessageCase):
    def assertDraft(self, message: Message, expected: Draft) -> None:
        self.assertEqual(parse_draft(message), expected)

    def test_a_channel_and_data_are_enough(self) -> None:
        self.assertDraft({"channel": "a", "data": "é"}, Draft(("a",), "é".encode(), True))

    def test_there_may_be_several_channels(self) -> None:
        self.assertDraft({"channels": ["b", "a", "b"], "data": ""}, Draft(("b", "a"), b"", True))

    def test_data_may_be_base64_and_is_not_text_then(self) -> None:
        self.assertDraft({"channel": "a", "data_base64": "YQ=="}, Draft(("a",), b"a", False))
        self.assertDraft({"channel": "a", "data_base64": ""}, Draft(("a",), b"", False))

    def test_the_type_and_the_id_are_taken(self) -> None:
        self.assertDraft(draft(event="t", id="i"), Draft(("a",), b"x", True, "t", "i"))

    def test_null_is_the_same_as_no_type_or_id(self) -> None:
        self.assertDraft(draft(event=None, id=None), Draft(("a",), b"x", True))

    def test_data_are_wanted_in_exactly_one_form(self) -> None:
        self.assertRefused(parse_draft, {"channel": "a"}, "data", "data_base64")
        self.assertRefused(parse_draft, draft(data_base64="YQ=="), "data", "data_base64")

    def test_channels_are_wanted_in_exactly_one_form(self) -> None:
        self.assertRefused(parse_draft, {"data": "x"}, "channel", "channels")
        self.assertRefused(parse_draft, draft(channels=["a"]), "channel", "channels")

    def test_what_must_be_a_string_is_refused_by_its_name_and_kind(self) -> None:
        for value in NO_STRINGS:
            for field in ("data", "channel", "data_base64"):
                message = draft(**{field: value})
                if field == "data_base64":
                    message = without(message, "data")
                self.assertRefused(parse_draft, message, field, f"{field} is a JSON ")
        for value in NO_STRINGS[1:]:
            for field in ("event", "id"):
                self.assertRefused(parse_draft, draft(**{field: value}), field, f"{field} is a JSON ")

    def test_channels_are_an_array_of_one_or_more_strings(self) -> None:
        wrongs: tuple[Any, ...] = (None, "a", 1, {}, [], [1], ["a", None], [["a"]])
        for value in wrongs:
            self.assertRefused(parse_draft, {"channels": value, "data": "x"}, "channels", "array")

    def test_no_channel_may_be_a_pattern_or_malformed(self) -> None:
        for name in ("", "*", "a/**", "a\n", "x" * 256, *LONE_SURROGATES):
            self.assertRefused(parse_draft, draft(channel=name), "channel")
            self.assertRefused(parse_draft, {"channels": ["a", name], "data": "x"}, "channel")

    def test_the_type_and_the_id_are_checked(self) -> None:
        for wrong in ("", "a\nb", "\x00", "x" * 256, *LONE_SURROGATES):
            for field in ("event", "id"):
                self.assertRefused(parse_draft, draft(**{field: wrong}), field)
        for reserved in ("latest", "earliest", "0123456789-1"):
            self.assertRefused(parse_draft, draft(id=reserved), "id")

    def test_text_with_a_lone_surrogate_is_refused(self) -> None:
        for data in LONE_SURROGATES:
            self.assertRefused(parse_draft, draft(data=data), "data", "lone surrogate")
        self.assertRefused(parse_draft, parse_object(b'{"channel":"a","data":"\\ud800"}'), "data")
        self.assertRaises(BadRequest, parse_object, b'{"channel":"a","data":"\xed\xa0\x80"}')

    def test_a_pair_of_surrogates_is_one_character(self) -> None:
        self.assertDraft(
            parse_object(b'{"channel":"a","data":"\\ud83d\\ude00"}'), Draft(("a",), "\U0001f600".encode(), True)
        )

    def test_what_is_not_base64_is_refused(self) -> None:
        wrongs = ("a", "YQ", "YQ=", "YQ===", "Y Q==", "YQ==\n", "YQ==YQ==", "-_-_", "=", "é", "\ud800")
        for wrong in wrongs:
            self.assertRefused(parse_draft, {"channel": "a", "data_base64": wrong}, "data_base64", "not base64")

    def test_an_unknown_field_is_refused_with_the_allowed_ones(self) -> None:
        for field in ("", "type", "ref", "__class__", "é\n"):
            self.assertRefused(parse_draft, draft(**{field: "x"}), field, "expected one of channel, channels, data")

    def test_an_unknown_field_that_is_similar_to_one_is_refused_with_that(self) -> None:
        for field, meant in (("channle", "channel"), ("Data", "data"), ("evnt", "event")):
            self.assertRefused(parse_draft, draft(**{field: "x"}), field, f"did you mean {meant}?")

    def test_an_unknown_field_that_is_not_unicode_can_be_told_too(self) -> None:
        self.assertRefused(parse_draft, parse_object(b'{"channel":"a","data":"","\\ud800":1}'), "\ud800")


class ChannelsTests(MessageCase):
    def test_an_event_has_as_many_channels_as_the_limit_allows(self) -> None:
        event = {"channels": ["a", "b", "c"], "data": "x"}
        self.assertEqual(parse_draft(event, 3).channels, ("a", "b", "c"))
        says = "the event is for 3 channels; [limits] channels_per_event is 2"
        self.assertRefused(lambda message: parse_draft(message, 2), event, "channels", says)


class RefTests(MessageCase):
    def test_a_ref_is_a_short_text_or_a_whole_number_and_comes_back_as_it_is(self) -> None:
        refs: tuple[Ref, ...] = (None, "", "a b", "é", "x" * 255, 0, -1, 2**53 - 1, 1 - 2**53)
        for ref in refs:
            found = parse_ref({"ref": ref})
            self.assertEqual((found, type(found)), (ref, type(ref)))

    def test_there_need_be_none(self) -> None:
        self.assertIsNone(parse_ref({}))

    def test_any_other_ref_is_refused(self) -> None:
        for ref in NO_REFS:
            self.assertRefused(parse_ref, {"ref": ref}, "ref")

    def test_every_command_gives_its_ref(self) -> None:
        for message in (subscribe(), {"type": "unsubscribe", "channel": "a"}, {"type": "publish", **draft()}):
            for ref in (None, "r", 5):
                self.assertEqual(parse_command({**message, "ref": ref}).ref, ref)
            self.assertIsNone(parse_command(message).ref)
            self.assertRefused(parse_command, {**message, "ref": 1.5}, "ref")


class CommandTests(MessageCase):
    def assertCommand(self, message: Message, expected: Command) -> None:
        self.assertEqual(parse_command(message), expected)

    def test_subscribing_begins_at_the_latest_unless_a_position_is_given(self) -> None:
        self.assertCommand(subscribe(), Subscribe(Pattern.parse("a"), "latest", None))
        self.assertCommand(subscribe(since=None), Subscribe(Pattern.parse("a"), "latest", None))
        self.assertCommand(subscribe(since="e-1"), Subscribe(Pattern.parse("a"), "e-1", None))

    def test_one_may_subscribe_to_a_pattern(self) -> None:
        self.assertCommand(subscribe(channel="news/**"), Subscribe(Pattern.parse("news/**"), "latest", None))

    def test_what_one_cannot_subscribe_to_is_refused(self) -> None:
        for name in ("", "a\n", "x" * 256, *LONE_SURROGATES):
            self.assertRefused(parse_command, subscribe(channel=name), "channel")

    def test_an_empty_position_is_refused(self) -> None:
        self.assertRefused(parse_command, subscribe(since=""), "since", "expected latest, earliest or the id")
        self.assertEqual(self.assertRaises(BadRequest, check_since, "").field, "since")
        self.assertEqual(check_since("x"), "x")

    def test_unsubscribing_takes_the_channel_as_it_was_written(self) -> None:
        self.assertCommand({"type": "unsubscribe", "channel": "news/*"}, Unsubscribe("news/*", None))

    def test_publishing_takes_what_a_draft_takes(self) -> None:
        self.assertCommand(
            {"type": "publish", **draft(event="t", id="i"), "ref": 1},
            Publish(Draft(("a",), b"x", True, "t", "i"), 1),
        )
        self.assertRefused(parse_command, {"type": "publish", **draft(id="latest")}, "id")
        self.assertRefused(parse_command, {"type": "publish", "channel": "a"}, "data")

    def test_the_type_is_wanted_and_known(self) -> None:
        self.assertRefused(parse_command, {}, "type", "missing")
        self.assertRefused(parse_command, {"channel": "a"}, "type", "missing")
        for kind in ("", "Subscribe", "event", "subscribe ", "\ud800"):
            self.assertRefused(
                parse_command, subscribe(type=kind), "type", "expected subscribe, unsubscribe, publish or renew"
            )
        for value in NO_STRINGS:
            self.assertRefused(parse_command, subscribe(type=value), "type", "expected a string")

    def test_a_missing_or_wrong_field_is_refused_by_its_name(self) -> None:
        for kind in ("subscribe", "unsubscribe"):
            self.assertRefused(parse_command, {"type": kind}, "channel", "channel is missing")
            for value in NO_STRINGS:
                self.assertRefused(parse_command, {"type": kind, "channel": value}, "channel", "a JSON ")
        for value in NO_STRINGS[1:]:
            self.assertRefused(parse_command, subscribe(since=value), "since", "a JSON ")

    def test_a_field_that_the_command_does_not_have_is_refused(self) -> None:
        for message, field in (
            (subscribe(), "data"),
            (subscribe(), "chanel"),
            ({"type": "unsubscribe", "channel": "a"}, "since"),
            ({"type": "publish", **draft()}, "since"),
        ):
            self.assertRefused(parse_command, {**message, field: "x"}, field, "unknown field")


class SizeTests(SynchronousTestCase):
    def test_data_up_to_the_limit_are_taken(self) -> None:
        for size in (0, 9, 10):
            check_size(b"x" * size, 10)

    def test_data_that_take_too_much_in_json_are_too_large(self) -> None:
        most = 1000 * 1024
        for data in (
            b"\x01" * (most // 5),
            b'"' * (most // 2 + most // 64),
            b"\xff" * (most * 4 // 5),
            b"\n" * most,
        ):
            error = self.assertRaises(TooLarge, check_size, data, most)
            self.assertEqual(error.field, "data")
            self.assertIn("in JSON", error.detail)
        self.assertRaises(TooLarge, check_size, b"x" * most, most, is_text=False)
        for data in (
            b"x" * most,
            b"\xd0\xb1" * (most // 2),
            b"\x7f" * most,
            b"\xff" * (most * 3 // 4),
            b'"' * (most // 2),
        ):
            check_size(data, most)

    def test_a_small_limit_is_that_of_the_data_whatever_json_takes(self) -> None:
        for data in (b"\x01" * 100_000, b'"' * 100_000, b"\xff" * 100_000):
            check_size(data, 100_000)

    @pytest.mark.slow
    def test_with_the_defaults_every_message_fits_into_a_mebibyte(self) -> None:
        most = reading.parse("", "x").limits.event_size_bytes
        largest = 0
        for character in (
            '"',
            "\n",
            "\\",
            "x",
            "\u0431",
            "\u20ac",
            "\U0001f600",
            "\x7f",
            "\x01" + "x" * 4,
            "xxxxxxx\n",
        ):
            for size in range(most // 8, most + 1, most // 80):
                data = (character * size).encode()[:size].decode(errors="ignore")
                try:
                    check_size(data.encode(), most)
                except TooLarge:
                    continue
                largest = max(largest, len(json_bytes({"data": data})))
        self.assertLess(largest, 2**20 - 8000)
        self.assertGreater(largest, 1_000_000)

    def test_data_over_the_limit_are_too_large_and_the_limit_is_told(self) -> None:
        error = self.assertRaises(TooLarge, check_size, bytes(11), 10)
        self.assertEqual((error.status, error.field), (413, "data"))
        self.assertIn("11 bytes; [limits] event_size is 10", error.detail)


class AnyInputTests(TestCase):
    """Whatever comes, there is a result, or a refusal of ours."""

    def assertTakenOrRefused(self, parse: Callable[[Any], object], given: object, *kinds: type) -> None:
        try:
            found = parse(given)
        except Refused as refused:
            self.assertIs(type(refused), BadRequest)
            self.assertTrue(refused.detail)
        else:
            self.assertIsInstance(found, kinds)

    @given(st.text(st.characters()) | st.binary())
    @example('{"a":' * 1000)
    @example(b'{"a":1e999999}')
    def test_any_text_or_bytes(self, given: str | bytes) -> None:
        self.assertTakenOrRefused(parse_object, given, dict)

    @given(st.text(st.sampled_from('{}[]",:\\u d80019eE+-.tfn\x00é\ud800')) | st.binary())
    def test_anything_that_looks_like_json(self, given: str | bytes) -> None:
        self.assertTakenOrRefused(
            parse_object, b'{"a":' + given + b"}" if isinstance(given, bytes) else given, dict
        )

    @given(values)
    def test_any_json_value(self, value: object) -> None:
        self.assertTakenOrRefused(parse_object, json.dumps(value), dict)
        self.assertTakenOrRefused(parse_object, json.dumps({"a": value}), dict)

    @given(messages)
    def test_any_message_as_a_command(self, message: Message) -> None:
        self.assertTakenOrRefused(parse_command, message, Subscribe, Unsubscribe, Publish)

    @given(messages)
    def test_any_message_as_a_draft(self, message: Message) -> None:
        self.assertTakenOrRefused(parse_draft, message, Draft)

    @given(messages)
    def test_every_refusal_of_a_message_names_a_field(self, message: Message) -> None:
        for parse in (parse_command, parse_draft, parse_ref):
            try:
                parse(message)
            except BadRequest as refused:
                self.assertIn(refused.field, {*FIELDS, *(name[:64] for name in message)})

    @given(messages)
    @example({"type": "subscribe", "\ud800": 1})
    def test_every_refusal_of_a_message_can_be_written_as_json(self, message: Message) -> None:
        for parse in (parse_command, parse_draft, parse_ref):
            try:
                parse(message)
            except BadRequest as refused:
                self.assertEqual(json.loads(json_bytes(refused.problem())), refused.problem())

    @given(st.binary(), st.text(st.characters(codec="utf-8")))
    def test_data_come_out_as_they_went_in(self, data: bytes, text: str) -> None:
        found = parse_draft({"channel": "a", "data_base64": b64encode(data).decode()})
        self.assertEqual((found.data, found.is_text), (data, False))
        message = parse_object(json.dumps({"channel": "a", "data": text}))
        self.assertEqual(parse_draft(message), Draft(("a",), text.encode(), True))
