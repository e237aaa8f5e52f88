"""Parse and check the JSON that clients send: events to publish, and WebSocket commands."""

from __future__ import annotations

import binascii
from base64 import b64decode
from collections.abc import Set
from typing import Any

from pushd.bus import MAX_NAME_BYTES, Draft, check_name
from pushd.errors import BadRequest, TooLarge, suggestion
from pushd.wire.json import read_json
from pushd.wire.json_shape import SHORT_BYTES, check_shape, check_strings

__all__ = [
    "DRAFT_FIELDS",
    "MAX_CHANNELS",
    "MAX_REF_CHARACTERS",
    "Ref",
    "check_fields",
    "check_since",
    "check_size",
    "json_type",
    "longest_in_json",
    "longest_message",
    "optional_text_field",
    "parse_draft",
    "parse_object",
    "text_field",
]

Ref = str | int | None
"""The ``ref`` of a command, chosen by the client to match the reply."""

_OTHER_BYTES = 40 * 1024
"""The maximum bytes of a message besides the data of an event and the names of channels."""

_NAME_BYTES = 6 * MAX_NAME_BYTES + 8
"""The maximum bytes of the name of a channel in JSON: each byte escaped, plus quotes and separators."""

MAX_CHANNELS = 100
"""The default for how many channels an event may be published to."""

_JSON_BYTES = 2**20 - 8 * 1024
"""The maximum bytes of the data of an event in JSON, unless ``event_size`` is larger."""

_SHORT_ESCAPES = b'"\\\b\t\n\f\r'

_LONG_ESCAPES = bytes(code for code in range(32) if code not in _SHORT_ESCAPES)
"""The characters that take six bytes in JSON; those in `_SHORT_ESCAPES` take two."""

MAX_REF_CHARACTERS = 255
"""The maximum length of a ``ref`` that is a string."""


def check_since(since: str) -> str:
    """Return `since` unless it is empty, else raise `BadRequest`. The log checks whether it is a position."""
    if not since:
        raise BadRequest("since is empty; expected latest, earliest or the id of an event", "since")
    return since


def longest_in_json(max_event_bytes: int) -> int:
    """Return the maximum bytes of the data of one event in JSON; `max_event_bytes` limits the data itself.

    Up to the default of ``event_size``, a message fits into the 1 MiB that WebSocket clients such as Python's
    ``websockets`` accept by default, with 8 KiB for names. Larger events need clients that accept more anyway.
    """
    return _JSON_BYTES if max_event_bytes <= _JSON_BYTES else 6 * max_event_bytes


def check_size(data: bytes, max_bytes: int, *, is_text: bool = True) -> None:
    """Raise `TooLarge` if the data of an event exceeds `max_bytes`, or does not fit into a JSON message.

    Text with few escapes always fits up to `max_bytes`. Quotes, backslashes and line breaks take two bytes each,
    other control characters six; data that is not text takes four bytes of base64 per three bytes.
    """
    size = len(data)
    if size > max_bytes:
        raise TooLarge(f"the data has {size} bytes; [limits] event_size is {max_bytes}", "data")
    if size * 6 <= _JSON_BYTES:  # fast path: fits even if each byte is escaped
        return
    most, in_json = longest_in_json(max_bytes), _size_in_json(data, is_text)
    if in_json > most:
        raise TooLarge(
            f"the data takes {in_json} bytes in JSON; [limits] event_size allows {most}",
            "data",
        )


def _size_in_json(data: bytes, is_text: bool) -> int:
    """Return the bytes that the data takes in JSON: as escaped text, or as base64 if it is not UTF-8."""
    if is_text:
        try:
            data.decode()
        except UnicodeDecodeError:
            is_text = False
    if not is_text:
        return (len(data) + 2) // 3 * 4
    short = len(data) - len(data.translate(None, _SHORT_ESCAPES))
    return len(data) + short + 5 * (len(data) - len(data.translate(None, _LONG_ESCAPES)))


def longest_message(max_event_bytes: int, max_channels: int = MAX_CHANNELS) -> int:
    """Return the maximum bytes of a JSON object with an event of up to `max_event_bytes` to `max_channels`.

    JSON may take six bytes per byte (a control character, as its escape), in the names of channels as well.
    """
    return 6 * max_event_bytes + _OTHER_BYTES + _NAME_BYTES * max_channels


