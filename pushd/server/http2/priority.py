"""The priority of a response: Extensible Priorities (RFC 9218), without a dependency tree."""

from __future__ import annotations

import re
from typing import NamedTuple

__all__ = ["DEFAULT", "LEVELS", "Priority", "parse"]

LEVELS = 8
"""The number of urgencies: 0, the highest, to 7."""

_URGENCY = re.compile(rb"u *= *([0-7])(?:;.*)?", re.ASCII)
_INCREMENTAL = re.compile(rb"i(?: *= *\?1)?(?:;.*)?", re.ASCII)


class Priority(NamedTuple):
    """The content of a ``priority`` field."""

    urgency: int
    """The urgency, 0 (highest) to 7."""

    incremental: bool
    """True if the client can use a part of the response before the rest."""


DEFAULT = Priority(3, False)
"""The default priority (RFC 9218, section 4)."""


def parse(value: bytes) -> Priority:
    """Parse a ``priority`` field. Unknown members are ignored (RFC 9218, section 4)."""
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
