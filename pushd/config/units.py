"""Parsers and formatters for sizes, durations, counts and rates."""

from __future__ import annotations

import re

__all__ = ["parse_count", "parse_duration", "parse_rate", "parse_size", "show_duration", "show_rate", "show_size"]

_NUMBER = re.compile(r"([0-9]{1,15})([A-Za-z]*)")
_RATE = re.compile(r"[0-9]{1,10}(?:\.[0-9]{1,3})?")
_BYTES = {
    "GiB": 2**30,
    "GB": 10**9,
    "MiB": 2**20,
    "MB": 10**6,
    "KiB": 2**10,
    "kB": 10**3,
    "": 1,
}
_MILLISECONDS = {
    "d": 86_400_000,
    "h": 3_600_000,
    "m": 60_000,
    "s": 1000,
    "ms": 1,
}


def parse_size(text: str) -> int:
    """Return a size such as ``64KiB`` or ``1000`` in bytes; raise `ValueError` if it is invalid."""
    return _parse(text, _BYTES)


def show_size(size_bytes: int) -> str:
    """Return a size as text, exact, in the unit that makes it shortest."""
    return _show(size_bytes, _BYTES)


def parse_duration(text: str) -> float:
    """Return a duration such as ``500ms`` or ``1h`` in seconds; raise `ValueError` if it is invalid.

    A unit is required, except for ``0``.
    """
    return 0.0 if text == "0" else _parse(text, _MILLISECONDS) / 1000


def show_duration(duration_s: float) -> str:
    """Return a duration as text, rounded to the millisecond, in the unit that makes it shortest."""
    return _show(round(duration_s * 1000), _MILLISECONDS)


def parse_count(text: str) -> int:
    """Return a whole number; raise `ValueError` if it is invalid."""
    return _parse(text, {"": 1})


def parse_rate(text: str) -> float:
    """Return a rate per second such as ``10`` or ``0.5``; raise `ValueError` if it is invalid."""
    if not _RATE.fullmatch(text) or float(text) > 10**9:
        raise ValueError(text)
    return float(text)


def show_rate(rate: float) -> str:
    """Return a rate per second as text, rounded to a thousandth."""
    return f"{rate:.3f}".rstrip("0").rstrip(".")


def _parse(text: str, units: dict[str, int]) -> int:
    match = _NUMBER.fullmatch(text)
    if match is None or match[2] not in units:
        raise ValueError(text)
    return int(match[1]) * units[match[2]]


def _show(number: int, units: dict[str, int]) -> str:
    """Return `number` with the unit that makes it shortest; on a tie, with the largest one."""
    if number == 0:
        return "0"
    exact = (f"{number // unit}{name}" for name, unit in units.items() if number % unit == 0)
    return min(exact, key=len)
