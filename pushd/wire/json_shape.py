"""Check the shape of a long JSON text before it is parsed.

A parser makes an object per value, so a few megabytes of ``[[],[],`` take a second to parse. A valid long message
has a few long strings instead; this check costs about as much as copying the text.
"""

from __future__ import annotations

from json.decoder import scanstring  # type: ignore[attr-defined]

from pushd.errors import BadRequest, TooLarge

__all__ = ["SHORT_BYTES", "check_shape", "check_strings"]

SHORT_BYTES = 64 * 1024
"""The length, in bytes, up to which a text is not checked: parsing it takes at most 5 ms."""

_MAX_STRINGS = 4096
"""How many strings a longer text may have."""

_FEW_QUOTES = 64
"""Up to this number of quotes, a text has few strings: `check_strings` checks their size after parsing."""

_MAX_BETWEEN = 64 * 1024
"""How many bytes of a longer text may be outside of strings."""


def check_shape(text: bytes, max_event_bytes: int, other_bytes: int) -> None:
    """Raise `BadRequest` if `text` would take long to parse and is not an event with long data.

    Raises `TooLarge` if the text exceeds an event of `max_event_bytes` with `other_bytes` of other fields, unless
    it has few strings. Invalid JSON may pass. A text of up to `SHORT_BYTES` needs no check.
    """
    quotes = text.count(b'"')
    if quotes <= _FEW_QUOTES and _between_quotes(text) <= _MAX_BETWEEN:
        return  # fast path: parsing 6 MiB of escapes takes 7 ms, counting them below takes 10 ms
    if _least_bytes(text, quotes) > max_event_bytes + other_bytes:
        raise _too_large(max_event_bytes)
    if quotes <= 2 * _MAX_STRINGS:
        between = _between_quotes(text)
    else:
        between = _between_strings(text, max_event_bytes, other_bytes)
    if between > _MAX_BETWEEN:
        raise _too_many()


def check_strings(value: dict[str, object], max_event_bytes: int, other_bytes: int) -> None:
    """Raise `TooLarge` if the strings of a parsed object exceed an event of `max_event_bytes` and `other_bytes`."""
    size = 0
    for one in value.values():
        if isinstance(one, str):
            size += len(one.encode("utf-8", "surrogatepass"))
    if size * 3 / 4 > max_event_bytes + other_bytes:  # the data may be base64
        raise _too_large(max_event_bytes)


def _least_bytes(text: bytes, quotes: int) -> float:
    """Return a lower bound of the decoded size of the strings of `text`, in bytes, without parsing them.

    Six bytes that begin with a backslash may encode one byte. Two backslashes encode at least one byte, and so does
    a backslash followed by a quote.
    """
    backslashes = text.count(b"\\")
    escaped = max(0, quotes - 2 * _MAX_STRINGS)
    plain = len(text) - 5 * backslashes - _MAX_BETWEEN
    least = max(plain * 3 / 4, escaped + max(0, backslashes - escaped) / 2)  # the data may be base64
    if len(text) > 3 * least:  # only control characters take six bytes; all others at most three per byte
        least = max(least, (len(text) - 3 * text.count(b"\\u00")) / 3)
    return least


def _between_quotes(text: bytes) -> int:
    """Return the number of bytes outside of strings, fast for texts with few quotes."""
    between, is_inside = 0, False
    for part in text.split(b'"'):
        if not is_inside:
            between += len(part)
            is_inside = True
        elif (len(part) - len(part.rstrip(b"\\"))) % 2 == 0:
            is_inside = False  # the quote after this part is not escaped
    return between


def _between_strings(text: bytes, max_event_bytes: int, other_bytes: int) -> int:
    """Return the number of bytes outside of strings for texts with many quotes: the slow path of `_between_quotes`.

    Raises `BadRequest` for too many strings and `TooLarge` for more in strings than both sizes together.
    """
    try:
        decoded = text.decode()
    except UnicodeDecodeError:
        return 0  # the parser reports this error
    between = position = strings = characters = 0
    while (start := decoded.find('"', position)) >= 0:
        between += start - position
        try:
            string, position = scanstring(decoded, start + 1)
        except ValueError:
            return between
        strings += 1
        characters += len(string)
        if strings > _MAX_STRINGS:
            raise _too_many()
        if characters > max_event_bytes + other_bytes:
            raise _too_large(max_event_bytes)
    return between + len(decoded) - position


def _too_large(most: int) -> TooLarge:
    return TooLarge(f"the message cannot be an event of up to {most} bytes; see [limits] event_size")


def _too_many() -> BadRequest:
    return BadRequest(
        f"more than {_MAX_STRINGS} strings, or {_MAX_BETWEEN} bytes outside of strings, in a long JSON text; "
        "wanted one event"
    )
