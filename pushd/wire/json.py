"""JSON, read and written: the only module that knows how.

orjson does it, several times as fast as the standard library does. What it cannot do or does in another way goes to
the standard library: lone surrogates, numbers that are no doubles, nesting, and to say what is wrong with a text.
So does everything while memory is short, and what is long unless there is memory for it: orjson crashes if an
allocation fails.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from math import isinf
from typing import Any

import orjson

from pushd.bus import memory

__all__ = ["json_bytes", "json_line", "read_json", "read_strict_json"]


_LONGEST_REPEATED = 64 * 1024
"""The longest text that the standard library reads again, which takes it ten times as long."""

_LONG = 64 * 1024
"""From which length on orjson is used only if there is memory for it."""

_PER_BYTE = 24
"""How many bytes orjson may take for one: 12 of its index and 4 of a string, or 6 of JSON, copied as it grows."""

_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode


def read_json(text: bytes | str) -> Any:
    """Read one JSON text; bytes have to be UTF-8 (RFC 8259, section 8.1).

    Raises `ValueError`, which says what is wrong and where, or is a `UnicodeDecodeError`, or `RecursionError`. Of
    members of an object with one name the last one counts. An integer of more than 64 bits may come as a float. A
    long text that only the standard library can read is refused.
    """
    if memory.is_short or (len(text) > _LONG and not memory.has(_PER_BYTE * len(text))):
        return _read_safely(text)
    try:
        return orjson.loads(text)
    except ValueError as error:
        if len(text) > _LONGEST_REPEATED and "depth limit" not in str(error):
            raise
        return _read_safely(text)


def _read_safely(text: bytes | str) -> Any:
    # json would guess other encodings from bytes
    return json.loads(text.decode() if isinstance(text, bytes) else text, parse_constant=_refuse_constant)


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def read_strict_json(text: bytes) -> Any:
    """Read one JSON text as `read_json` does, but refuse what others may read as something else (RFC 7493).

    That is two members of one object with one name, and numbers that are no doubles; integers have 100 digits at
    most. Raises as `read_json` does.
    """
    return _STRICT.decode(text.decode())


def _unique(members: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(members)
    if len(found) != len(members):
        names = [name for name, _ in members]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"the member {twice[:40]!r} is there more than once")
    return found


def _short_integer(digits: str) -> int:
    if len(digits) > 100:
        raise ValueError(f"an integer has {len(digits)} digits")
    return int(digits)


def _finite(text: str) -> float:
    number = float(text)
    if isinf(number):
        raise ValueError("a number is too large")
    return number


_STRICT = json.JSONDecoder(
    object_pairs_hook=_unique, parse_int=_short_integer, parse_float=_finite, parse_constant=_refuse_constant
)


def json_bytes(message: Mapping[str, object], longest: bytes | str = b"") -> bytes:
    """Encode a JSON object, without needless spaces; a lone surrogate, which UTF-8 cannot have, is escaped.

    `longest` is the value in it that may be longer than some kilobytes, or as long as all of them, if there is one.
    Raises `ValueError` if a number is not finite.
    """
    if memory.is_short or (longest and len(longest) > _LONG and not memory.has(_PER_BYTE * len(longest))):
        return _encode(message).encode(errors="backslashreplace")
    try:
        encoded = orjson.dumps(message)
    except TypeError:
        return _encode(message).encode(errors="backslashreplace")
    if b"null" in encoded:  # which stands for NaN, too; the standard library raises there
        return _encode(message).encode(errors="backslashreplace")
    return encoded


def json_line(message: Mapping[str, object], longest: bytes | str = b"") -> bytes:
    """Encode a JSON object as a line of NDJSON; see `json_bytes`."""
    return json_bytes(message, longest) + b"\n"
