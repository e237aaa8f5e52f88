"""Type checks of rows. The tables are STRICT, but a flipped bit in the file can change any value."""

from __future__ import annotations

from types import UnionType
from typing import Any

from pushd.errors import Unavailable

__all__ = ["of_kinds"]


def of_kinds(rows: list[Any], *kinds: type | UnionType) -> list[Any]:
    """Return `rows`; raise `Unavailable` if a value has another type than in `kinds`, or is negative."""
    for row in rows:
        for value, kind in zip(row, kinds, strict=True):
            if not isinstance(value, kind) or (type(value) is int and value < 0):
                raise Unavailable(
                    "the store is damaged: a row is not of the kind that was written", code="store_down"
                )
    return rows
