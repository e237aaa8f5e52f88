"""Read and write JSON; no other module does.

orjson is the fast path, several times as fast as the standard library. The standard library is the slow path for:

- lone surrogates, numbers that are not doubles, and error messages for invalid texts;
- all texts while memory is short, and long texts without memory for them: orjson crashes if an allocation fails.
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
"""The longest text that the standard library reads after orjson failed; it takes ten times as long."""

_LONG = 64 * 1024
"""The length above which orjson is used only after a check for memory."""

_PER_BYTE = 24
"""The memory orjson may need per byte: 12 for its index and 4 for a string, or 6 for JSON, copied as it grows."""

_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode


def read_json(text: bytes | str) -> Any:
    """Parse one JSON text; bytes must be UTF-8 (RFC 8259, section 8.1).

    Raises `ValueError` with the error and its place (it may be a `UnicodeDecodeError`), or `RecursionError`. Of
    duplicate members of an object, the last one counts. An integer of more than 64 bits may become a float. A long
    text that only the standard library can read is rejected.
    """
    if memory.is_short or (len(text) > _LONG and not memory.has(_PER_BYTE * len(text))):
        return _read_safely(text)
    try:
        return orjson.loads(text)
    except ValueError as error:
        if "depth" in str(error):  # over 1024; from Python 3.14 on, the standard library accepts far more
            raise RecursionError(str(error)) from None
        if len(text) > _LONGEST_REPEATED:
            raise
        return _read_safely(text)


def _read_safely(text: bytes | str) -> Any:
    # json would guess other encodings from bytes
    return json.loads(text.decode() if isinstance(text, bytes) else text, parse_constant=_refuse_constant)


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def read_strict_json(text: bytes) -> Any:
    """Parse one JSON text as `read_json` does, but reject texts that other parsers may read differently (RFC 7493).

    These have duplicate members in an object, or numbers that are not doubles; integers have at most 100 digits.
    Raises the same errors as `read_json`.
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
    """Encode a JSON object without optional spaces; a lone surrogate, which is invalid in UTF-8, is escaped.

    `longest` is the longest value, if one may exceed a few kilobytes, or has the length of all such values.
    Raises `ValueError` if a number is not finite.
    """
    if memory.is_short or (longest and len(longest) > _LONG and not memory.has(_PER_BYTE * len(longest))):
        return _encode(message).encode(errors="backslashreplace")
    try:
        encoded = orjson.dumps(message)
    except TypeError:
        return _encode(message).encode(errors="backslashreplace")
    if b"null" in encoded:  # orjson writes NaN as null; the standard library raises
        return _encode(message).encode(errors="backslashreplace")
    return encoded


def json_line(message: Mapping[str, object], longest: bytes | str = b"") -> bytes:
    """Encode a JSON object as a line of NDJSON; see `json_bytes`."""
    return json_bytes(message, longest) + b"\n"
