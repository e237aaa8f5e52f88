"""Limits of a user name and a payload, which tokens and the application both set."""

from __future__ import annotations

import re

from pushd.wire import json_bytes

__all__ = [
    "MAX_DEPTH",
    "MAX_PAYLOAD_BYTES",
    "MAX_USER_BYTES",
    "has_control_characters",
    "is_too_deep",
    "payload_size",
]

MAX_USER_BYTES = 255
"""Maximum length of a user name, in bytes of UTF-8."""

MAX_PAYLOAD_BYTES = 4096
"""Maximum size of a payload in JSON, in bytes."""

MAX_DEPTH = 32
"""Maximum nesting depth of arrays and objects in a payload."""

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")


def has_control_characters(user: str) -> bool:
    """Return whether a user name has a control character or a line end."""
    return _CONTROL.search(user) is not None


def is_too_deep(payload: object) -> bool:
    """Return whether arrays and objects in `payload` are nested more than `MAX_DEPTH` deep."""
    level = [payload]
    for _ in range(MAX_DEPTH):
        level = [inner for value in level for inner in _inside(value)]
    return any(isinstance(value, dict | list) for value in level)


def payload_size(payload: object) -> int:
    """Return the size of `payload` in JSON, in bytes; raise `ValueError` if a number is not finite."""
    return len(json_bytes({"": payload})) - len(b'{"":}')


def _inside(value: object) -> list[object]:
    if isinstance(value, dict):
        return list(value.values())
    return value if isinstance(value, list) else []
