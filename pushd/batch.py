"""The batch: events that have their places in the log, and come into it once they are stored."""

from __future__ import annotations

from typing import Generic, TypeVar

from pushd.archive import Given
from pushd.channel import Channel
from pushd.event import Draft, Entry
from pushd.eventlog import EventLog, check_same

__all__ = ["Batch", "Staged"]

S = TypeVar("S")


class Staged(Generic[S]):
    """An event that is going to come into the log: its entry in each of its channels."""

    __slots__ = ("channels", "entries", "is_given")

    def __init__(self, entries: list[Entry], channels: list[Channel[S]], *, is_given: bool) -> None:
        self.entries = entries
        self.channels = channels
        self.is_given = is_given
        """True if its publisher gave the id."""


class Batch(Generic[S]):
    """Events numbered as they follow the latest one of the log, which nothing may come into meanwhile."""

    def __init__(self, log: EventLog[S]) -> None:
        """Begin without events."""
        self._log = log
        self.sequence = log.sequence
        """The place of its latest event."""
        self.staged: list[Staged[S]] = []
        """Its events."""
        self.by_channel: dict[Channel[S], list[Entry]] = {}
        """Their entries by channel, in order."""
        self.given: dict[str, Given] = {}
        """Those whose publishers gave the ids."""

    def add(self, draft: Draft) -> Staged[S] | Given:
        """Stage an event; or answer the one that has the draft's id already, in the log or in this batch.

        Raises `Conflict` if that is another channel's, `Unavailable` if there are too many channels; then nothing
        was changed.
        """
        if draft.id is not None:
            before = self.given.get(draft.id)
            if before is None:
                before = self._log.published_before(draft)
            else:
                check_same(draft, before)
            if before is not None:
                return before
        log = self._log
        channels = log.open(draft.channels)
        event = log.event_of(draft, self.sequence + 1)
        self.sequence += 1
        seconds = log.seconds()
        entries = [
            self._entry(channel, channel.entry(event, self._offset(channel), seconds)) for channel in channels
        ]
        if draft.id is not None:
            places = tuple((entry.channel, entry.offset) for entry in entries)
            self.given[draft.id] = Given(draft.id, event.sequence, places)
        staged = Staged(entries, channels, is_given=draft.id is not None)
        self.staged.append(staged)
        return staged

    def _offset(self, channel: Channel[S]) -> int:
        return channel.offset + channel.staged + 1

    def _entry(self, channel: Channel[S], entry: Entry) -> Entry:
        channel.staged += 1
        if channel in self.by_channel:
            self.by_channel[channel].append(entry)
        else:
            self.by_channel[channel] = [entry]
        return entry

    def commit(self, staged: Staged[S], seconds: float) -> list[Entry]:
        """Put the next event of the batch into the log, at `seconds` by its clock; answer its entries."""
        for channel in staged.channels:
            channel.staged -= 1
        self._log.keep(staged.entries, staged.channels, seconds, is_given=staged.is_given)
        return staged.entries

    def abandon(self) -> None:
        """Forget the events: they could not be stored."""
        for channel in self.by_channel:
            channel.staged = 0
            self._log.release(channel)
