"""The types of option values."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Generic, TypeVar

from pushd.bus import Pattern
from pushd.config.addresses import parse_endpoint, parse_url
from pushd.config.units import (
    parse_count,
    parse_duration,
    parse_rate,
    parse_size,
    show_duration,
    show_rate,
    show_size,
)
from pushd.errors import BadRequest

__all__ = [
    "ENDPOINT",
    "FLAG",
    "NAME",
    "PATH",
    "PATTERNS",
    "PERCENT",
    "RATE",
    "SECRET",
    "TEXT",
    "OptionType",
    "choice",
    "count",
    "duration",
    "listing",
    "size",
    "url",
    "words",
]

T = TypeVar("T")
N = TypeVar("N", int, float)

_COOKIE_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,64}")
"""A token of RFC 9110, as required by RFC 6265, section 4.1.1."""


@dataclass(frozen=True, slots=True)
class OptionType(Generic[T]):
    """The syntax of the values of an option."""

    form: str
    """The expected form, for messages and docs: ``a size such as ...``."""

    parse: Callable[[str], T]
    """Parses a value; raises `ValueError` with the invalid text, which may be a part of the value."""

    show: Callable[[T], str]
    """Formats a value so that `parse` returns an equal one."""

    suffix: str = ""
    """The unit appended to the name of the option, for the field in `pushd.config.settings`."""

    is_secret: bool = False
    """Whether values are never shown."""


def size(least_bytes: int = 0, most_bytes: int = 2**36) -> OptionType[int]:
    """Return the type for a number of bytes within bounds."""
    form = f"a size such as 64KiB, 1MiB or 1000, from {show_size(least_bytes)} to {show_size(most_bytes)}"
    return OptionType(form, _within(parse_size, least_bytes, most_bytes), show_size, "_bytes")


def duration(least_s: float = 0, most_s: float = 7 * 86400) -> OptionType[float]:
    """Return the type for a duration within bounds."""
    span = f"from {show_duration(least_s)} to {show_duration(most_s)}"
    form = f"a duration such as 500ms, 10s, 5m, 1h or 7d, {span}"
    return OptionType(form, _within(parse_duration, least_s, most_s), show_duration, "_s")


def count(least: int = 0, most: int = 10**9) -> OptionType[int]:
    """Return the type for a whole number within bounds."""
    return OptionType(f"a whole number from {least} to {most}", _within(parse_count, least, most), str)


def choice(*words: str) -> OptionType[str]:
    """Return the type for one of `words`."""
    return OptionType(f"one of {', '.join(words)}", lambda text: _one_of(text, words), str)


def url(*schemes: str) -> OptionType[str | None]:
    """Return the type for a URL with one of `schemes`; ``http to this machine`` is http to loopback only."""
    form = f"a URL such as https://app.example.com/hook, with {' or '.join(schemes)}"
    return OptionType(form, lambda text: parse_url(text, schemes) if text else None, _show_optional)


def words(*words: str) -> OptionType[frozenset[str]]:
    """Return the type for a set of `words`."""
    parse = _each(lambda text: _one_of(text, words))
    form = f"any of {', '.join(words)}, separated by commas, or nothing"
    return OptionType(form, lambda text: frozenset(parse(text)), lambda chosen: ", ".join(sorted(chosen)))


def listing(form: str, parse: Callable[[str], str]) -> OptionType[tuple[str, ...]]:
    """Return the type for a list with items parsed by `parse`; duplicates are dropped."""
    return OptionType(f"{form}, separated by commas, or nothing", _each(parse), ", ".join)


def _within(parse: Callable[[str], N], least: N, most: N) -> Callable[[str], N]:
    def parse_within(text: str) -> N:
        number = parse(text)
        if not least <= number <= most:
            raise ValueError(text)
        return number

    return parse_within


def _each(parse: Callable[[str], T]) -> Callable[[str], tuple[T, ...]]:
    def parse_each(text: str) -> tuple[T, ...]:
        return tuple(dict.fromkeys(_items(text)))

    def _items(text: str) -> Iterable[T]:
        for item in text.split(",") if text else ():
            try:
                yield parse(item.strip())
            except ValueError:
                raise ValueError(item.strip()) from None

    return parse_each


def _one_of(text: str, words: tuple[str, ...]) -> str:
    if text not in words:
        raise ValueError(text)
    return text


_FLAGS = {"yes": True, "no": False, "true": True, "false": False, "on": True, "off": False}


def _parse_flag(text: str) -> bool:
    if text not in _FLAGS:
        raise ValueError(text)
    return _FLAGS[text]


def _show_optional(value: str | None) -> str:
    return value or ""


def _parse_line(text: str) -> str:
    """Reject continuation lines of an ini file: they are probably an indentation error."""
    if "\n" in text:
        raise ValueError(text)
    return text


def _parse_path(text: str) -> str | None:
    return _parse_line(text) or None


def _parse_text(text: str) -> str | None:
    if not _parse_line(text).isprintable():
        raise ValueError(text)
    return text or None


def _parse_secret(text: str) -> str | None:
    try:
        return _parse_text(text)
    except ValueError:
        raise ValueError("what is there") from None  # the message quotes the argument, and must not quote a secret


def _parse_name(text: str) -> str | None:
    if text and not _COOKIE_NAME.fullmatch(text):
        raise ValueError(text)
    return text or None


def _parse_pattern(text: str) -> Pattern:
    try:
        return Pattern.parse(text)
    except BadRequest:
        raise ValueError(text) from None


def _parse_percent(text: str) -> int:
    if not text.endswith("%"):
        raise ValueError(text)
    try:
        return _within(parse_count, 1, 100)(text[:-1])
    except ValueError:
        raise ValueError(text) from None


def _parse_endpoint(text: str) -> str:
    parse_endpoint(_parse_line(text))
    return text


FLAG = OptionType("yes or no", _parse_flag, lambda value: "yes" if value else "no")
"""Yes or no."""

PATH = OptionType("a path", _parse_path, _show_optional)
"""The path of a file, or None."""

ENDPOINT = OptionType(
    "a Twisted endpoint such as tcp:8080:interface=127.0.0.1, unix:/run/pushd/http "
    "or systemd:domain=INET:name=http",
    _parse_endpoint,
    str,
)
"""A server endpoint."""

TEXT = OptionType("text on one line", _parse_text, _show_optional)
"""Any text, or None."""

SECRET = OptionType("text on one line", _parse_secret, _show_optional, is_secret=True)
"""Text that is never logged or printed, or None."""

NAME = OptionType("a name as cookies have", _parse_name, _show_optional)
"""The name of a cookie, or None."""

RATE = OptionType("a number such as 10 or 0.5, from 0 to 1000000000", parse_rate, show_rate)
"""A rate per second."""

PERCENT = OptionType("a percentage from 1% to 100%", _parse_percent, lambda value: f"{value}%", "_percent")
"""A share, in whole percent."""

PATTERNS = OptionType(
    "channels and patterns such as news or public/**, separated by commas, or nothing",
    _each(_parse_pattern),
    lambda patterns: ", ".join(pattern.text for pattern in patterns),
)
"""Channels and patterns."""
