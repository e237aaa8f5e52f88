"""Histories most of whose entries are not in memory: they arrive when the test says so, and are forgotten again."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from pushd.bus.channel import Settings
from pushd.bus.event import Entry
from pushd.bus.history import History, MemoryHistory
from pushd.bus.storage import MemoryStorage
from pushd.bus.work import NotInMemory
from pushd.errors import Unavailable

__all__ = ["FarHistory", "FarStorage"]

_NEAR = 1
"""How many of the latest entries of a channel are always in memory."""

_TOGETHER = 3
"""How many entries arrive together."""


class FarStorage(MemoryStorage):
    """A storage of such histories."""

    def __init__(self) -> None:
        super().__init__()
        self.here: set[tuple[FarHistory, int]] = set()
        """The entries in memory besides the latest, by history and offset."""
        self.awaited: list[Callable[[Unavailable | None], None]] = []
        """Call one for the entries that a reader waits for to arrive, or the error that it gets."""
        self.loads = 0
        """How often entries were loaded at once."""

    def history(self, name: str, settings: Settings, *, offset: int, dropped: int) -> FarHistory:  # type: ignore[override]
        """Override."""
        return FarHistory(name, super().history(name, settings, offset=offset, dropped=dropped), self)

    def give_up(self, history: History) -> None:
        """Override: the history is empty."""


class FarHistory:
    """A `History`."""

    def __init__(self, name: str, inner: MemoryHistory, storage: FarStorage) -> None:
        self._name = name
        self._inner = inner
        self._storage = storage

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def __len__(self) -> int:
        return len(self._inner)

    @property
    def settings(self) -> Any:
        """The limits."""
        return self._inner.settings

    @settings.setter
    def settings(self, settings: Any) -> None:
        self._inner.settings = settings

    def _here(self, entry: Entry | None) -> Entry | None:
        """Return an entry that is in memory."""
        if entry is None or entry.offset > self._inner.last - _NEAR or (self, entry.offset) in self._storage.here:
            return entry
        raise NotInMemory(
            self._name,
            entry.may_be_missed,
            partial(self._load, entry.offset),
            lambda owner, is_gone, done: self._storage.awaited.append(partial(self._arrive, entry.offset, done)),
        )

    def _load(self, offset: int) -> None:
        self._storage.loads += 1
        self._bring(offset)

    def _bring(self, offset: int) -> None:
        self._storage.here |= {(self, one) for one in range(offset, offset + _TOGETHER)}

    def _arrive(
        self, offset: int, done: Callable[[Unavailable | None], None], error: Unavailable | None = None
    ) -> None:
        if error is None:
            self._bring(offset)
        done(error)

    @property
    def oldest(self) -> Entry | None:
        """The oldest entry."""
        return self._here(self._inner.oldest)

    @property
    def latest(self) -> Entry | None:
        """The latest entry."""
        return self._here(self._inner.latest)

    def after(self, sequence: int) -> Entry | None:
        """Return the first entry after `sequence`."""
        return self._here(self._inner.after(sequence))

    def bound(self, sequence: int) -> int:
        """Return a lower bound of the sequence of the first entry after `sequence`."""
        return max(sequence, self._inner.dropped) + 1

    def at(self, offset: int) -> Entry | None:
        """Return the entry at `offset`."""
        return self._here(self._inner.at(offset))

    def run(self, first: int, count: int) -> list[Entry]:
        """Return entries from `first` on."""
        self.at(first)
        run = []
        for entry in self._inner.run(first, count):
            try:
                self._here(entry)
            except NotInMemory:
                break
            run.append(entry)
        return run
