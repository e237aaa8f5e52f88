"""What a reader of the log is told: where it begins, and a page of what there is."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from pushd.event import Entry

__all__ = ["Page", "Start", "first_of"]

_PAGE_BYTES = 1024 * 1024
"""How much data a page has, unless its first event alone has more."""


@dataclass(frozen=True, slots=True)
class Start:
    """Where a reader begins."""

    position: str
    """The position after which its events begin."""

    recovered: bool
    """True if nothing is missing between the position it asked for and the first event."""

    sequence: int
    """The place in the log after which it reads."""


@dataclass(frozen=True, slots=True)
class Page:
    """A part of the log."""

    entries: list[Entry]
    """The entries, oldest first."""

    position: str
    """The position to go on from."""

    recovered: bool
    """True if nothing is missing between the position asked for and the first entry."""


def first_of(entries: Iterable[Entry], limit: int) -> tuple[list[Entry], bool]:
    """Return what of `entries` fits into a page of up to `limit`, and whether these are all."""
    shown: list[Entry] = []
    room = _PAGE_BYTES
    for entry in entries:
        room -= len(entry.event.data)
        if shown and (len(shown) == limit or room < 0):
            return shown, False
        shown.append(entry)
    return shown, True
