"""The batch: events with reserved places in the log, appended once the store has committed them."""

from __future__ import annotations

from typing import Generic, TypeVar

from pushd.bus.channel import Channel
from pushd.bus.event import Draft, Entry
from pushd.bus.eventlog import EventLog
from pushd.bus.storage import PublishedId

__all__ = ["Batch"]

S = TypeVar("S")


class Batch(Generic[S]):
    """Events numbered from the end of the log, to which nothing else may be appended meanwhile."""

    def __init__(self, log: EventLog[S]) -> None:
        """Start without events."""
        self._log = log
        self._time = log.now()
        self._seconds = log.seconds()
        self.sequence = log.sequence
        """The sequence of the latest event in the batch."""
        self.entries = 0
        """The number of entries: one for each event and channel."""
        self.by_channel: dict[Channel[S], list[Entry]] = {}
        """The entries by channel, in the order of their offsets."""
        self.given: dict[tuple[str, str], PublishedId] = {}
        """The events with an id from the publisher, by first channel and id."""
        self.given_ids: set[str] = set()
        """The ids in `given`."""

    def __len__(self) -> int:
        """Return the number of events."""
        return self.sequence - self._log.sequence

    def add(self, draft: Draft) -> list[Entry] | PublishedId:
        """Add an event and return its entries; or return the earlier event with that id, from log or batch.

        Raises, without any change: `Unprocessable` if the earlier event is a different one; `Unavailable` if there
        are too many channels.
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
                log.release(channel)  # a staged channel must not be given up
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
        """Append the events to the log."""
        self._unstage()
        self._log.keep(self.by_channel, self._seconds)

    def abandon(self) -> None:
        """Discard the events: the store could not commit them."""
        self._unstage()
        for channel in self.by_channel:
            self._log.release(channel)

    def _unstage(self) -> None:
        for channel in self.by_channel:
            channel.is_staged = False
