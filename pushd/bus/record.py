"""The record: a cheap immutable dataclass for objects made for every event."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar, dataclass_transform

__all__ = ["record"]

T = TypeVar("T")


@dataclass_transform(frozen_default=True)
def record(*, eq: bool = True) -> Callable[[type[T]], type[T]]:
    """Return a decorator for a slotted dataclass that is frozen for mypy only.

    With ``frozen=True``, Python would enforce it as well, but creating an instance would take longer than all
    other work for an event.
    """
    return dataclass(slots=True, eq=eq, unsafe_hash=eq)