def parse_object(
    text: bytes | str, max_event_bytes: int | None = None, max_channels: int = MAX_CHANNELS
) -> dict[str, Any]:
    """Parse one JSON object; raise `BadRequest` if `text` is anything else.

    With `max_event_bytes`, a text longer than `SHORT_BYTES` must have the shape of an event of up to that size
    for at most `max_channels`; otherwise raises `BadRequest` or `TooLarge`.
    """
    is_long = max_event_bytes is not None and len(text) > SHORT_BYTES
    bounds = max_event_bytes or 0, _OTHER_BYTES + _NAME_BYTES * max_channels
    if is_long and isinstance(text, bytes):
        check_shape(text, *bounds)
    try:
        value = read_json(text)
    except UnicodeDecodeError:
        raise BadRequest("not valid UTF-8; expected a JSON object") from None
    except RecursionError:
        raise BadRequest("nested too deeply; expected a JSON object") from None
    except ValueError as error:
        raise BadRequest(f"not JSON ({error}); expected a JSON object") from None
    if not isinstance(value, dict):
        raise BadRequest(f"a JSON {json_type(value)}; expected a JSON object")
    if is_long:
        check_strings(value, *bounds)
    return value


def json_type(value: object) -> str:
    """Return the JSON type of a parsed value, for messages."""
    if value is None:
        return "null"
    names = {list: "array", dict: "object", str: "string", bool: "boolean"}
    return names.get(type(value), "number")


def check_fields(message: dict[str, Any], known: Set[str]) -> None:
    """Raise `BadRequest` with a suggestion if `message` has a field that is not in `known`."""
    if message.keys() <= known:
        return
    name = next(name for name in message if name not in known)
    hint = suggestion(name, {it: it for it in sorted(known)})
    raise BadRequest(f"unknown field {name[:64]!r}; {hint}", name[:64])


def text_field(message: dict[str, Any], name: str) -> str:
    """Return a required string of `message`; raise `BadRequest` if it is missing or has another type."""
    value = message.get(name)
    if isinstance(value, str):
        return value
    if name not in message:
        raise BadRequest(f"{name} is missing", name)
    raise BadRequest(f"{name} is a JSON {json_type(value)}; expected a string", name)


def optional_text_field(message: dict[str, Any], name: str) -> str | None:
    """Return a string of `message`, or None if it is null or missing; raise `BadRequest` for another type."""
    value = message.get(name)
    return value if value is None or isinstance(value, str) else text_field(message, name)


def _data(message: dict[str, Any]) -> tuple[bytes, bool]:
    """Return the data of an event, and whether it is text."""
    if ("data" in message) == ("data_base64" in message):
        raise BadRequest("expected one of data (a string) and data_base64", "data")
    if "data" in message:
        try:
            return text_field(message, "data").encode(), True
        except UnicodeEncodeError:
            raise BadRequest("data is not valid Unicode: it has a lone surrogate", "data") from None
    try:
        return b64decode(text_field(message, "data_base64"), validate=True), False
    except (binascii.Error, ValueError) as error:
        raise BadRequest(f"data_base64 is not base64: {error}", "data_base64") from None


def _channels(message: dict[str, Any], max_channels: int) -> tuple[str, ...]:
    if ("channel" in message) == ("channels" in message):
        raise BadRequest("expected one of channel (a string) and channels (an array of strings)", "channel")
    if "channel" in message:
        return (text_field(message, "channel"),)
    names = message["channels"]
    if isinstance(names, list) and len(names) > max_channels:  # before the names are checked
        limit = f"[limits] channels_per_event is {max_channels}"
        raise BadRequest(f"the event is for {len(names)} channels; {limit}", "channels")
    if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
        raise BadRequest("channels must be an array of one or more strings", "channels")
    return tuple(names)


DRAFT_FIELDS = frozenset({"channel", "channels", "data", "data_base64", "event", "id"})


def parse_draft(
    message: dict[str, Any], max_channels: int = MAX_CHANNELS, fields: Set[str] = DRAFT_FIELDS
) -> Draft:
    """Parse ``{"channel" or "channels", "data" or "data_base64", "event"?, "id"?}``, with up to `max_channels`.

    Raises `BadRequest` with the name of the field that is unknown, missing, invalid or too long.
    """
    if len(message) == 2:  # fast path for almost all messages: ASCII text for one channel
        name, text = message.get("channel"), message.get("data")
        if isinstance(name, str) and isinstance(text, str) and text.isascii():
            return Draft((check_name(name),), text.encode(), True)
    check_fields(message, fields)
    names = _channels(message, max_channels)
    data, is_text = _data(message)
    kind, event_id = optional_text_field(message, "event"), optional_text_field(message, "id")
    return Draft.checked(names, data, is_text=is_text, type=kind, id=event_id)
