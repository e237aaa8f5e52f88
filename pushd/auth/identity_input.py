"""Validation of a user name, a payload and grants, which tokens and responses to webhooks both set."""

from __future__ import annotations

import re

from pushd.bus import MAX_PATTERNS, ChannelScope, Pattern
from pushd.errors import BadRequest
from pushd.wire import json_bytes

__all__ = ["Invalid", "check_payload", "kind_of", "quote", "read_scope", "read_user"]

MAX_USER_BYTES = 255
"""Maximum length of a user name, in bytes of UTF-8."""

MAX_PAYLOAD_BYTES = 4096
"""Maximum size of a payload in JSON, in bytes."""

MAX_DEPTH = 32
"""Maximum nesting depth of arrays and objects in a payload."""

_MAX_QUOTED = 80
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
_KINDS = {
    bool: "true or false",
    dict: "an object",
    float: "a number",
    int: "a number",
    list: "a list",
    str: "text",
    type(None): "null",
}


class Invalid(ValueError):
    """The input is invalid. The text says what is wrong and what is expected."""


def quote(text: str) -> str:
    """Return untrusted `text`, quoted and shortened: it may be long and have any characters."""
    return repr(text if len(text) <= _MAX_QUOTED else f"{text[:_MAX_QUOTED]}...")


def kind_of(value: object) -> str:
    """Return the name of the type of a JSON value, for messages."""
    return _KINDS[type(value)]


def read_user(user: object, name: str) -> str:
    """Return the user name `user`, which messages call `name`; raise `Invalid`."""
    if not isinstance(user, str):
        raise Invalid(f"{name} is {kind_of(user)}; wanted text")
    size = len(user.encode(errors="replace"))
    if not 1 <= size <= MAX_USER_BYTES:
        raise Invalid(f"{name} has {size} bytes; wanted 1 to {MAX_USER_BYTES}")
    if _UNPRINTABLE.search(user) is not None:
        raise Invalid(f"{name} is {quote(user)}; wanted text without control characters")
    return user


def check_payload(payload: object, name: str) -> None:
    """Raise `Invalid` if `payload`, which messages call `name`, is too large, too deep, or has no form in JSON."""
    if _is_too_deep(payload):
        raise Invalid(f"{name} is nested more than {MAX_DEPTH} levels deep")
    try:
        size = len(json_bytes({"": payload})) - len(b'{"":}')
    except ValueError:
        raise Invalid(f"{name} has a number that is not finite") from None
    if size > MAX_PAYLOAD_BYTES:
        raise Invalid(f"{name} has {size} bytes; wanted {MAX_PAYLOAD_BYTES} at most")


def read_scope(texts: object, name: str) -> ChannelScope:
    """Return the channels and patterns in `texts`, a list that messages call `name`; raise `Invalid`."""
    if not isinstance(texts, list):
        raise Invalid(f"{name} is {kind_of(texts)}; wanted a list of channels and patterns")
    if len(texts) > MAX_PATTERNS:
        raise Invalid(f"{name} has {len(texts)} patterns; wanted {MAX_PATTERNS} at most")
    return ChannelScope([_read_pattern(text, name) for text in texts])


def _read_pattern(text: object, name: str) -> Pattern:
    if not isinstance(text, str):
        raise Invalid(f"{name} has {kind_of(text)}; wanted channels and patterns, which are text")
    try:
        return Pattern.parse(text)
    except BadRequest as error:
        raise Invalid(f"{name}: {error.detail}") from None


def _is_too_deep(payload: object) -> bool:
    level = [payload]
    for _ in range(MAX_DEPTH):
        level = [inner for value in level for inner in _inside(value)]
    return any(isinstance(value, dict | list) for value in level)


def _inside(value: object) -> list[object]:
    if isinstance(value, dict):
        return list(value.values())
    return value if isinstance(value, list) else []
