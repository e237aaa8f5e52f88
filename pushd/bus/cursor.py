"""The cursor of a replay in one history."""

from __future__ import annotations

import sys
from typing import NamedTuple

from pushd.bus.event import Entry
from pushd.bus.history import History

__all__ = ["Ahead", "Cursor", "Item"]


class Ahead(NamedTuple):
    """The place of an entry that is read from its history only when the replay reaches it."""

    channel: str
    offset: int
    may_be_missed: bool


class Cursor:
    """The next entry to read from one history, and the last one.

    A cursor refers to its item in the heap of the replay by number. A reference would be a cycle, and leave
    hundreds of thousands of cursors of an abandoned replay to the garbage collector.
    """

    __slots__ = ("end", "history", "number", "offset")

    def __init__(self, history: History) -> None:
        self.history = history
        self.offset = sys.maxsize
        """The offset of the next entry to read."""
        self.end = 0
        """The offset of the last entry to read."""
        self.number = -1
        """The number of its item; items with other numbers are obsolete. -1 if there is none."""


Item = tuple[int, int, Entry | Ahead, Cursor]
"""The place of a cursor: sequence, a number unique in the replay, entry, cursor."""
