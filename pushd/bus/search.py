"""Search the log in steps: find the start position and the events of a reader.

A search is a generator that yields after each step, because it may take long. Between steps, events may be
published, and channels trimmed, deleted and given up. The result is valid when the last step is done.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from heapq import heappop
from typing import Protocol, TypeVar

from pushd.bus.channel import Channel
from pushd.bus.earliest_entries import EarliestEntries
from pushd.bus.event import Entry
from pushd.bus.linked_list import Bookmark
from pushd.bus.name_index import NameIndex
from pushd.bus.partitioned_dict import PartitionedDict
from pushd.bus.patterns import Pattern, PatternTree
from pushd.bus.position import HistoryPage, Room, StartPosition
from pushd.bus.replay import Overtaken, Replay
from pushd.bus.work import Work, drain, when_here

__all__ = ["Key", "Prepared", "complete", "find_each", "key_of", "latest", "prepare", "read"]

S = TypeVar("S")

_AT_ONCE = 500
"""How many of the most recently active channels are searched before another order is considered."""

_OLDEST = 2000
"""How many channels, those with the oldest events first, are searched to fill a page from ``earliest``."""

_NAMES = 200
"""How many channels are skipped in one step."""

_AGAIN = 3
"""How often a page is tried in steps while the log changes, before it is read in one step."""

_NOTHING = Replay()
"""The replay of readers from ``latest``; nothing is added to it."""


class Log(Protocol[S]):
    """The part of the log that a search uses: see `pushd.bus.eventlog`."""

    by_name: PartitionedDict[str, Channel[S]]
    index: NameIndex
    sequence: int
    given_up_sequence: int

    def position_of(self, sequence: int) -> str:
        """Return the position after the event at `sequence`."""

    def where(self, since: str, *among: Sequence[Pattern]) -> int | None:
        """Return the place in the log of a position; None for ``earliest`` and for positions unknown to the log."""

    def recent(self, sequence: int = -1) -> Iterator[Channel[S]]:
        """Return the channels that had events after `sequence`, the latest first."""

    def bookmark(self) -> Bookmark[Channel[S]]:
        """Return a bookmark in the list of channels with events, after the latest one."""

    def oldest_first(self) -> list[list[tuple[int, int, Channel[S]]]]:
        """Return heaps of channels, by a lower bound of the sequence of their oldest events."""

    discard: Callable[[Replay], None]
    """Free a replay that is no longer read."""

    def trim(self, channel: Channel[S]) -> object:
        """Drop the events that exceed the limits of the channel."""


@dataclass(slots=True)
class Prepared:
    """The start position and the replay of one reader."""

    start: StartPosition
    """The start position of the reader."""

    replay: Replay
    """The events to read."""

    end: int
    """The sequence of the latest event of the log when the search began."""

    place: int | None = None
    """The place of the requested position in the log, if the log knows it."""

    is_all: bool = False
    """True for ``earliest``: the reader gets all retained events, and so misses none."""


Key = tuple[str, frozenset[str]]
"""The request that a `Prepared` is for: the position and the texts of the patterns."""


def key_of(patterns: Sequence[Pattern], since: str) -> Key:
    """Return the key by which a replay of `patterns` from the position `since` is stored until it is used."""
    return since, frozenset(pattern.text for pattern in patterns)


def wanted(patterns: Sequence[Pattern]) -> Callable[[str], bool]:
    """Return a function that returns whether any of `patterns` matches a name."""
    if any(pattern.text == "**" for pattern in patterns):
        return lambda name: True
    tree: PatternTree[None] = PatternTree()
    for pattern in patterns:
        tree.add(pattern, None)
    return lambda name: next(tree.match(name), 0) is None


def _beginnings(patterns: Sequence[Pattern]) -> tuple[list[str], list[str]]:
    """Return disjoint prefixes, one of which every matching name has, and the matching names that have none."""
    found: list[str] = []
    for prefix in sorted(prefix for pattern in patterns for prefix in pattern.beginnings[0]):
        if not found or not prefix.startswith(found[-1]):
            found.append(prefix)
    return found, [name for pattern in patterns for name in pattern.beginnings[1]]


def _matching(log: Log[S], patterns: Sequence[Pattern], sequence: int) -> Iterator[Channel[S] | None]:
    """Return the channels that match the patterns and had events after `sequence`, with None for other channels.

    The cost grows with the smallest of these sets: channels with events since, channels with a prefix of the
    patterns, all channels.
    """
    names = dict.fromkeys(pattern.text for pattern in patterns if pattern.is_name)
    for name in names:
        channel = log.by_name.get(name)
        yield channel if channel is not None and channel.history.sequence > sequence else None
    if len(names) == len(patterns) or all(pattern.is_name for pattern in patterns):
        return
    is_wanted = wanted(patterns)
    for channel in _candidates(log, patterns, sequence):
        if (
            channel is None
            or channel.name in names
            or channel.history.sequence <= sequence
            or not is_wanted(channel.name)
            or log.by_name.get(channel.name) is not channel
        ):
            yield None
        else:
            yield channel


def _candidates(log: Log[S], patterns: Sequence[Pattern], sequence: int) -> Iterator[Channel[S] | None]:
    first: list[Channel[S]] = []
    for channel in log.recent(sequence):  # without a yield, so the log cannot change
        first.append(channel)
        if len(first) > _AT_ONCE:
            break
    if len(first) <= _AT_ONCE:
        yield from first
        return
    prefixes, names = _beginnings([pattern for pattern in patterns if not pattern.is_name])
    if 2 * sum(map(log.index.count, prefixes)) < len(log.by_name):
        for name in names:
            yield log.by_name.get(name)
        for prefix in prefixes:
            for name in log.index.each(prefix):
                yield log.by_name.get(name)
        return
    yield from _in_order(log, sequence)


def _in_order(log: Log[S], sequence: int) -> Iterator[Channel[S] | None]:
    """Return the channels that had events after `sequence`, with None in between; some may be repeated.

    A channel that gets an event meanwhile moves to the end of the order. Those channels are collected in one step:
    if events are published as fast as channels are searched, the end would never be reached.
    """
    end, mark, rest = log.sequence, log.bookmark(), list[Channel[S]]()
    try:
        passed = 0
        while (channel := mark.back()) is not None and channel.history.sequence > sequence:
            passed += 1
            if not passed % _NAMES:
                yield None
        while (channel := mark.forth()) is not None:
            if channel.history.sequence > end:
                rest = [channel, *iter(mark.forth, None)]
                break
            yield channel
    finally:
        mark.remove()
    yield from rest


def prepare(
    log: Log[S], patterns: Sequence[Pattern], since: str, sequence: int | None, count: int = 0
) -> Work[Prepared]:
    """Find the start position of a reader from `since`, whether events are lost, and the events to read.

    `since` is ``latest``, ``earliest`` or an id, and `sequence` is its place in the log. An id that is unknown to
    the log starts at the oldest retained event. `count`, unless 0, is the maximum number of events to be read.
    """
    if since == "latest":
        return latest(log)
    prepared = yield from _prepare_after(log, patterns, sequence, count)
    prepared.is_all, prepared.place = since == "earliest", sequence
    if sequence is None:
        prepared.start = StartPosition(prepared.start.position, prepared.is_all, prepared.start.sequence)
    if not count:
        yield from _catch_up(log, prepared, patterns)
    return prepared


def latest(log: Log[S]) -> Prepared:
    """Return an empty replay that starts at the end of the log."""
    end = log.sequence
    return Prepared(StartPosition(log.position_of(end), True, end), _NOTHING, end)


def _prepare_after(log: Log[S], patterns: Sequence[Pattern], sequence: int | None, count: int) -> Work[Prepared]:
    end, after = log.sequence, -1 if sequence is None else sequence
    replay, firsts, dropped = Replay(), EarliestEntries(count), list[int]()
    widest = 4 * count + 64
    try:
        for channel in _matching(log, patterns, after):
            yield None
            if channel is None:
                continue
            if not count:
                log.trim(channel)
                replay.add(channel.history, after)
            else:
                yield from when_here(partial(_add_first, log, channel, replay, firsts, after))
            dropped.append(channel.history.dropped)
            if len(dropped) > 1000:
                dropped = [min(dropped), max(dropped)]
            if count and replay.width > widest and firsts.end is not None:
                yield from replay.cutting(firsts.end)
                widest = max(widest, 2 * replay.width)  # many channels may share the same events
    except GeneratorExit:  # the client is gone
        log.discard(replay)
        raise
    if any(not pattern.is_name or pattern.text not in log.by_name for pattern in patterns):
        dropped.append(log.given_up_sequence)
    if sequence is None:
        sequence = min([end, *dropped])
    recovered = max(dropped, default=0) <= sequence
    return Prepared(StartPosition(log.position_of(sequence), recovered, sequence), replay, end)


def _add_first(log: Log[S], channel: Channel[S], replay: Replay, firsts: EarliestEntries, after: int) -> None:
    """Add a channel to `replay` if its first entry after the sequence `after` may be one of `firsts`.

    Nothing is added if the channel was given up while its first entry was fetched.
    """
    if log.by_name.get(channel.name) is channel:
        log.trim(channel)
        if firsts.wants(channel.history, after):
            replay.add(channel.history, after)


def _catch_up(log: Log[S], prepared: Prepared, patterns: Sequence[Pattern]) -> Work[None]:
    """Add the events published meanwhile in steps, until few are left for `complete`, which has no steps.

    After `_AGAIN` rounds the rest is left to `complete` anyway: events may be published as fast as they are added.
    """
    try:
        for _ in range(_AGAIN):
            if log.sequence - prepared.end <= _AT_ONCE:
                return
            end = log.sequence
            for channel in _matching(log, patterns, prepared.end):
                yield None
                if channel is not None:
                    _add(log, prepared, channel)
            prepared.end = end
    except GeneratorExit:  # the client is gone
        log.discard(prepared.replay)
        raise


def find_each(
    log: Log[S],
    groups: Sequence[Sequence[Pattern]],
    since: str,
    ready: dict[Key, Prepared] | None,
    *among: Sequence[Pattern],
) -> list[Prepared]:
    """Return the start and the replay of each group of patterns; use the result in the same step.

    That is the one in `ready`, completed, if the position `since` is still where it was, or else made now.
    """
    if since == "latest":
        return [latest(log) for _ in groups]
    found, place = [], drain(when_here(partial(log.where, since, *among)))
    for patterns in groups:
        prepared = ready.pop(key_of(patterns, since), None) if ready else None
        if prepared is not None and prepared.place == place:
            complete(log, prepared, patterns)
        else:
            prepared = drain(prepare(log, patterns, since, place))
        found.append(prepared)
    return found


def complete(log: Log[S], prepared: Prepared, patterns: Sequence[Pattern]) -> None:
    """Add the events published since `prepared` was made. The caller must use the result in the same step."""
    is_wanted = wanted(patterns)
    for channel in log.recent(prepared.end):
        if is_wanted(channel.name):
            _add(log, prepared, channel)
    prepared.end = log.sequence


def _add(log: Log[S], prepared: Prepared, channel: Channel[S]) -> None:
    """Add the events published to `channel` since `prepared` was made."""
    log.trim(channel)
    start = prepared.start
    if start.recovered and not prepared.is_all and channel.history.dropped > start.sequence:
        prepared.start = StartPosition(start.position, False, start.sequence)
    prepared.replay.add(channel.history, start.sequence)


def read(log: Log[S], patterns: Sequence[Pattern], since: str, limit: int) -> Work[HistoryPage]:
    """Return the first events after the position `since`, in the order of the log: at most `limit`, or one page.

    An empty page has the position of the end of the log at the last step.
    """
    is_all, recovered, tried = since == "earliest", True, 0
    while True:
        end, work = log.sequence, _read(log, patterns, since, limit)
        page = (yield from work) if tried < _AGAIN else drain(work)
        tried += 1
        if page is not None:
            recovered = recovered and page.recovered
            if page.entries or end == log.sequence or since == "latest":
                return HistoryPage(page.entries, page.position, is_all or recovered)
            since = page.position  # no events up to `end`, but some may have been published since


def _read(log: Log[S], patterns: Sequence[Pattern], since: str, limit: int) -> Work[HistoryPage | None]:
    """Return one page, or None if its first event was dropped meanwhile."""
    end = log.sequence
    if since == "earliest" and not all(pattern.is_name for pattern in patterns):
        page = yield from _read_oldest(log, patterns, limit)
        if page is not None:
            return page
    place = yield from when_here(partial(log.where, since, patterns))
    prepared = yield from prepare(log, patterns, since, place, limit + 1)
    room = Room(limit)
    try:
        while True:
            entry = yield from when_here(prepared.replay.next)
            if entry is None or entry.event.sequence > end:
                is_all = True
                break
            if not room.add(entry):
                is_all = False
                break
            yield None
    except Overtaken:
        if not room.entries:
            return None
        is_all = False
    return _page(log, room.entries, end if is_all else None, prepared.start.recovered)


def _page(log: Log[S], entries: list[Entry], end: int | None, recovered: bool) -> HistoryPage:
    sequence = entries[-1].event.sequence if end is None else end
    return HistoryPage(entries, log.position_of(sequence), recovered)


def _read_oldest(log: Log[S], patterns: Sequence[Pattern], limit: int) -> Work[HistoryPage | None]:
    """Return a page from the earliest event on, starting with the channels that have the oldest events.

    This is the fast path of `_read`: it saves searching all matching channels. Return None, for the slow path, if
    `_OLDEST` channels do not fill the page.
    """
    end, is_wanted = log.sequence, wanted(patterns)
    heaps, replay, room, seen = log.oldest_first(), Replay(), Room(limit), 0
    try:
        while True:
            channels = min(filter(None, heaps), default=None)
            first = yield from when_here(replay.first)
            if channels and (first is None or channels[0][0] <= first):
                channel = heappop(channels)[2]
                seen += 1
                yield None
                if is_wanted(channel.name) and log.by_name.get(channel.name) is channel:
                    log.trim(channel)
                    replay.add(channel.history, -1)
                if seen > _OLDEST:
                    return None
                continue
            entry = yield from when_here(replay.next)
            if entry is None or entry.event.sequence > end:
                return _page(log, room.entries, end, True)
            if not room.add(entry):
                return _page(log, room.entries, None, True)
            yield None
    except Overtaken:
        return _page(log, room.entries, None, True) if room.entries else None
