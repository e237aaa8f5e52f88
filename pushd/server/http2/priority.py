"""How urgent a response is: Extensible Priorities (RFC 9218), without a tree."""

from __future__ import annotations

import re
from typing import NamedTuple

__all__ = ["DEFAULT", "LEVELS", "Priority", "parse"]

LEVELS = 8
"""Urgencies are 0, the highest, to 7."""

_URGENCY = re.compile(rb"u *= *([0-7])(?:;.*)?", re.ASCII)
_INCREMENTAL = re.compile(rb"i(?: *= *\?1)?(?:;.*)?", re.ASCII)


class Priority(NamedTuple):
    """What the field says."""

    urgency: int
    """0 to 7."""

    incremental: bool
    """True if a part of the response is of use before the rest."""


DEFAULT = Priority(3, False)
"""Section 4."""


def parse(value: bytes) -> Priority:
    """Read a ``priority`` field. What is not understood in it is as if it were not there (section 4)."""
    urgency, incremental = DEFAULT
    for member in value.split(b","):
        member = member.strip(b" \t")
        match = _URGENCY.fullmatch(member)
        if match is not None:
            urgency = int(match[1])
        elif _INCREMENTAL.fullmatch(member):
            incremental = True
        elif member.startswith(b"i") and member[1:].lstrip(b" ").startswith(b"="):
            incremental = False
    return Priority(urgency, incremental)
