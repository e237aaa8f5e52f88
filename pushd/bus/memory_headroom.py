"""The headroom: whether more memory can be had, asked before something that does not survive without it.

orjson and some other extensions write to address 0 if an allocation fails. Python itself raises `MemoryError`. So
pushd looks every second, and before long work, whether memory can still be had, and does without orjson if not.
"""

from __future__ import annotations

import sys
from collections.abc import Callable

__all__ = ["ENOUGH_BYTES", "Headroom", "memory"]

ENOUGH_BYTES = 32 * 1024 * 1024
"""How much must be left for what is done without asking, within a second."""


class Headroom:
    """Knows whether there is memory left."""

    __slots__ = ("ask", "changed", "is_short")

    def __init__(self) -> None:
        """Begin with memory enough; whoever knows the system sets `ask` and `changed`."""
        self.ask: Callable[[int], bool] = _yes
        """Returns whether so many bytes can be had now."""
        self.changed: Callable[[bool], None] = _ignore
        """Called with `is_short` when that has changed."""
        self.is_short = False
        """True if there is little memory left: only what survives a failed allocation may be used."""

    def has(self, size: int) -> bool:
        """Return whether `size` bytes can be had, and enough for all else."""
        return not self.is_short and self.ask(size + ENOUGH_BYTES)

    def look(self) -> None:
        """Find out whether memory is short. To be called every second."""
        self._set(not self.ask(ENOUGH_BYTES))

    def missed(self) -> None:
        """Called when an allocation has failed."""
        self._set(True)

    def was_missed(self) -> bool:
        """Return whether the exception that is being handled is a failed allocation, and note it."""
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
    """Tell nobody."""


memory = Headroom()
"""That of the process, which has one."""
