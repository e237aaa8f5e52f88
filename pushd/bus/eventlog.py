"""The log: all retained events, by channel and in one order over all channels.

One sequence numbers the places in the log; a position is a place, written as an event id. The log detects gaps:
each channel keeps the sequence of the latest event that it dropped.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Generic, TypeVar

from pushd.bus import search as finding
from pushd.bus.channel import Channel, Settings
from pushd.bus.event import Draft, Entry, Event, own_id, own_sequence, sequence_in
from pushd.bus.history import History
from pushd.bus.idle_channels import IdleChannels
from pushd.bus.linked_list import Bookmark, LinkedList
from pushd.bus.name_index import NameIndex
from pushd.bus.partitioned_dict import PARTS, PartitionedDict
from pushd.bus.patterns import Pattern, check_name
from pushd.bus.position import HistoryPage, Room
from pushd.bus.replay import Replay
from pushd.bus.retention import RetentionQueue
from pushd.bus.search import Prepared
from pushd.bus.sizes import event_size
from pushd.bus.storage import HistoryStorage, PublishedId, names_with, oldest_place
from pushd.bus.work import Work, drain
from pushd.errors import NotFound, Unavailable

__all__ = ["EventLog", "LogState"]

S = TypeVar("S")


@dataclass(frozen=True, slots=True)
class LogState:
    """The state of a log besides its channels."""

    epoch: str
    """10 characters of ``0-9a-z``; a new epoch starts whenever continuity is lost."""

    sequence: int = 0
    """The sequence of the latest event that the log ever had."""

    given_up_sequence: int = 0
    """The sequence of the latest event of all channels that were given up."""

    given_up_offset: int = 0
    """The highest offset of all channels that were given up."""

    began: int = 0
    """The sequence of the latest event before the epoch."""


class EventLog(Generic[S]):
    """Channels and their histories. `S` is the type of the subscriptions of a channel."""

    def __init__(
        self,
        *,
        state: LogState,
        archive: HistoryStorage,
        settings: Callable[[str], Settings],
        now: Callable[[], float],
        seconds: Callable[[], float],
        max_channels: int,
        max_bytes: int,
    ) -> None:
        """Make a log without channels; `archive` keeps the histories.

        `settings` returns the settings of a channel by name. `now` is the time in seconds since 1970; `seconds`
        is the monotonic clock. The log keeps at most `max_channels` channels, and events of about `max_bytes`.
        """
        self._epoch, self._began = state.epoch, state.began
        self._archive = archive
        self.settings = settings
        self.now, self.seconds = now, seconds
        """The clocks: the time in seconds since 1970, and the monotonic clock in seconds."""
        self._max_channels, self.sequence = max_channels, state.sequence
        """The sequence of the latest event."""
        self.by_name: PartitionedDict[str, Channel[S]] = PartitionedDict()
        """The channels by name."""
        self.index = NameIndex()
        """The names of the channels, sorted."""
        self._by_sequence: LinkedList[Channel[S]] = LinkedList()  # channels that had an event, latest event last
        self._latest: Channel[S] | None = None  # the last of `_by_sequence`, to skip moving it there again
        self._idle: IdleChannels[S] = IdleChannels()  # channels without events, given up first
        self.is_heard: Callable[[str], bool] = lambda name: False
        """Return whether a client is subscribed to a channel by name; set by the bus."""
        self.discard: Callable[[Replay], None] = lambda replay: None
        """Free a replay that no client reads any more; set by the bus."""
        self.given_up_sequence, self._given_up_offset = state.given_up_sequence, state.given_up_offset
        self._retention_queue = RetentionQueue[S](max_bytes, self.trim, self._drop, self._is_here, self.__len__)

    def configuring(self, settings: Callable[[str], Settings], *, max_channels: int, max_bytes: int) -> Work[None]:
        """Set new settings and limits, in steps; retained events keep their expiry time."""
        self.settings, self._max_channels, self._retention_queue.max_bytes = settings, max_channels, max_bytes
        for name in self.index.each():
            if (channel := self.by_name.get(name)) is not None:
                channel.settings = channel.history.settings = self.settings(name)
                while self.trim(channel):
                    yield None
            yield None

    def __len__(self) -> int:
        """Return the number of channels."""
        return len(self.by_name)

    @property
    def position(self) -> str:
        """The position after the latest event."""
        return own_id(self._epoch, self.sequence)

    @property
    def state(self) -> LogState:
        """The state of the log besides its channels."""
        return LogState(self._epoch, self.sequence, self.given_up_sequence, self._given_up_offset, self._began)

    @property
    def size_bytes(self) -> int:
        """The approximate size of all events, in bytes."""
        return self._retention_queue.size_bytes

    # Writing

    def published_before(self, draft: Draft) -> PublishedId | None:
        """Return the event with the draft's id in its first channel; raise `Unprocessable` if the event differs."""
        for given in () if draft.id is None else self._given(draft.channels[0], draft.id):
            if given.is_first:
                given.check(draft)
                return given
        return None

    def append(self, draft: Draft) -> list[Entry]:
        """Append an event made from `draft`; return its entry in each of its channels.

        Raises `Unavailable`, without any change, if there are too many channels.
        """
        channels = self.open(draft.channels)
        event = self.event_of(draft, self.sequence + 1, self.now())
        self.sequence, seconds = event.sequence, self.seconds()
        entries = [channel.entry(event, channel.offset + 1, seconds) for channel in channels]
        if draft.id is not None:
            self._archive.keep_id(entries, draft.fingerprint())
        for place, channel in enumerate(channels):  # costs less than `zip`
            self._keep(channel, entries[place : place + 1], seconds)
        if self._retention_queue.size_bytes > self._retention_queue.max_bytes:
            self._retention_queue.make_room()
        return entries

    def event_of(self, draft: Draft, sequence: int, now: float) -> Event:
        """Return an event published `now` for the place `sequence`, without appending it."""
        position, given = f"{self._epoch}-{sequence}", draft.id  # `own_id`, inlined to save a call per event
        size, text, kind = event_size(draft.data, draft.type, given), draft.is_text, draft.type
        return Event(given or position, position, draft.data, text, kind, now, sequence, size, given is not None)

    def keep(self, by_channel: Mapping[Channel[S], list[Entry]], seconds: float) -> None:
        """Append events that the archive has stored: the entries of each channel, made at `seconds`."""
        for channel, entries in sorted(by_channel.items(), key=lambda item: item[1][-1].event.sequence):
            self._keep(channel, entries, seconds)
            self.sequence = entries[-1].event.sequence
        if self._retention_queue.size_bytes > self._retention_queue.max_bytes:
            self._retention_queue.make_room(sum(map(len, by_channel.values())))

    def _keep(self, channel: Channel[S], entries: list[Entry], seconds: float) -> None:
        history = channel.history
        channel.offset = entries[-1].offset
        history.extend(entries)
        if channel is not self._latest:
            self._by_sequence.put_last(channel)
            self._latest = channel
        is_filled, retention_queue = history.trim(seconds), self._retention_queue
        retention_queue.count(channel)
        if is_filled:
            if channel.idle is not None:
                self._idle.remove(channel)
            if not channel.awaits_expiry or not channel.awaits_room:
                retention_queue.watch(channel)
        elif channel.is_idle:
            self._idle.add(channel)

    # Channels

    def get(self, name: str) -> Channel[S] | None:
        """Return the channel `name`, None if there is none."""
        return self.by_name.get(name)

    def names(self) -> Iterable[str]:
        """Return the names of all channels, in no order."""
        return self.by_name

    def existing(self, name: str) -> Channel[S]:
        """Return the channel `name`, trimmed; raise `NotFound` if there is none."""
        if (channel := self.by_name.get(check_name(name))) is None:
            raise NotFound(f"there is no channel {name!r}", "channel")
        self.trim(channel)
        return channel

    def history_with(self, entry: Entry) -> History | None:
        """Return the history that retains `entry`, None if the entry was dropped."""
        if (channel := self.by_name.get(entry.channel)) is None:
            return None
        self.trim(channel)
        return channel.history if channel.history.holds(entry.offset) else None

    def recent(self, sequence: int = -1) -> Iterator[Channel[S]]:
        """Return the channels with events after `sequence`, latest first; by default all that ever had events."""
        return takewhile(lambda channel: channel.history.sequence > sequence, reversed(self._by_sequence))

    def open(self, names: Sequence[str]) -> list[Channel[S]]:
        """Return the channels called `names`, creating missing ones. Fast path: one existing channel.

        Raises `Unavailable`, without any change, if there are too many channels.
        """
        if len(names) == 1:
            name = names[0]
            part = self.by_name.parts[hash(name) % PARTS]
            if name in part:
                return [part[name]]
        self._give_up(self.surplus(names))
        return list(map(self._open, names))

    def _open(self, name: str) -> Channel[S]:
        channel = self.by_name.get(name)
        if channel is None:
            offset, dropped, settings = self._given_up_offset, self.given_up_sequence, self.settings(name)
            history = self._archive.history(name, settings, offset=offset, dropped=dropped)
            channel = self.by_name[name] = Channel(name, settings, history, offset=offset)
            channel.is_heard = self.is_heard(name)
            self.index.add(name)
        return channel

    def begin(self, state: LogState) -> None:
        """Set the state restored from an archive. Must be called before any other method."""
        self._epoch, self._began, self.sequence = state.epoch, state.began, state.sequence
        self.given_up_sequence, self._given_up_offset = state.given_up_sequence, state.given_up_offset

    def restore(self, name: str, history: Callable[[Settings], History], *, offset: int) -> Channel[S]:
        """Add a channel from the archive. Call in ascending order of the latest events of the channels."""
        settings = self.settings(name)
        channel = self.by_name[name] = Channel(name, settings, history(settings), offset=offset)
        self.index.add(name)
        self._by_sequence.put_last(channel)
        self._retention_queue.count(channel)
        if channel.history:
            self._retention_queue.watch_later(channel)
        else:
            self._idle.add(channel)
        return channel

    def _is_here(self, channel: Channel[S]) -> bool:
        return self.by_name.get(channel.name) is channel

    def surplus(self, names: Collection[str]) -> list[Channel[S]]:
        """Return the channels that `open` gives up for `names`; raise `Unavailable` if too few are idle.

        The cost grows with the number of `names`, not with the number of channels.
        """
        missing = sum(name not in self.by_name for name in set(names))
        if not missing or (count := len(self.by_name) + missing - self._max_channels) <= 0:
            return []
        self.expire(self._idle.enough(count + len(names)))
        idle = self._idle.first(count, names)
        if len(idle) < count:
            raise Unavailable(f"{self._max_channels} channels are in use: [limits] channels", code="limit_reached")
        return idle

    def _give_up(self, idle: list[Channel[S]]) -> None:
        """Remove idle channels and their offsets.

        Only an upper bound stays: each channel created later starts after the highest offset of all channels given
        up, and counts as having dropped their latest event.
        """
        for channel in idle:
            self.given_up_sequence = max(self.given_up_sequence, channel.history.sequence)
            self._given_up_offset = max(self._given_up_offset, channel.offset)
            self._archive.give_up(channel.history)
            del self.by_name[channel.name]
            self._by_sequence.remove(channel)
            self.index.remove(channel.name)
            self._idle.remove(channel)
            self._latest = None

    def release(self, channel: Channel[S]) -> None:
        """Record whether the channel may be given up; give it up at once if it never had an event."""
        if not channel.is_idle:
            self._idle.remove(channel)
        elif channel.newer is not None:  # it had an event, so its offset must be kept
            self._idle.add(channel)
        elif self._is_here(channel):
            del self.by_name[channel.name]
            self.index.remove(channel.name)
            self._archive.give_up(channel.history)

    def hear(self, name: str, is_heard: bool) -> None:
        """Record whether a client is subscribed by name to the channel `name`, which need not exist."""
        if (channel := self.by_name.get(name)) is not None:
            channel.is_heard = is_heard
            self.release(channel)

    # Retention

    def expire(self, is_over: Callable[[], bool] = lambda: False) -> bool:
        """Drop some events over the limits of age or size; stop and return True once the time `is_over`."""
        return self._retention_queue.expire(self.seconds(), is_over)

    def trim(self, channel: Channel[S]) -> bool:
        """Drop events over the limits of the channel, or some of them; return whether any was dropped."""
        count = len(channel.history)
        channel.history.trim(self.seconds())
        self._retention_queue.count(channel)
        self.release(channel)
        return len(channel.history) < count

    def _drop(self, channel: Channel[S]) -> None:
        channel.history.drop()
        self._retention_queue.count(channel)
        self.release(channel)

    def clear(self, channel: Channel[S]) -> None:
        """Drop all events of the channel."""
        channel.history.clear()
        self._retention_queue.count(channel)
        self.release(channel)

    # Reading: `event`, `where` and `place_of` raise `NotInMemory`, without any change, if an event is to be fetched

    def event(self, name: str, event_id: str) -> Entry:
        """Return one event of a channel; raise `NotFound` if the channel does not have it."""
        channel = self.existing(name)
        if (sequence := sequence_in(event_id)) is None:  # not assigned by pushd: look up an id from a publisher
            sequence = next((given.sequence for given in self._given(name, event_id)), None)
        entry = None if sequence is None else channel.history.after(sequence - 1)
        if entry is None or entry.event.id != event_id:
            raise NotFound(f"channel {name!r} has no event {event_id!r}, or no longer has it", "id")
        return entry

    def read(self, patterns: Sequence[Pattern], since: str, limit: int) -> HistoryPage:
        """Return the first events after the position `since`, in the order of the log, as a `page`."""
        return drain(self.reading(patterns, since, limit))

    def reading(self, patterns: Sequence[Pattern], since: str, limit: int) -> Work[HistoryPage]:
        """Do the work of `read` in steps."""
        return finding.read(self, patterns, since, limit)

    def preparing(self, patterns: Sequence[Pattern], since: str, place: int | None) -> Work[Prepared]:
        """Prepare, in steps, the start position and the replay from `place`, where `since` is: see `where`."""
        return finding.prepare(self, patterns, since, place)

    def bookmark(self) -> Bookmark[Channel[S]]:
        """Return a bookmark behind the latest of the channels that had events."""
        return self._by_sequence.bookmark()

    def oldest_first(self) -> list[list[tuple[int, int, Channel[S]]]]:
        """Return heaps of the channels with events, by a lower bound of the sequence of the oldest event."""
        return self._retention_queue.oldest_first()

    def position_of(self, sequence: int) -> str:
        """Return the position after the event at `sequence`."""
        return own_id(self._epoch, sequence)

    def page(self, entries: Iterable[Entry], limit: int, *, recovered: bool = True) -> HistoryPage:
        """Return a page of the first of `entries`, which must reach to the end of the log.

        The page has 1 to `limit` entries, and about 1 MiB of data at most: it is in memory while a client reads it.
        """
        room = Room(limit)
        sequence = self.sequence if all(map(room.add, entries)) else room.entries[-1].event.sequence
        return HistoryPage(room.entries, self.position_of(sequence), recovered)

    def where(self, since: str, *among: Sequence[Pattern]) -> int | None:
        """Return the sequence of a position; None for the earliest, and for an unknown position.

        An id from a publisher is looked up in each set of patterns `among`; the first match counts.
        """
        if since == "earliest":
            return None
        return next((place for each in among if (place := self.place_of(each, since)) is not None), None)

    def place_of(self, patterns: Sequence[Pattern], position: str) -> int | None:
        """Return the sequence of a position; None if the position is unknown.

        An id from a publisher is looked up in the channels that `patterns` match, and in no others. Of several
        events with the id, the oldest counts; an event in the store that is not in the log yet does not.
        """
        if sequence_in(position) is not None:
            sequence = own_sequence(self._epoch, position)
            return sequence if sequence is not None and sequence <= self.sequence else None
        names = names_with(self._archive, position, patterns)
        found = [one for name in names for one in self._given(name, position) if one.sequence <= self.sequence]
        return oldest_place(found, self._began, self.by_name)

    def _given(self, name: str, event_id: str) -> list[PublishedId]:
        """Return the events of the channel `name` with an id from a publisher: see `HistoryStorage.given`."""
        if (channel := self.by_name.get(name)) is None:
            return []
        self.trim(channel)
        return self._archive.given(name, event_id, channel.offset + 1 - len(channel.history))
