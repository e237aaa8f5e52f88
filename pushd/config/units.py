"""Sizes, durations and counts as people write them."""

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
    """Read a size such as ``64KiB`` or ``1000``; answer bytes, or raise `ValueError`."""
    return _parse(text, _BYTES)


def show_size(size_bytes: int) -> str:
    """Write a size in the unit that makes it shortest and keeps it exact."""
    return _show(size_bytes, _BYTES)


def parse_duration(text: str) -> float:
    """Read a duration such as ``500ms`` or ``1h``; answer seconds, or raise `ValueError`.

    A unit must be given, except for ``0``.
    """
    return 0.0 if text == "0" else _parse(text, _MILLISECONDS) / 1000


def show_duration(duration_s: float) -> str:
    """Write a duration, to the millisecond, in the unit that makes it shortest and keeps it exact."""
    return _show(round(duration_s * 1000), _MILLISECONDS)


def parse_count(text: str) -> int:
    """Read a plain whole number, or raise `ValueError`."""
    return _parse(text, {"": 1})


def parse_rate(text: str) -> float:
    """Read how many there are in a second, such as ``10`` or ``0.5``, or raise `ValueError`."""
    if not _RATE.fullmatch(text) or float(text) > 10**9:
        raise ValueError(text)
    return float(text)


def show_rate(rate: float) -> str:
    """Write how many there are in a second, to a thousandth."""
    return f"{rate:.3f}".rstrip("0").rstrip(".")


def _parse(text: str, units: dict[str, int]) -> int:
    match = _NUMBER.fullmatch(text)
    if match is None or match[2] not in units:
        raise ValueError(text)
    return int(match[1]) * units[match[2]]


def _show(number: int, units: dict[str, int]) -> str:
    """Write a number with a unit; among equally short ways, take the largest unit."""
    if number == 0:
        return "0"
    exact = (f"{number // unit}{name}" for name, unit in units.items() if number % unit == 0)
    return min(exact, key=len)
