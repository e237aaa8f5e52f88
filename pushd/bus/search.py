"""Finding what a reader of the log is to get: in steps, because it may take long.

Everything here is a generator that yields after each step; meanwhile events may be published, and channels trimmed,
deleted and given up. What is found is true when the last step is done.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
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

__all__ = ["Prepared", "Work", "complete", "drain", "key_of", "latest", "prepare", "read"]

S = TypeVar("S")
T = TypeVar("T")

Work = Generator[None, None, T]
"""What is done in steps."""

_AT_ONCE = 500
"""How many of the channels that had events last are looked at before another order is thought of."""

_OLDEST = 2000
"""How many channels are looked at, those with the oldest events first, to fill a page from the earliest on."""

_NAMES = 200
"""How many channels are passed over in one step."""

_AGAIN = 3
"""How often a page is begun anew because of what happened meanwhile, before it is made in one step."""


class Log(Protocol[S]):
    """What is known of the log: see `pushd.bus.eventlog`."""

    by_name: PartitionedDict[str, Channel[S]]
    index: NameIndex
    sequence: int
    given_up_sequence: int

    def position_of(self, sequence: int) -> str:
        """Return the position after the event at `sequence`."""

    def where(self, since: str, *among: Sequence[Pattern]) -> int | None:
        """Return the place in the log of a position; None for the earliest, and if the log cannot tell."""

    def recent(self, sequence: int = -1) -> Iterator[Channel[S]]:
        """Return the channels that had events after `sequence`, the latest first."""

    def bookmark(self) -> Bookmark[Channel[S]]:
        """Return a bookmark among the channels that had events, behind the latest."""

    def oldest_first(self) -> list[list[tuple[int, int, Channel[S]]]]:
        """Return heaps of channels by a sequence that their oldest events are not before."""

    discard: Callable[[Replay], None]
    """Free a replay that nobody reads any more."""

    def trim(self, channel: Channel[S]) -> object:
        """Drop what is over the channel's limits."""


@dataclass(slots=True)
class Prepared:
    """What a reader is to get."""

    start: StartPosition
    """Where it begins."""

    replay: Replay
    """What it reads."""

    end: int
    """The place of the latest event of the log when it was begun to find this."""

    place: int | None = None
    """The place in the log of its position, if it has one."""

    is_all: bool = False
    """True if it is to get everything that is retained, and so misses nothing."""


def key_of(patterns: Sequence[Pattern], since: str) -> tuple[object, ...]:
    """Return what tells apart what is prepared."""
    return since, frozenset(pattern.text for pattern in patterns)


def drain(work: Work[T]) -> T:
    """Do all steps at once; return the result."""
    while True:
        try:
            next(work)
        except StopIteration as stop:
            result: T = stop.value
            return result


def wanted(patterns: Sequence[Pattern]) -> Callable[[str], bool]:
    """Return what tells whether any of `patterns` matches a name."""
    if any(pattern.text == "**" for pattern in patterns):
        return lambda name: True
    tree: PatternTree[None] = PatternTree()
    for pattern in patterns:
        tree.add(pattern, None)
    return lambda name: next(tree.match(name), 0) is None


def _beginnings(patterns: Sequence[Pattern]) -> tuple[list[str], list[str]]:
    """Return beginnings one of which every matching name has, none of them that of another; and names without."""
    found: list[str] = []
    for prefix in sorted(prefix for pattern in patterns for prefix in pattern.beginnings[0]):
        if not found or not prefix.startswith(found[-1]):
            found.append(prefix)
    return found, [name for pattern in patterns for name in pattern.beginnings[1]]


