"""The history storage: the interface through which the log keeps histories and publishers' ids.

A publisher's id belongs to the first channel of its event: a duplicate has the same id and the same first channel.
The other channels of the event know the id as well, for clients that resume there.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain, islice, takewhile
from typing import Any, Protocol

from pushd.bus.channel import Channel, Settings
from pushd.bus.event import Draft, Entry
from pushd.bus.history import FreeLater, History, MemoryHistory, at_once, freeing
from pushd.bus.partitioned_dict import PartitionedDict
from pushd.bus.patterns import Pattern, PatternTree
from pushd.bus.sizes import CHANNEL_OBJECT_BYTES, OBJECT_BYTES, channel_size
from pushd.errors import Unavailable, Unprocessable

__all__ = ["HistoryStorage", "MemoryStorage", "PublishedId", "names_with", "oldest_place"]

_MOST_NAMES = 500
"""How many channels with one id may match the prefixes of a reader's patterns: each takes about 15 us."""

_FEW = 16
"""Up to how many channels with one id are scanned for a prefix; beyond that, the names are kept in order."""


@dataclass(frozen=True, slots=True)
class PublishedId:
    """An event with a publisher's id, in one of its channels."""

    id: str
    """The id."""

    channel: str
    """The channel."""

    offset: int
    """The offset of the event in the channel."""

    sequence: int
    """The place of the event in the log."""

    is_first: bool = False
    """True if the publisher named this channel first."""

    fingerprint: bytes | None = None
    """The `Draft.fingerprint` if this is the first channel; None for an event from a store of version 1."""

    def check(self, draft: Draft) -> None:
        """Raise `Unprocessable` if `draft`, which has the same id, is a different event."""
        if self.fingerprint is not None and self.fingerprint != draft.fingerprint():
            raise Unprocessable(
                f"id {self.id!r} was published before with other data; wanted a new id, or the same event", "id"
            )


class HistoryStorage(Protocol):
    """A storage for histories and publishers' ids."""

    later: FreeLater
    """Free the memory of many dropped entries; all at once unless set."""

    def history(self, name: str, settings: Settings, *, offset: int, dropped: int) -> History:
        """Return the history of a new channel.

        `offset` and `dropped`: the highest offset and sequence that an earlier event of the channel may have.
        """

    def give_up(self, history: History) -> None:
        """Forget an empty history: its channel is given up."""

    def keep_id(self, entries: list[Entry], fingerprint: bytes) -> None:
        """Called before an event with a publisher's id enters the histories of a log in memory."""

    def given(self, name: str, event_id: str, first: int) -> list[PublishedId]:
        """Return the events of the channel `name` with the publisher's id `event_id`, from the offset `first` on.

        At most two: the event that has this channel as its first, and the oldest of all others.
        """

    def names_with(self, event_id: str, prefix: str, most: int) -> list[str] | None:
        """Return the channels that may have the publisher's id `event_id` and whose names begin with `prefix`.

        Return None if there are more than `most`.
        """


def names_with(archive: HistoryStorage, event_id: str, patterns: Sequence[Pattern]) -> Iterable[str]:
    """Return the channels that match `patterns` and may have the publisher's id `event_id`.

    Return no channel, so that the id is no valid position, if too many have the id to check each of them.
    """
    names = dict.fromkeys(pattern.text for pattern in patterns if pattern.is_name)
    left = _MOST_NAMES
    for pattern in patterns:
        if not pattern.is_name:
            found = archive.names_with(event_id, pattern.prefix, left)
            if found is None:
                return ()
            left -= len(found)
            tree: PatternTree[None] = PatternTree()
            tree.add(pattern, None)
            names.update((name, None) for name in found if next(tree.match(name), 0) is None)
    return names


def oldest_place(found: Sequence[PublishedId], began: int, channels: Mapping[str, Channel[Any]]) -> int | None:
    """Return the place in the log of the oldest of the events `found`, or None if that is not after `began`.

    Raises `Unavailable` if the stored event has another id or place: a reader from a wrong place would miss events.
    """
    oldest = min(found, key=lambda given: given.sequence, default=None)
    if oldest is None or oldest.sequence <= began:
        return None
    entry = channels[oldest.channel].history.at(oldest.offset)
    if entry is None or (entry.event.id, entry.event.sequence) != (oldest.id, oldest.sequence):
        raise Unavailable(
            f"the store is damaged: the event with the id {oldest.id!r} is not where it should be",
            code="store_down",
        )
    return oldest.sequence


