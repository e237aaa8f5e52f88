"""The record: a dataclass that nobody changes, where there is one for every event."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar, dataclass_transform

__all__ = ["record"]

T = TypeVar("T")


@dataclass_transform(frozen_default=True)
def record(*, eq: bool = True) -> Callable[[type[T]], type[T]]:
    """Make a slotted dataclass whose instances mypy lets nobody change.

    With ``frozen=True``, Python would see to that as well, and take longer to make one than everything else that is
    done for an event.
    """
    return dataclass(slots=True, eq=eq, unsafe_hash=eq)
