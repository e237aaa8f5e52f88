"""The archive: what keeps histories and the ids that publishers gave, as far as the log knows it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from pushd.channel import Settings
from pushd.errors import Conflict
from pushd.event import Draft, Entry
from pushd.history import History, MemoryHistory

__all__ = ["Archive", "Given", "MemoryArchive"]


@dataclass(frozen=True, slots=True)
class Given:
    """An event whose id its publisher gave."""

    id: str
    """The id."""

    sequence: int
    """Its place in the log."""

    places: tuple[tuple[str, int], ...]
    """Its channels, the canonical one first, and its offset in each."""

    def check(self, draft: Draft) -> None:
        """Raise `Conflict` if `draft`, which has the same id, is for other channels."""
        if set(draft.channels) != {name for name, _ in self.places}:
            raise Conflict(f"the id {self.id!r} belongs to an event of other channels", "id")


class Archive(Protocol):
    """Where histories and given ids are kept."""

    def history(self, name: str, settings: Settings, *, offset: int, dropped: int) -> History:
        """Make the history of a new channel.

        `offset` is the latest that an event of the channel can have had, `dropped` the sequence.
        """

    def give_up(self, history: History) -> None:
        """Forget a history, which is empty: its channel is given up."""

    def keep_id(self, entries: list[Entry]) -> None:
        """Learn of an event with a given id that comes into a log in memory; no history has its entries yet."""

    def given(self, event_id: str) -> Given | None:
        """Answer the event that a publisher gave this id, if a channel may still have it."""


class MemoryArchive:
    """An `Archive` that ends with the process."""

    def __init__(self) -> None:
        self._given: dict[str, Given] = {}
        self._kept: dict[str, int] = {}  # in how many channels

    def history(self, name: str, settings: Settings, *, offset: int, dropped: int) -> MemoryHistory:
        """Make the history of a new channel."""
        return MemoryHistory(settings, dropped, self._given, self._forget)

    def give_up(self, history: History) -> None:
        """Forget an empty history."""

    def keep_id(self, entries: list[Entry]) -> None:
        """Learn of an event with a given id, before its entries are put into the histories."""
        event = entries[0].event
        self._given[event.id] = Given(event.id, event.sequence, tuple((one.channel, one.offset) for one in entries))
        self._kept[event.id] = len(entries)

    def _forget(self, entry: Entry) -> None:
        kept = self._kept[entry.event.id]
        if kept > 1:
            self._kept[entry.event.id] = kept - 1
        else:
            del self._kept[entry.event.id], self._given[entry.event.id]

    def given(self, event_id: str) -> Given | None:
        """Answer the event of a given id."""
        return self._given.get(event_id)