class _Holders:
    """The events with one id, by channel."""

    __slots__ = ("_in_order", "first", "others")

    def __init__(self) -> None:
        self.first: dict[str, PublishedId] = {}
        self.others: dict[str, deque[PublishedId]] = {}  # the oldest first
        self._in_order: list[str] = []
        """The names in order, once there are more than `_FEW`."""

    def __len__(self) -> int:
        """Return the number of names; a name in both `first` and `others` counts twice."""
        return len(self.first) + len(self.others)

    def entered(self, name: str) -> None:
        """Called when a channel gets its first event with the id."""
        if self._in_order:
            insort(self._in_order, name)
        elif len(self) > _FEW:
            self._in_order = sorted({*self.first, *self.others})

    def left(self, name: str) -> None:
        """Called when a channel has lost its last event with the id."""
        if self._in_order:
            del self._in_order[bisect_left(self._in_order, name)]

    def named(self, prefix: str, most: int) -> list[str] | None:
        """Return the names that begin with `prefix`, or None if there are more than `most`."""
        names: Iterable[str] = self._in_order
        if not names:
            names = dict.fromkeys(chain(self.first, self.others))
            found = [name for name in names if name.startswith(prefix)]
        else:
            begin = bisect_left(self._in_order, prefix)
            some = self._in_order[begin : begin + most + 1]
            found = list(takewhile(lambda name: name.startswith(prefix), some))
        return found if len(found) <= most else None


class MemoryStorage:
    """A `HistoryStorage` in memory; its contents end with the process."""

    def __init__(self) -> None:
        self._given: PartitionedDict[str, _Holders] = PartitionedDict()
        self.later: FreeLater = at_once
        """Free the memory of many dropped entries."""

    def history(self, name: str, settings: Settings, *, offset: int, dropped: int) -> MemoryHistory:
        """Return the history of a new channel."""
        base_bytes = channel_size(name) + CHANNEL_OBJECT_BYTES
        return MemoryHistory(
            settings,
            dropped,
            self._given.parts,
            self._forget,
            free=self._free,
            base_bytes=base_bytes,
            event_bytes=OBJECT_BYTES,
        )

    def _free(self, entries: list[Entry]) -> None:
        self.later(freeing(entries, self._forget))

    def give_up(self, history: History) -> None:
        """Forget an empty history."""

    def keep_id(self, entries: list[Entry], fingerprint: bytes) -> None:
        """Called before an event with a publisher's id enters the histories."""
        event = entries[0].event
        holders = self._given.get(event.id)
        if holders is None:
            holders = self._given[event.id] = _Holders()
        for given in [PublishedId(event.id, one.channel, one.offset, event.sequence) for one in entries]:
            name = given.channel
            is_new = name not in holders.first and name not in holders.others
            if given.channel == entries[0].channel:
                holders.first[name] = replace(given, is_first=True, fingerprint=fingerprint)
            else:
                holders.others.setdefault(name, deque()).append(given)
            if is_new:
                holders.entered(name)

    def _forget(self, entry: Entry) -> None:
        """Forget an event with a publisher's id in one channel, and all earlier events with that id there."""
        event_id, name = entry.event.id, entry.channel
        holders = self._given.get(event_id)
        if holders is None or (name not in holders.first and name not in holders.others):
            return
        first, others = holders.first.get(name), holders.others.get(name)
        if first is not None and first.offset <= entry.offset:
            del holders.first[name]
        while others and others[0].offset <= entry.offset:
            others.popleft()
        if others is not None and not others:
            del holders.others[name]
        if name not in holders.first and name not in holders.others:
            holders.left(name)
            if not holders:
                del self._given[event_id]

    def given(self, name: str, event_id: str, first: int) -> list[PublishedId]:
        """Return the events of the channel `name` with the publisher's id `event_id`."""
        holders = self._given.get(event_id)
        if holders is None:
            return []
        own = [holders.first[name]] if name in holders.first else []
        others = (one for one in holders.others.get(name, ()) if one.offset >= first)  # older: being dropped
        return [one for one in (*own, *islice(others, 1)) if one.offset >= first]

    def names_with(self, event_id: str, prefix: str, most: int) -> list[str] | None:
        """Return the channels with the publisher's id `event_id` whose names begin with `prefix`."""
        holders = self._given.get(event_id)
        return [] if holders is None else holders.named(prefix, most)
