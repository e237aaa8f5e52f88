"""What clients send as JSON, checked: events to publish, and the commands of a WebSocket."""

from __future__ import annotations

import binascii
from base64 import b64decode
from collections.abc import Set
from typing import Any

from pushd.bus import MAX_NAME_BYTES, Draft, check_name
from pushd.errors import BadRequest, TooLarge
from pushd.wire.json import read_json
from pushd.wire.json_shape import SHORT_BYTES, check_shape, check_strings

__all__ = [
    "DRAFT_FIELDS",
    "check_fields",
    "check_since",
    "json_type",
    "longest_message",
    "optional_text_field",
    "parse_draft",
    "parse_object",
    "text_field",
]

Ref = str | int | None
"""What a client put into ``ref`` to know the answer by."""


_OTHER_BYTES = 40 * 1024
"""How much a message has beside the data of an event and the names of channels."""


_NAME_BYTES = 6 * MAX_NAME_BYTES + 8
"""How much the name of a channel takes with each byte escaped, and what is around it."""


MAX_CHANNELS = 100
"""How many channels an event may be published to, unless the configuration says otherwise."""


_JSON_BYTES = 2**20 - 8 * 1024
"""How many bytes the data of an event may take in JSON, unless ``event_size`` is larger."""


_SHORT_ESCAPES = b'"\\\b\t\n\f\r'


_LONG_ESCAPES = bytes(code for code in range(32) if code not in _SHORT_ESCAPES)
"""What takes two bytes in JSON, and six."""


MAX_REF_CHARACTERS = 255
"""The longest ``ref`` that is text."""


def check_since(since: str) -> str:
    """Return `since` if it may be a position; the log finds out whether it is one."""
    if not since:
        raise BadRequest("since is empty; wanted latest, earliest or the id of an event", "since")
    return since


def longest_in_json(max_event_bytes: int) -> int:
    """Return how many bytes the data of one event may take in JSON; `max_event_bytes` bounds the data itself.

    Up to the default of ``event_size``, a message fits into the 1 MiB that WebSocket clients such as Python's
    ``websockets`` accept by default, with 8 KiB for names. Larger events need clients that accept more anyway.
    """
    return _JSON_BYTES if max_event_bytes <= _JSON_BYTES else 6 * max_event_bytes


def check_size(data: bytes, max_bytes: int, *, is_text: bool = True) -> None:
    """Raise `TooLarge` if the data of an event has more than `max_bytes`, or does not fit into a JSON message.

    Text of few escapes and up to `max_bytes` always fits; quotes, backslashes and line breaks take two bytes each,
    other control characters six, and four bytes of base64 stand for three of what is not text.
    """
    size = len(data)
    if size > max_bytes:
        raise TooLarge(f"the data has {size} bytes; [limits] event_size is {max_bytes}", "data")
    if size * 6 <= _JSON_BYTES:  # it fits, whatever it is
        return
    most, in_json = longest_in_json(max_bytes), _size_in_json(data, is_text)
    if in_json > most:
        raise TooLarge(
            f"the data takes {in_json} bytes in JSON; [limits] event_size allows {most}",
            "data",
        )


def _size_in_json(data: bytes, is_text: bool) -> int:
    """Return how many bytes the data takes in JSON: escaped text, or base64 if it is not UTF-8."""
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
    """Return the bytes of the longest JSON object with an event of up to `max_event_bytes` to `max_channels`.

    JSON may take six bytes for one (a control character as ``\\u0001``), also in the names of channels.
    """
    return 6 * max_event_bytes + _OTHER_BYTES + _NAME_BYTES * max_channels


def parse_object(
    text: bytes | str, max_event_bytes: int | None = None, max_channels: int = MAX_CHANNELS
) -> dict[str, Any]:
    """Read one JSON object; raise `BadRequest` if it is anything else.

    With `max_event_bytes`, also if it cannot be an event of so many bytes to `max_channels` and takes long to read.
    """
    is_long = max_event_bytes is not None and len(text) > SHORT_BYTES
    bounds = max_event_bytes or 0, _OTHER_BYTES + _NAME_BYTES * max_channels
    if is_long and isinstance(text, bytes):
        check_shape(text, *bounds)
    try:
        value = read_json(text)
    except UnicodeDecodeError:
        raise BadRequest("not valid UTF-8; wanted a JSON object") from None
    except RecursionError:
        raise BadRequest("nested too deeply; wanted a JSON object") from None
    except ValueError as error:
        raise BadRequest(f"not JSON ({error}); wanted a JSON object") from None
    if not isinstance(value, dict):
        raise BadRequest(f"a JSON {json_type(value)}; wanted a JSON object")
    if is_long:
        check_strings(value, *bounds)
    return value


def json_type(value: object) -> str:
    if value is None:
        return "null"
    names = {list: "array", dict: "object", str: "string", bool: "boolean"}
    return names.get(type(value), "number")


def check_fields(message: dict[str, Any], known: Set[str]) -> None:
    if message.keys() <= known:
        return
    for name in message:
        if name not in known:
            raise BadRequest(f"unknown field {name[:64]!r}; known are {', '.join(sorted(known))}", name[:64])


def text_field(message: dict[str, Any], name: str) -> str:
    value = message.get(name)
    if isinstance(value, str):
        return value
    if name not in message:
        raise BadRequest(f"{name} is missing", name)
    raise BadRequest(f"{name} is a JSON {json_type(value)}; wanted a string", name)


def optional_text_field(message: dict[str, Any], name: str) -> str | None:
    value = message.get(name)
    return value if value is None or isinstance(value, str) else text_field(message, name)


def _data(message: dict[str, Any]) -> tuple[bytes, bool]:
    """Return the data of an event, and whether it is text."""
    if ("data" in message) == ("data_base64" in message):
        raise BadRequest("wanted one of data (a string) and data_base64", "data")
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
        raise BadRequest("wanted one of channel (a string) and channels (an array of strings)", "channel")
    if "channel" in message:
        return (text_field(message, "channel"),)
    names = message["channels"]
    if isinstance(names, list) and len(names) > max_channels:  # before anybody looks at the names
        limit = f"[limits] channels_per_event is {max_channels}"
        raise BadRequest(f"the event is for {len(names)} channels; {limit}", "channels")
    if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
        raise BadRequest("channels must be an array of one or more strings", "channels")
    return tuple(names)


DRAFT_FIELDS = frozenset({"channel", "channels", "data", "data_base64", "event", "id"})


def parse_draft(
    message: dict[str, Any], max_channels: int = MAX_CHANNELS, fields: Set[str] = DRAFT_FIELDS
) -> Draft:
    """Read ``{"channel" or "channels", "data" or "data_base64", "event"?, "id"?}``, with up to `max_channels`.

    Raises `BadRequest`, which names the field, if there is something else or too much.
    """
    if len(message) == 2:  # as almost all are
        name, text = message.get("channel"), message.get("data")
        if isinstance(name, str) and isinstance(text, str) and text.isascii():
            return Draft((check_name(name),), text.encode(), True)
    check_fields(message, fields)
    names = _channels(message, max_channels)
    data, is_text = _data(message)
    kind, event_id = optional_text_field(message, "event"), optional_text_field(message, "id")
    return Draft.checked(names, data, is_text=is_text, type=kind, id=event_id)