def _matching(log: Log[S], patterns: Sequence[Pattern], sequence: int) -> Iterator[Channel[S] | None]:
    """Return the channels that the patterns match and that had events after `sequence`, with None in between.

    The cost grows with the smallest of: the channels that had events since, those whose names begin as the patterns
    do, and all.
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
    for channel in log.recent(sequence):  # this goes on before anything changes
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
    """Return the channels that had events after `sequence`, with None in between; some may come twice.

    One that gets an event meanwhile moves to the end. Those there are taken at once: while events are published as
    fast as channels are looked at, the end would never be reached.
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
    """Find out where a reader from `since` begins, whether something is missing for good, and what it reads.

    `since` is ``latest``, ``earliest`` or an id, and `sequence` its place in the log. A reader from an id that the
    log does not know begins with the oldest event that there is. If `count` is given, no more than so many events
    are going to be read.
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
    """Return what a reader is to get of what was published until now: nothing."""
    end = log.sequence
    return Prepared(StartPosition(log.position_of(end), True, end), Replay(), end)


def _prepare_after(log: Log[S], patterns: Sequence[Pattern], sequence: int | None, count: int) -> Work[Prepared]:
    end, after = log.sequence, -1 if sequence is None else sequence
    replay, firsts, dropped = Replay(), EarliestEntries(count), list[int]()
    widest = 4 * count + 64
    try:
        for channel in _matching(log, patterns, after):
            yield
            if channel is None:
                continue
            log.trim(channel)
            history = channel.history
            dropped.append(history.dropped)
            if not count or firsts.wants(history, after):
                replay.add(history, after)
                if count and replay.width > widest and firsts.end is not None:
                    yield from replay.cutting(firsts.end)
                    widest = max(widest, 2 * replay.width)  # as many channels may have the same events
            if len(dropped) > 1000:
                dropped = [min(dropped), max(dropped)]
    except GeneratorExit:  # the client has gone
        log.discard(replay)
        raise
    if any(not pattern.is_name or pattern.text not in log.by_name for pattern in patterns):
        dropped.append(log.given_up_sequence)
    if sequence is None:
        sequence = min([end, *dropped])
    recovered = max(dropped, default=0) <= sequence
    return Prepared(StartPosition(log.position_of(sequence), recovered, sequence), replay, end)


def _catch_up(log: Log[S], prepared: Prepared, patterns: Sequence[Pattern]) -> Work[None]:
    """Add what was published meanwhile in steps, until little is left for `complete`, which has no steps.

    After a few rounds the rest is left to `complete` anyway: events may be published as fast as they are added.
    """
    try:
        for _ in range(_AGAIN):
            if log.sequence - prepared.end <= _AT_ONCE:
                return
            end = log.sequence
            for channel in _matching(log, patterns, prepared.end):
                yield
                if channel is not None:
                    _add(log, prepared, channel)
            prepared.end = end
    except GeneratorExit:  # the client has gone
        log.discard(prepared.replay)
        raise


def complete(log: Log[S], prepared: Prepared, patterns: Sequence[Pattern]) -> None:
    """Add to what was prepared what was published since; there must be no step in between."""
    is_wanted = wanted(patterns)
    for channel in log.recent(prepared.end):
        if is_wanted(channel.name):
            _add(log, prepared, channel)
    prepared.end = log.sequence


def _add(log: Log[S], prepared: Prepared, channel: Channel[S]) -> None:
    """Have the reader read what was published to `channel` since it was prepared."""
    log.trim(channel)
    start = prepared.start
    if start.recovered and not prepared.is_all and channel.history.dropped > start.sequence:
        prepared.start = StartPosition(start.position, False, start.sequence)
    prepared.replay.add(channel.history, start.sequence)


def read(log: Log[S], patterns: Sequence[Pattern], since: str, limit: int) -> Work[HistoryPage]:
    """Find the first events after the position `since`, in the order of the log: up to `limit`, or one page.

    A page without events has the position of the whole log at its last step.
    """
    is_all, recovered = since == "earliest", True
    for again in range(_AGAIN + 1):
        end, work = log.sequence, _read(log, patterns, since, limit)
        page = (yield from work) if again < _AGAIN else drain(work)
        if page is None:
            continue
        recovered = recovered and page.recovered
        if page.entries or end == log.sequence or since == "latest":
            break
        since = page.position  # nothing until `end`, but something may have come since
    assert page is not None
    return HistoryPage(page.entries, page.position, is_all or recovered)


def _read(log: Log[S], patterns: Sequence[Pattern], since: str, limit: int) -> Work[HistoryPage | None]:
    """Read one page; None if what it was to have was dropped meanwhile."""
    end = log.sequence
    if since == "earliest" and not all(pattern.is_name for pattern in patterns):
        page = yield from _read_oldest(log, patterns, limit)
        if page is not None:
            return page
    prepared = yield from prepare(log, patterns, since, log.where(since, patterns), limit + 1)
    room = Room(limit)
    try:
        while True:
            entry = prepared.replay.next()
            if entry is None or entry.event.sequence > end:
                is_all = True
                break
            if not room.add(entry):
                is_all = False
                break
            yield
    except Overtaken:
        if not room.entries:
            return None
        is_all = False
    return _page(log, room.entries, end if is_all else None, prepared.start.recovered)


def _page(log: Log[S], entries: list[Entry], end: int | None, recovered: bool) -> HistoryPage:
    sequence = entries[-1].event.sequence if end is None else end
    return HistoryPage(entries, log.position_of(sequence), recovered)


def _read_oldest(log: Log[S], patterns: Sequence[Pattern], limit: int) -> Work[HistoryPage | None]:
    """Read a page from the earliest event on, beginning with the channels that have the oldest events.

    Return None if it is not filled soon: then it is better to look at all channels that match.
    """
    end, is_wanted = log.sequence, wanted(patterns)
    heaps, replay, room, seen = log.oldest_first(), Replay(), Room(limit), 0
    try:
        while True:
            while (channels := min(filter(None, heaps), default=None)) and (
                replay.first is None or channels[0][0] <= replay.first
            ):
                channel = heappop(channels)[2]
                seen += 1
                yield
                if is_wanted(channel.name) and log.by_name.get(channel.name) is channel:
                    log.trim(channel)
                    replay.add(channel.history, -1)
                if seen > _OLDEST:
                    return None
            entry = replay.next()
            if entry is None and channels:
                continue
            if entry is None or entry.event.sequence > end:
                return _page(log, room.entries, end, True)
            if not room.add(entry):
                return _page(log, room.entries, None, True)
            yield
    except Overtaken:
        return _page(log, room.entries, None, True) if room.entries else None
