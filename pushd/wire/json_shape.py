"""The shape of a long JSON text, looked at before it is parsed.

A parser makes an object for each value, so a few megabytes of ``[[],[],`` take it a second. A message is long
because of a few long strings; to find that out costs about as much as to copy it.
"""

from __future__ import annotations

from json.decoder import scanstring  # type: ignore[attr-defined]

from pushd.errors import BadRequest, TooLarge

__all__ = ["SHORT_BYTES", "check_shape", "check_strings"]

SHORT_BYTES = 64 * 1024
"""A text of so many bytes takes 5 ms at worst, whatever it is."""

_MAX_STRINGS = 4096
"""How many strings a longer one may have."""

_FEW_QUOTES = 64
"""With so few quotes, a text has few strings: `check_strings` finds out how large they are when it is parsed."""

_MAX_BETWEEN = 64 * 1024
"""How many bytes of it may be outside of strings."""


def check_shape(text: bytes, max_event_bytes: int, other_bytes: int) -> None:
    """Raise `BadRequest` if parsing `text` would take long, though it is not an event with long data.

    Raises `TooLarge` if it cannot be an event of up to `max_event_bytes` with `other_bytes` of other fields, unless
    it has few strings. A text that is no JSON may pass, and one of up to `SHORT_BYTES` need not be looked at.
    """
    quotes = text.count(b'"')
    if quotes <= _FEW_QUOTES and _between_quotes(text) <= _MAX_BETWEEN:
        return  # to parse it takes less time than to count its escapes: 7 ms, not 10, for 6 MiB of them
    if _least_bytes(text, quotes) > max_event_bytes + other_bytes:
        raise _too_large(max_event_bytes)
    if quotes <= 2 * _MAX_STRINGS:
        between = _between_quotes(text)
    else:
        between = _between_strings(text, max_event_bytes + other_bytes)
    if between > _MAX_BETWEEN:
        raise _too_many()


def check_strings(value: dict[str, object], max_event_bytes: int, other_bytes: int) -> None:
    """Raise `TooLarge` if the strings of a parsed object are more than those of such an event."""
    size = 0
    for one in value.values():
        if isinstance(one, str):
            size += len(one.encode("utf-8", "surrogatepass"))
    if size * 3 / 4 > max_event_bytes + other_bytes:  # it may be base64
        raise _too_large(max_event_bytes)


def _least_bytes(text: bytes, quotes: int) -> float:
    """Return how many bytes the strings of `text` are at least, without reading them.

    Six bytes may stand for one, if they begin with a backslash; two backslashes stand for one byte at least, and so
    does one with a quote behind it.
    """
    backslashes = text.count(b"\\")
    escaped = max(0, quotes - 2 * _MAX_STRINGS)
    plain = len(text) - 5 * backslashes - _MAX_BETWEEN
    least = max(plain * 3 / 4, escaped + max(0, backslashes - escaped) / 2)  # it may be base64
    if len(text) > 3 * least:  # only control characters take six bytes, all others take three of each byte at most
        least = max(least, (len(text) - 3 * text.count(b"\\u00")) / 3)
    return least


def _between_quotes(text: bytes) -> int:
    """Return how many bytes are outside of strings; there are few quotes."""
    between, is_inside = 0, False
    for part in text.split(b'"'):
        if not is_inside:
            between += len(part)
            is_inside = True
        elif (len(part) - len(part.rstrip(b"\\"))) % 2 == 0:
            is_inside = False  # the quote behind it is not escaped
    return between


def _between_strings(text: bytes, max_bytes: int) -> int:
    """Return the same where there are many quotes, which a few strings have to hold in escapes."""
    try:
        decoded = text.decode()
    except UnicodeDecodeError:
        return 0  # the parser says so
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
        if characters > max_bytes:
            raise _too_large(max_bytes)
    return between + len(decoded) - position


def _too_large(most: int) -> TooLarge:
    return TooLarge(f"the message cannot be an event of up to {most} bytes; see [limits] event_size")


def _too_many() -> BadRequest:
    return BadRequest(
        f"more than {_MAX_STRINGS} strings, or {_MAX_BETWEEN} bytes outside of strings, in a long JSON text; "
        "wanted one event"
    )
