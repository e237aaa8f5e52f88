"""The kinds of values in rows. The tables are STRICT, but a wrong bit in the file can make anything of them."""

from __future__ import annotations

from types import UnionType
from typing import Any

from pushd.errors import Unavailable
from pushd.jsontext import read_json

__all__ = ["of_kinds", "read_places"]


def of_kinds(rows: list[Any], *kinds: type | UnionType) -> list[Any]:
    """Answer the rows of a statement; raise `Unavailable` if one has values of other kinds, or negative ones."""
    for row in rows:
        for value, kind in zip(row, kinds, strict=True):
            if not isinstance(value, kind) or (type(value) is int and value < 0):
                raise Unavailable("the store is damaged: a row is not of the kind that was written")
    return rows


def read_places(text: str) -> tuple[tuple[str, int], ...]:
    """Read the offsets of an event with a given id, by channel; raise `Unavailable` if they are none."""
    try:
        places = read_json(text)
    except ValueError:
        places = None
    if not isinstance(places, dict) or not all(type(offset) is int for offset in places.values()):
        raise Unavailable(
            "the store is damaged: it cannot be read where an event is that has an id of its publisher"
        )
    return tuple(places.items())
