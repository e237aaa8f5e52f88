"""Calls of functions, counted: they can be counted exactly, on any machine."""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable
from types import FrameType
from typing import Any

__all__ = ["calls_of"]


def calls_of(action: Callable[[], object]) -> int:
    """Count the calls of functions, Python's and C's, within `action`."""
    count = 0

    def note(frame: FrameType, what: str, argument: Any) -> None:
        nonlocal count
        count += what in ("call", "c_call")

    before = sys.getprofile()
    gc.disable()  # Hypothesis counts its runs by a call, and they come when they like
    sys.setprofile(note)
    try:
        action()
    finally:
        sys.setprofile(before)
        gc.enable()
    return count
