"""The log: every event that is still kept, by channel and in one order for all of them.

Its places are numbered by one sequence; a position is a place in it, written as an id. What the log no longer
has it can still tell about: each channel remembers the sequence of the latest event that it dropped.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from heapq import heapify, heappop, heappush
from itertools import count, islice, takewhile
from typing import Generic, TypeVar

from pushd.channel import Channel, Settings
from pushd.channels import Pattern, PatternTree, check_name
from pushd.errors import Conflict, NotFound, Unavailable
from pushd.event import Draft, Entry, Event, own_id, own_sequence
from pushd.replay import Replay

__all__ = ["EventLog", "Page", "Start"]

S = TypeVar("S")


@dataclass(frozen=True, slots=True)
class Start:
    """Where a reader begins."""

    position: str
    """The position after which its events begin."""

    recovered: bool
    """True if nothing is missing between the position it asked for and the first event."""

    sequence: int
    """The place in the log after which it reads."""


@dataclass(frozen=True, slots=True)
class Page:
    """A part of the log."""

    entries: list[Entry]
    """The entries, oldest first."""

    position: str
    """The position to go on from."""

    recovered: bool
    """True if nothing is missing between the position asked for and the first entry."""


class EventLog(Generic[S]):
    """Channels and their histories. `S` is what subscribes to a channel."""

    def __init__(
        self,
        *,
        epoch: str,
        settings: Callable[[str], Settings],
        now: Callable[[], float],
        seconds: Callable[[], float],
        max_channels: int,
    ) -> None:
        """Make an empty log.

        `epoch` is 10 characters of ``0-9a-z``, new for each log. `settings` answers those of a channel by its
        name. `now` is the time in seconds since 1970; `seconds` is a clock that never jumps. At most
        `max_channels` channels are kept.
        """
        self._epoch = epoch
        self._settings = settings
        self._now = now
        self._seconds = seconds
        self._max_channels = max_channels
        self._sequence = 0
        self._channels: dict[str, Channel[S]] = {}
        self._by_sequence: dict[Channel[S], None] = {}  # those that had an event, the latest last
        self._latest: Channel[S] | None = None  # which stands there last
        self._idle: dict[Channel[S], None] = {}  # those of them that nobody would miss
        self._given_up_sequence = 0  # the latest event of all channels that were given up
        self._given_up_offset = 0
        self._given_ids: dict[str, Entry] = {}
        self._expiries: list[tuple[float, int, Channel[S]]] = []  # each channel once at most
        self._count = count()

    def __len__(self) -> int:
        """Count the channels."""
        return len(self._channels)

    @property
    def position(self) -> str:
        """The position after everything that was published until now."""
        return own_id(self._epoch, self._sequence)

    # Writing

    def published_before(self, draft: Draft) -> Entry | None:
        """Answer the entry that has the draft's id already; raise `Conflict` if it is another channel's."""
        entry = None if draft.id is None else self._by_given_id(draft.id)
        if entry is not None and set(draft.channels) != set(entry.event.channels):
            raise Conflict(f"the id {draft.id!r} belongs to an event of channel {entry.channel!r}", "id")
        return entry

    def append(self, draft: Draft) -> list[Entry]:
        """Make an event of `draft`; answer its entry in each of its channels.

        Raises `Unavailable` if there are too many channels; then nothing was changed.
        """
        channels = self.open(draft.channels)
        self._sequence = sequence = self._sequence + 1
        event_id = draft.id or own_id(self._epoch, sequence)
        event = Event(event_id, draft.channels, draft.data, draft.is_text, draft.type, self._now(), sequence)
        seconds = self._seconds()
        entries = []
        for channel in channels:
            entries.append(self._keep(channel, event, seconds))
        if draft.id is not None and self._is_kept(event):
            self._given_ids[draft.id] = entries[0]
        return entries

    def _keep(self, channel: Channel[S], event: Event, seconds: float) -> Entry:
        entry = channel.add(event, seconds)
        if channel is not self._latest:
            self._by_sequence.pop(channel, None)
            self._by_sequence[channel] = None
            self._latest = channel
        self._idle.pop(channel, None)
        for dropped in channel.drop_surplus(seconds):
            self._dropped(dropped)
            if dropped is entry and channel.is_idle:
                self._idle[channel] = None
        if not channel.awaits_expiry:
            self._await_expiry(channel)
        return entry

    def _is_kept(self, event: Event) -> bool:
        """Tell whether any of its channels still has `event`."""
        for name in event.channels:
            channel = self._channels.get(name)
            entry = None if channel is None else channel.history.after(event.sequence - 1)
            if entry is not None and entry.event is event:
                return True
        return False

    # Channels

    def get(self, name: str) -> Channel[S] | None:
        """Answer the channel `name`, if there is one."""
        return self._channels.get(name)

    def existing(self, name: str) -> Channel[S]:
        """Answer the channel `name`, trimmed; raise `NotFound` if there is none."""
        channel = self._channels.get(check_name(name))
        if channel is None:
            raise NotFound(f"there is no channel {name!r}", "channel")
        self.trim(channel)
        return channel

    def subscribed(self, name: str) -> Iterable[S] | None:
        """Answer who subscribed to a channel by its name, None if there is no such channel."""
        channel = self._channels.get(name)
        return None if channel is None else channel.subscribed

    def names(self) -> Iterator[str]:
        """Answer the names of all channels, in no order."""
        return iter(self._channels)

    def open(self, names: Sequence[str]) -> list[Channel[S]]:
        """Answer the channels called `names`, making those that are not there yet.

        Raises `Unavailable` if there are too many channels; then nothing was changed.
        """
        if len(names) == 1 and (channel := self._channels.get(names[0])) is not None:
            return [channel]
        missing = {name for name in names if name not in self._channels}
        surplus = len(self._channels) + len(missing) - self._max_channels
        if missing and surplus > 0:
            self._give_up(surplus, keep=names)
        return list(map(self._open, names))

    def _open(self, name: str) -> Channel[S]:
        channel = self._channels.get(name)
        if channel is None:
            offset, dropped = self._given_up_offset, self._given_up_sequence
            channel = Channel(name, self._settings(name), offset=offset, dropped=dropped)
            self._channels[name] = channel
        return channel

    def _give_up(self, count: int, keep: Sequence[str]) -> None:
        """Forget that `count` idle channels ever were, those idle for longest first.

        What can be known of them later is an upper bound: every channel made from now on starts after the
        highest offset, and counts as having dropped the latest event, of all that were given up.
        """
        self.expire()
        idle = list(islice((channel for channel in self._idle if channel.name not in keep), count))
        if len(idle) < count:
            raise Unavailable(f"there are {self._max_channels} channels already, see [limits] channels")
        for channel in idle:
            self._given_up_sequence = max(self._given_up_sequence, channel.sequence)
            self._given_up_offset = max(self._given_up_offset, channel.offset)
            del self._channels[channel.name], self._by_sequence[channel], self._idle[channel]
        self._latest = None

    def release(self, channel: Channel[S]) -> None:
        """Keep account of whether the channel may be given up; one that never had an event is, at once."""
        if not channel.is_idle:
            self._idle.pop(channel, None)
        elif channel in self._by_sequence:
            self._idle[channel] = None
        else:
            self._channels.pop(channel.name, None)

    # Retention

    def expire(self) -> None:
        """Drop what has become too old, everywhere. To be called now and then."""
        seconds = self._seconds()
        while self._expiries and self._expiries[0][0] <= seconds:
            channel = heappop(self._expiries)[2]
            channel.awaits_expiry = False
            if self._channels.get(channel.name) is channel:
                self.trim(channel)
                self._await_expiry(channel)

    def _await_expiry(self, channel: Channel[S]) -> None:
        """Have `expire` look at the channel when its oldest entry has become too old."""
        oldest = channel.history.oldest
        if oldest is not None:
            channel.awaits_expiry = True
            if len(self._expiries) > 2 * len(self._channels):  # most are of channels that were given up
                self._expiries = [one for one in self._expiries if self._channels.get(one[2].name) is one[2]]
                heapify(self._expiries)
            heappush(self._expiries, (oldest.expires_s, next(self._count), channel))

    def trim(self, channel: Channel[S]) -> None:
        """Drop what is over the channel's limits of count and age."""
        for entry in channel.drop_surplus(self._seconds()):
            self._dropped(entry)
        self.release(channel)

    def clear(self, channel: Channel[S]) -> None:
        """Drop everything that the channel has."""
        while channel.history:
            self._dropped(channel.history.drop())
        self.release(channel)

    def _dropped(self, entry: Entry) -> None:
        event = entry.event
        if event.id in self._given_ids and not self._is_kept(event):
            del self._given_ids[event.id]

    # Reading

    def event(self, name: str, event_id: str) -> Entry:
        """Answer one event of a channel; raise `NotFound` if the channel does not have it."""
        channel = self.existing(name)
        sequence = self._sequence_of(event_id)
        entry = None if sequence is None else channel.history.after(sequence - 1)
        if entry is None or entry.event.id != event_id:
            raise NotFound(f"channel {name!r} has no event {event_id!r}, or no longer has it", "id")
        return entry

    def read(self, patterns: Sequence[Pattern], since: str, limit: int) -> Page:
        """Answer the first `limit` events after the position `since`, in the order of the log."""
        start, active = self.find(patterns, since)
        replay = Replay()
        for channel in active:
            replay.add(channel.history, start.sequence)
        entries = list(islice(iter(replay.next, None), limit + 1))
        return self.page(entries, limit, recovered=start.recovered)

    def page(self, entries: list[Entry], limit: int, *, recovered: bool = True) -> Page:
        """Make a page of all the latest `entries` of the log, or of the first `limit` of them."""
        if len(entries) <= limit:
            return Page(entries, self.position, recovered)
        entries = entries[:limit]
        return Page(entries, own_id(self._epoch, entries[-1].event.sequence), recovered)

    def find(self, patterns: Sequence[Pattern], since: str) -> tuple[Start, list[Channel[S]]]:
        """Find out where a reader from `since` begins, whether something is missing for good, and where to read.

        `since` is ``latest``, ``earliest`` or an id. A reader from an id that the log does not know begins with
        the oldest event that there is. The channels are those that had events since then.
        """
        if since == "latest":
            return Start(self.position, True, self._sequence), []
        sequence = None if since == "earliest" else self._sequence_of(since)
        active = self._active(patterns, -1 if sequence is None else sequence)
        for channel in active:
            self.trim(channel)
        dropped = [channel.history.dropped for channel in active]
        if any(not pattern.is_name or pattern.text not in self._channels for pattern in patterns):
            dropped.append(self._given_up_sequence)
        if sequence is None:
            sequence = min(dropped, default=self._sequence)
            return Start(own_id(self._epoch, sequence), since == "earliest", sequence), active
        recovered = max(dropped, default=0) <= sequence
        return Start(own_id(self._epoch, sequence), recovered, sequence), active

    def _sequence_of(self, position: str) -> int | None:
        """Answer the place in the log of a position; None if the log cannot tell."""
        sequence = own_sequence(self._epoch, position)
        if sequence is not None:
            return sequence if sequence <= self._sequence else None
        entry = self._by_given_id(position)
        return None if entry is None else entry.event.sequence

    def _by_given_id(self, event_id: str) -> Entry | None:
        """Answer the entry of a publisher's id in its canonical channel, if any of its channels still has it."""
        entry = self._given_ids.get(event_id)
        if entry is not None:
            for name in entry.event.channels:
                if (channel := self._channels.get(name)) is not None:
                    self.trim(channel)
        return self._given_ids.get(event_id)

    def _active(self, patterns: Sequence[Pattern], sequence: int) -> list[Channel[S]]:
        """Answer the channels that the patterns match and that had events after `sequence`."""
        names = [pattern.text for pattern in patterns if pattern.is_name]
        active = {channel: None for name in names if (channel := self._channels.get(name)) is not None}
        if len(names) < len(patterns):
            recent = takewhile(lambda channel: channel.sequence > sequence, reversed(self._by_sequence))
            if any(pattern.text == "**" for pattern in patterns):
                active.update(dict.fromkeys(recent))
            else:
                tree: PatternTree[None] = PatternTree()
                for pattern in patterns:
                    tree.add(pattern, None)
                active.update((channel, None) for channel in recent if next(tree.match(channel.name), 0) is None)
        return [channel for channel in active if channel.sequence > sequence]
