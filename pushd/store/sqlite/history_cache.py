"""The cache of the latest events: the entries in memory of all stored histories together."""

from __future__ import annotations

from collections import deque
from collections.abc import Generator
from typing import Protocol

from pushd.bus import FreeLater, at_once

__all__ = ["HistoryCache"]

_FREED_FOR_ONE = 16
"""How many entries in memory are freed at once for a new one."""


class Forgetful(Protocol):
    """A history that has entries in memory: `pushd.store.sqlite.history.SqliteHistory`."""

    def forget_through(self, offset: int) -> None:
        """Free the entries in memory up to and including `offset`."""


class HistoryCache:
    """The entries in memory: the latest published in all channels together."""

    def __init__(self, max_bytes: int) -> None:
        """Keep about `max_bytes`."""
        self.later: FreeLater = at_once
        """Frees many entries in steps."""
        self._max_bytes = max_bytes
        self._is_freeing = False
        self._entries: deque[tuple[Forgetful, int, int]] = deque()  # with offset and size, oldest first
        self.size_bytes = 0
        """About the size of these entries."""

    def add(self, history: Forgetful, offset: int, size: int) -> None:
        """Count the entries up to `offset`, `size` bytes; free the oldest entries beyond the limit.

        A large event takes the place of many small ones: those are freed in steps.
        """
        self._entries.append((history, offset, size))
        self.size_bytes += size
        if self.size_bytes > self._max_bytes:
            self._free_some()
            if self.size_bytes > self._max_bytes and not self._is_freeing:
                self._is_freeing = True
                self.later(self._freeing())

    def _free_some(self) -> None:
        for _ in range(_FREED_FOR_ONE):
            oldest, offset, size = self._entries.popleft()
            self.size_bytes -= size
            oldest.forget_through(offset)
            if self.size_bytes <= self._max_bytes:
                return

    def _freeing(self) -> Generator[None, None, None]:
        try:
            while self.size_bytes > self._max_bytes:
                self._free_some()
                yield
        finally:
            self._is_freeing = False
