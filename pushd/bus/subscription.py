"""The subscription: everything that one subscriber is subscribed to, replayed first and then live."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence, Sized
from typing import Protocol

from pushd.bus import search as finding
from pushd.bus.clientinfo import ClientInfo
from pushd.bus.closing import CloseCause, CloseReason
from pushd.bus.counters import Counters
from pushd.bus.event import Entry
from pushd.bus.eventlog import EventLog
from pushd.bus.memory_headroom import memory
from pushd.bus.patterns import Pattern, PatternTree
from pushd.bus.position import StartPosition
from pushd.bus.replay import Overtaken, Replay, cost_of
from pushd.bus.replaying import DoLater, Replaying
from pushd.bus.search import Prepared, drain, key_of
from pushd.bus.subscriber import NOBODY, Subscriber, take_nothing
from pushd.errors import OutOfMemory, Unavailable

__all__ = ["Group", "Subscriber", "Subscription"]


class Group(Protocol):
    """Several subscribers of one channel that want the same, and are handed it as one."""

    @property
    def subscriptions(self) -> Iterable[Subscription]:
        """Theirs."""

    def deliver(self, entry: Entry) -> None:
        """Take the next event for all of them."""


class _Pending(Protocol):
    """What `pushd.bus.pending_deliveries.PendingDeliveries` is for a subscription."""

    @property
    def events(self) -> Sized:
        """The events that are being handed out in slices."""


class _Delivery(Protocol):
    """What a subscription knows of how events are handed out."""

    is_delivering: bool
    at_hand: list[Entry]

    @property
    def pending(self) -> _Pending:
        """The events that are being handed out in slices."""

    def take_pending(self, subscription: Subscription) -> bool:
        """Hand `subscription` now what is pending for it. Return whether there was anything."""


class _Bus(Protocol):
    """What a subscription knows of the bus."""

    log: EventLog[Subscription]
    figures: Counters
    max_held_bytes: int
    subscribers: int
    missed: int

    @property
    def delivery(self) -> _Delivery:
        """What hands out events."""

    def check_count(self, count: int) -> None:
        """Raise `BadRequest` if nobody may subscribe to so many channels and patterns."""

    def check_names(self, texts: Iterable[str], caller: ClientInfo) -> None:
        """Raise `TooMany` or `Unavailable` if there is no room for the names among `texts` that are new."""

    def enter(self, pattern: Pattern, subscription: Subscription) -> None:
        """Begin to hand `subscription` what is published to `pattern`."""

    def leave(self, pattern: Pattern, subscription: Subscription) -> None:
        """Undo `enter`."""

    def regroup(self, name: str) -> None:
        """Take note that a subscriber of the channel `name` has joined a group or left one."""

    def drop(self, subscription: Subscription, error: Exception) -> None:
        """End the subscription of a subscriber that raised `error`."""

    def discard(self, replay: Replay) -> None:
        """Free a replay that nobody reads any more."""

    @property
    def do_later(self) -> DoLater:
        """What does a work in steps."""

    def end(self, subscription: Subscription, reason: CloseReason) -> None:
        """End a subscription and tell its subscriber why."""


class Subscription(Replaying):
    """Everything that one subscriber is subscribed to."""

    __slots__ = (
        "_bus",
        "_patterns",
        "_tree",
        "caller",
        "deliver",
        "group",
        "only_channel",
        "subscriber",
    )

    def __init__(self, bus: _Bus, subscriber: Subscriber, caller: ClientInfo) -> None:
        self._bus = bus
        self._replay = self.then = None
        self.caller = caller
        """Who is subscribed; its rights may change."""
        self._patterns: dict[str, Pattern] = {}
        self._tree: PatternTree[None] | None = None  # these, once somebody wants to know what they match
        self.only_channel: str | None = None
        """The name of its channel, if it is subscribed to that and nothing else."""
        self.group: Group | None = None
        """What takes events in its place."""
        self.subscriber = subscriber
        """Who gets the events; after `close`, nobody."""
        self.deliver: Callable[[Entry], None] = subscriber.deliver
        """Take an event that was just published: to the subscriber at once, or to the end of its replay."""

    def __len__(self) -> int:
        """Count the channels and patterns."""
        return len(self._patterns)

    @property
    def subscriptions(self) -> Iterable[Subscription]:
        """The subscription itself, as a recipient that stands for one."""
        return (self,)

    def _find_only_channel(self) -> None:
        self._tree = None
        first = next(iter(self._patterns.values()), None)
        is_only = first is not None and first.is_name and len(self._patterns) == 1
        self.only_channel = first.text if first is not None and is_only else None

    def take_pending(self) -> bool:
        """Take the events now that have been published and come in a later slice. Return whether there were any.

        To be called before the subscriber is told anything else.
        """
        return bool(self._bus.delivery.pending.events) and self._bus.delivery.take_pending(self)

    def join(self, group: Group) -> None:
        """Have `group` take the events of `only_channel` from now on; there must be no replay or pending event."""
        assert self.only_channel is not None
        assert self._replay is None
        self.group = group
        self._bus.regroup(self.only_channel)

    def part(self) -> None:
        """Take the events again; to be called before anything else about the subscription changes."""
        self.group = None
        if self.only_channel is not None:
            self._bus.regroup(self.only_channel)

    def check(self, patterns: Sequence[Pattern], since: str) -> None:
        """Raise what `add` would."""
        self._allowed(patterns)
        if since != "latest":
            self._bus.log.place_of(patterns, since)

    def _allowed(self, patterns: Sequence[Pattern]) -> dict[str, Pattern]:
        """Return `patterns` by their texts; raise `Refused` if that is more than there may be."""
        wanted = {pattern.text: pattern for pattern in patterns}
        for text in wanted:
            self.caller.grants.check_subscribe(text)
        self._bus.check_count(len(self._patterns.keys() | wanted.keys()))
        self._bus.check_names([text for text, pattern in wanted.items() if pattern.is_name], self.caller)
        return wanted

    def add(
        self,
        patterns: Sequence[Pattern],
        since: str,
        among: Sequence[Pattern] = (),
        or_among: Sequence[Pattern] = (),
    ) -> StartPosition:
        """Subscribe to `patterns` from the position `since`: ``latest``, ``earliest`` or an id.

        An id that a publisher gave may be that of an event of any channel that is subscribed to then, or that
        `among` matches, or else `or_among`; the caller must be allowed to read all of these.

        What was published since then comes through `advance`, and what is published from now on comes after
        it. Raises `Forbidden`, and `BadRequest`, `TooMany` or `Unavailable` if these are too many channels for the
        connection, for its owner or in total, or what is kept cannot be read; then nothing was changed.
        """
        self.take_pending()
        assert self.deliver is not take_nothing, "closed"
        assert not self._bus.delivery.is_delivering, "from within deliver"
        assert self.group is None
        wanted = self._allowed(patterns)
        if self._replay is not None and self._replay.is_filtering:  # which `when_tidy` tells
            drain(self._replay.tidying(self._matches))
        prepared = self._prepared(patterns, since, [*wanted.values(), *self._patterns.values(), *among], or_among)
        start, replay = prepared.start, prepared.replay
        for text, pattern in wanted.items():
            if text not in self._patterns:
                self._patterns[text] = pattern
                self._bus.enter(pattern, self)
        self._find_only_channel()
        if since != "latest":
            if self._replay is None:
                self._replay = replay
            else:
                self._replay.join(replay)
            self.deliver = self._hold
            self._tidy(self._bus)
        return start

    def _prepared(self, patterns: Sequence[Pattern], since: str, *among: Sequence[Pattern]) -> Prepared:
        """Return what was prepared for these at the door, completed, or prepare it now."""
        log, caller = self._bus.log, self.caller
        if since == "latest":
            return finding.latest(log)
        before: Prepared | None = caller.prepared.pop(key_of(patterns, since), None) if caller.prepared else None
        if before is None or before.place != log.where(since, *among):
            return drain(log.preparing(patterns, since, *among))
        finding.complete(log, before, patterns)
        return before

    def remove(self, text: str) -> bool:
        """Unsubscribe from the channel or pattern `text`; False if it was not subscribed to."""
        if not self._remove(text):
            return False
        self._tidy(self._bus)
        return True

    def _remove(self, text: str) -> bool:
        self.take_pending()
        pattern = self._patterns.pop(text, None)
        if pattern is None:
            return False
        self._bus.leave(pattern, self)
        self._find_only_channel()
        if self._replay is not None and self._patterns:
            self._replay.leave_out()
        elif self._replay is not None:
            self._bus.discard(self._replay)
            self._replay, self.deliver = None, self.subscriber.deliver
        return True

    def revoke(self) -> list[str]:
        """Unsubscribe from the channels and patterns that the rights of the caller do not reach any more.

        Answers their texts.
        """
        reach = self.caller.grants.subscribe
        lost = [text for text in self._patterns if not reach.has(text)]
        for text in lost:
            self._remove(text)
        self._tidy(self._bus)
        return lost

    def _fail(self, error: Exception) -> None:
        self._bus.drop(self, error)

    @property
    def texts(self) -> tuple[str, ...]:
        """The channels and patterns, as they were subscribed to."""
        return tuple(self._patterns)

    def _matches(self, name: str) -> bool:
        if name in self._patterns:
            return True
        if self._tree is None:
            self._tree = PatternTree()
            for pattern in self._patterns.values():
                self._tree.add(pattern, None)
        return next(self._tree.match(name), 0) is None

    def advance_run(self, most_bytes: int) -> list[Entry]:
        """Take the next events of the replay, of about `most_bytes`, instead of having them delivered.

        None does not mean that there are none; `advance` tells.
        """
        replay = self._replay
        if replay is None or not replay.is_tidy:
            return []
        try:
            run = replay.run(most_bytes)
            self._bus.figures.replayed += len(run)
            return run
        except Overtaken:
            self._end_too_slow()
        except Unavailable as error:
            self._end_unreadable(error)
        except MemoryError:
            self.end_without_memory()
        return []

    def advance(self) -> bool:
        """Deliver the next event of the replay; False if there is none: then the subscriber is live.

        It does nothing, and returns False, while the replay is not to be read: see `is_readable`.

        Who subscribes calls this as fast as it can take events. If the histories drop events before the
        replay comes to them, or too much is published meanwhile, the subscription ends as too slow, unless they
        may be missed; and so it does, with the reason, if they cannot be read.
        """
        replay = self._replay
        if replay is None or not replay.is_tidy:
            return False
        try:
            entry = replay.next()
        except Overtaken:
            self._end_too_slow()
            return False
        except Unavailable as error:
            self._end_unreadable(error)
            return False
        except MemoryError:
            self.end_without_memory()
            return False
        if entry is None:
            self._replay = None
            self.deliver = self.subscriber.deliver
            return False
        self._bus.figures.replayed += 1
        try:
            self.subscriber.deliver(entry)
        except Exception as error:  # noqa: BLE001  as when an event is published
            self._bus.drop(self, error)
        entry.forget_frames()
        return self._replay is not None

    def _hold(self, entry: Entry) -> None:
        """Keep an event that was just published until the replay comes to it.

        It is held as far as there is room; beyond that, it is read later from the histories that retain it.
        """
        replay, bus = self._replay, self._bus
        assert replay is not None
        wanted, max_bytes = [entry], bus.max_held_bytes
        if self.only_channel is None and len(bus.delivery.at_hand) > 1:
            wanted += [one for one in bus.delivery.at_hand if one is not entry and self._matches(one.channel)]
        if replay.held_bytes + cost_of(entry) > max_bytes and replay.read_later(wanted, bus.log.history_with):
            return
        replay.hold(entry, wanted)
        if replay.held_bytes > max_bytes:
            replay.hold_less(bus.log.history_with, max_bytes)
            if replay.held_bytes > max_bytes:
                bus.missed += replay.miss_held()
                if replay.held_bytes > max_bytes and replay.held > 1:  # as in an outbox, there is room for one
                    self._end_too_slow()

    def _end_too_slow(self) -> None:
        self._bus.end(
            self, CloseReason(CloseCause.TOO_SLOW, "too slow for what is published; resume from the last id")
        )

    def end_without_memory(self) -> None:
        """End the subscription, for whose next event there is no memory: it may be resumed from the one before."""
        memory.missed()
        self._end_unreadable(OutOfMemory())

    def _end_unreadable(self, error: Unavailable) -> None:
        self._bus.end(self, CloseReason(CloseCause.FAILED, error.detail))

    def close(self) -> bool:
        """End the subscription: nothing is delivered any more. False if it has ended already."""
        self.take_pending()
        if self.deliver is take_nothing:
            return False
        self.deliver = take_nothing
        self.forget()
        if self._replay is not None:
            self._bus.discard(self._replay)
            self._replay = None
        self._bus.subscribers -= 1
        for text in list(self._patterns):
            self._remove(text)
        return True

    def forget(self) -> None:
        """Refer to the subscriber no more, which refers to this: a cycle."""
        self.subscriber = NOBODY
