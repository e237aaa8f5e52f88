"""The memory headroom: check for free memory before code that crashes if an allocation fails.

orjson and some other extensions write to address 0 if an allocation fails; Python itself raises `MemoryError`. So
pushd checks every second, and before long jobs, whether memory is available, and avoids orjson if it is not.
"""

from __future__ import annotations

import sys
from collections.abc import Callable

__all__ = ["ENOUGH_BYTES", "Headroom", "memory"]

ENOUGH_BYTES = 32 * 1024 * 1024
"""The free memory required for one second of work that does not check for memory."""


class Headroom:
    """Track whether memory is short."""

    __slots__ = ("ask", "changed", "is_short")

    def __init__(self) -> None:
        """Start with enough memory; the daemon sets `ask` and `changed` for its system."""
        self.ask: Callable[[int], bool] = _yes
        """Return whether this number of bytes is available now."""
        self.changed: Callable[[bool], None] = _ignore
        """Called with `is_short` when it has changed."""
        self.is_short = False
        """True if memory is short: use only code that survives a failed allocation."""

    def has(self, size: int) -> bool:
        """Return whether `size` bytes are available in addition to `ENOUGH_BYTES`."""
        return not self.is_short and self.ask(size + ENOUGH_BYTES)

    def look(self) -> None:
        """Update `is_short`. Called every second."""
        self._set(not self.ask(ENOUGH_BYTES))

    def missed(self) -> None:
        """Called when an allocation has failed."""
        self._set(True)

    def was_missed(self) -> bool:
        """Return whether the exception being handled is a failed allocation; if so, record that memory is short."""
        if not isinstance(sys.exception(), MemoryError):
            return False
        self.missed()
        return True

    def _set(self, is_short: bool) -> None:
        if is_short is not self.is_short:
            self.is_short = is_short
            self.changed(is_short)


def _yes(size: int) -> bool:
    return True


def _ignore(is_short: bool) -> None:
    """Do nothing."""


memory = Headroom()
"""The headroom of the process."""
