"""The batch: events that have their places in the log, and come into it once they are stored."""

from __future__ import annotations

from typing import Generic, TypeVar

from pushd.bus.channel import Channel
from pushd.bus.event import Draft, Entry
from pushd.bus.eventlog import EventLog
from pushd.bus.storage import PublishedId

__all__ = ["Batch"]

S = TypeVar("S")


class Batch(Generic[S]):
    """Events numbered as they follow the latest one of the log, which nothing may come into meanwhile."""

    def __init__(self, log: EventLog[S]) -> None:
        """Begin without events."""
        self._log = log
        self._time = log.now()
        self._seconds = log.seconds()
        self.sequence = log.sequence
        """The place of its latest event."""
        self.entries = 0
        """How many entries its events have."""
        self.by_channel: dict[Channel[S], list[Entry]] = {}
        """The entries of its events by channel, in order."""
        self.given: dict[tuple[str, str], PublishedId] = {}
        """Those whose publishers gave the ids, by their first channel and their id."""
        self.given_ids: set[str] = set()
        """These ids."""

    def __len__(self) -> int:
        """Count the events."""
        return self.sequence - self._log.sequence

    def add(self, draft: Draft) -> list[Entry] | PublishedId:
        """Add an event and return its entries; or return the one that has the id already, in the log or here.

        Raises `Unprocessable` if that is another event, `Unavailable` if there are too many channels; then nothing
        was changed.
        """
        if draft.id is not None:
            before = self._before(draft)
            if before is not None:
                return before
        log = self._log
        channels = log.open(draft.channels)
        event = log.event_of(draft, self.sequence + 1, self._time)
        self.sequence += 1
        entries, by_channel, seconds = [], self.by_channel, self._seconds
        for channel in channels:
            others = by_channel.get(channel)
            if others is None:
                others = by_channel[channel] = []
                channel.is_staged = True
                log.release(channel)  # it is not idle any more
            entry = channel.entry(event, channel.offset + len(others) + 1, seconds)
            others.append(entry)
            entries.append(entry)
            self.entries += 1
        if draft.id is not None:
            first = entries[0]
            self.given[first.channel, draft.id] = PublishedId(
                draft.id, first.channel, first.offset, event.sequence, True, draft.fingerprint()
            )
            self.given_ids.add(draft.id)
        return entries

    def _before(self, draft: Draft) -> PublishedId | None:
        before = self.given.get((draft.channels[0], draft.id or ""))
        if before is None:
            return self._log.published_before(draft)
        before.check(draft)
        return before

    def commit(self) -> None:
        """Put the events into the log."""
        self._unstage()
        self._log.keep(self.by_channel, self._seconds)

    def abandon(self) -> None:
        """Forget the events: they could not be stored."""
        self._unstage()
        for channel in self.by_channel:
            self._log.release(channel)

    def _unstage(self) -> None:
        for channel in self.by_channel:
            channel.is_staged = False
