"""What a reader of the log is told: where it begins, and a page of what there is."""

from __future__ import annotations

from dataclasses import dataclass

from pushd.event import Entry

__all__ = ["Page", "Start"]


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
