"""The bus: publish events into the log and deliver each to the subscribers of its channels.

The bus is plain synchronous Python. The log provides the clocks and the epoch; a subscriber is any object with
``deliver`` and ``close``. Guarantees:

- All subscribers of a channel receive its events in the order of their offsets, each once, without gaps.
- A subscription with a position replays the events published since, then receives live events.
- Lost events are always reported (``recovered`` is false), never silently skipped.
- A subscriber that raises is dropped; the others still receive the event.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain
from typing import Any, Protocol

from pushd.bus.channel import Channel
from pushd.bus.clientinfo import ClientInfo
from pushd.bus.closing import CloseCause, CloseReason
from pushd.bus.counters import Counters
from pushd.bus.delivery import Delivery
from pushd.bus.event import Draft, Entry
from pushd.bus.eventlog import EventLog
from pushd.bus.grants import Grants
from pushd.bus.partitioned_dict import PartitionedDict
from pushd.bus.patterns import Pattern, check_name
from pushd.bus.position import HistoryPage
from pushd.bus.recipients import Recipient, RecipientIndex, Subscribed
from pushd.bus.record import record
from pushd.bus.replay import Replay
from pushd.bus.replaying import DoLater, at_once
from pushd.bus.shares import Shares
from pushd.bus.slices import END_COST, AtOnce, Later, Slices
from pushd.bus.storage import PublishedId
from pushd.bus.subscriber import Subscriber
from pushd.bus.subscribers import Present, present
from pushd.bus.turn import Turn
from pushd.bus.work import Work, drain, when_here
from pushd.errors import BadRequest

__all__ = ["Bus", "ChannelState", "Published", "SubscriptionObserver", "published_before"]


@record()
class Published:
    """The result of publishing an event."""

    id: str
    """The id of the event."""

    channel: str
    """The canonical channel of the event."""

    offset: int
    """The offset of the event in that channel."""

    subscribers: int
    """The number of subscribers that the event was delivered to; 0 for a duplicate."""

    is_duplicate: bool = False
    """True if the event had been published before."""


def published_before(given: PublishedId) -> Published:
    """Return the result for an event that has been published before."""
    return Published(given.id, given.channel, given.offset, 0, is_duplicate=True)


@dataclass(frozen=True, slots=True)
class ChannelState:
    """A snapshot of one channel."""

    channel: str
    """The name of the channel."""

    subscribers: int
    """The number of subscribers that receive the events of the channel."""

    retained: int
    """The number of events in the history."""

    oldest: Entry | None
    """The oldest event in the history."""

    latest: Entry | None
    """The latest event in the history."""

    position: str
    """The position after the latest event of the log."""


class SubscriptionObserver(Protocol):
    """Observer of subscriptions. Its methods must not change the bus before they return."""

    def entered(self, caller: ClientInfo, pattern: Pattern, count: int) -> None:
        """Called when `caller` subscribes; `count` subscribers by name now exist, 0 for a pattern."""

    def left(self, caller: ClientInfo, pattern: Pattern, count: int) -> None:
        """Called when `caller` unsubscribes; `count` subscribers by name remain."""


class Bus:
    """The log and the subscribers of its channels."""

    def __init__(
        self,
        log: EventLog[Any],
        *,
        max_subscribed: int,
        max_held_bytes: int,
        failed: Callable[[Subscriber, Exception], None],
        counters: Counters | None = None,
        names: Shares | None = None,
        owner: Callable[[ClientInfo], str | None] = lambda caller: None,
        call_later: Later | None = None,
        turn: Turn | None = None,
    ) -> None:
        """Start without subscribers.

        Each subscriber may subscribe to `max_subscribed` channels and patterns, and have `max_held_bytes` of data
        held back during a replay. `failed` is called for every subscriber that raised; `counters` are the counters.
        `names` limits the names that exist only because a client subscribed to them; each counts for the `owner`
        of the first subscriber. With `call_later`, the reactor's, work for many subscribers is done in slices,
        which share the time of `turn`.
        """
        self.log = log
        self.turn = Turn(log.seconds) if turn is None else turn
        """The turn of the reactor."""
        self.max_subscribed = max_subscribed
        self.max_held_bytes = max_held_bytes
        self.failed = failed
        """Called for every subscriber that raised, with the exception."""
        self.counters = Counters() if counters is None else counters
        """The counters since the start."""
        self._audiences: RecipientIndex[Recipient, Subscribed] = RecipientIndex(
            log.by_name, lambda subscription: subscription.group or subscription, self._max_audiences
        )
        log.is_heard = self._audiences.has_name
        log.discard = self.discard
        self._names = Shares("names of channels", "[limits] channels", sys.maxsize, 100) if names is None else names
        self._owner = owner
        self._owners: PartitionedDict[str, str | None] = PartitionedDict()  # by name: the owner it counts for
        self.call_later = call_later
        """The reactor's ``callLater``, if long work is split over several turns of the reactor."""
        self._slices = AtOnce() if call_later is None else Slices(call_later, self.turn)
        self.do_later: DoLater = at_once
        """Runs work in steps; set by the sessions."""
        self.delivery = Delivery(self._audiences.of_each, self.counters, log.seconds, self.turn, call_later)
        """Delivers the events."""
        self.subscribers = 0
        """The number of subscribers."""
        self.subscriptions = 0
        """The number of subscriptions to channels and patterns, summed over all subscribers."""
        self.failures = 0
        """The number of subscribers dropped because they raised."""
        self.watch: SubscriptionObserver | None = None
        """The observer of subscriptions, if any."""

    def limit(self, *, max_subscribed: int, max_held_bytes: int, max_names: int, share_percent: int) -> None:
        """Set the limits that apply from now on; see `__init__`."""
        self.max_subscribed = max_subscribed
        self.max_held_bytes = max_held_bytes
        self._names.limit(max_names, share_percent)

    def publish(self, draft: Draft, grants: Grants) -> Published:
        """Append an event to the log and deliver it to every subscriber of its channels.

        Publishing is idempotent by event id: an event that the first channel already has is a duplicate, and
        nothing changes. Raises, without any change: `Forbidden`; `Unprocessable` if the first channel has a
        different event with the id; `Unavailable` if there are too many channels.
        """
        for name in draft.channels:
            grants.check_publish(name)
        if draft.id is not None and (before := self.log.published_before(draft)) is not None:
            return published_before(before)
        return self.deliver(self.log.append(draft))

    def deliver(self, entries: list[Entry], came_s: float | None = None) -> Published:
        """Deliver the latest event of the log, which arrived at `came_s` or now, to all its subscribers."""
        one = len(entries) == 1
        audiences = [self._audiences.of(entries[0].channel)] if one else self._audiences.of_each(entries)
        subscribers = 0
        for audience in audiences:
            subscribers += audience.count
        self.counters.published += 1
        if subscribers:
            self.counters.delivered += subscribers
            self.delivery.hand_out(entries, audiences, came_s)
        first = entries[0]
        return Published(first.event.id, first.channel, first.offset, subscribers)

    def sends_of(self, entries: list[Entry]) -> int:
        """Return how many sends an event needs at once: one per recipient; an upper bound if sent in slices."""
        sends = 0
        for entry in entries:
            sends += len(self._audiences.of(entry.channel).recipients)
        return sends

    def report(self, subscriber: Subscriber, error: Exception) -> None:
        """Count a subscriber that is dropped because of `error`, and report it, except for lack of memory."""
        self.failures += 1
        if not isinstance(error, MemoryError):
            self.failed(subscriber, error)

    def discard(self, replay: Replay) -> None:
        """Free a replay that no client reads any more; a large one over several turns of the reactor."""
        self._slices.do(replay.clearing())

    def delete(self, name: str, grants: Grants) -> None:
        """Delete the history of a channel and end the subscriptions to it by name."""
        self.clear(name, self.deletable(name, grants))

    def deletable(self, name: str, grants: Grants) -> Channel[Any] | None:
        """Return the channel to delete, or None if only subscriptions use its name.

        Raises `Forbidden` or `NotFound`.
        """
        grants.check_operator(f"delete the channel {name!r}")
        return None if self._is_only_subscribed(check_name(name)) else self.log.existing(name)

    def clear(self, name: str, channel: Channel[Any] | None) -> None:
        """Delete the history of a channel and end the subscriptions to it by name.

        Many subscriptions end over several turns of the reactor, and receive new events until they end.
        """
        if channel is not None:
            self.log.clear(channel)
        self._slices.do(partial(self._end_deleted, name, one) for one in list(self._audiences.by_name(name)))

    def _end_deleted(self, name: str, subscription: Subscribed) -> int:
        if subscription in self._audiences.by_name(name):
            subscription.end(CloseReason(CloseCause.DELETED, "the channel was deleted"))
        return END_COST

    # Reading

    def event(self, name: str, event_id: str, grants: Grants) -> Entry:
        """Return one event of a channel; raise `NotFound` if the channel does not have it."""
        return drain(self.finding(name, event_id, grants))

    def finding(self, name: str, event_id: str, grants: Grants) -> Work[Entry]:
        """Do the work of `event` in steps."""
        grants.check_subscribe(name)
        return (yield from when_here(partial(self.log.event, name, event_id)))

    def read(self, patterns: Sequence[Pattern], since: str, limit: int, grants: Grants) -> HistoryPage:
        """Return the first `limit` events after the position `since`, in the order of the log."""
        return drain(self.reading(patterns, since, limit, grants))

    def reading(self, patterns: Sequence[Pattern], since: str, limit: int, grants: Grants) -> Work[HistoryPage]:
        """Do the work of `read` in steps."""
        for pattern in patterns:
            grants.check_subscribe(pattern.text)
        return (yield from self.log.reading(patterns, since, limit))

    def state(self, name: str, grants: Grants) -> ChannelState:
        """Return the state of a channel, for subscribers and operators; an unused channel is empty."""
        return drain(self.showing(name, grants))

    def showing(self, name: str, grants: Grants) -> Work[ChannelState]:
        """Do the work of `state` in steps."""
        if not grants.is_operator:
            grants.check_subscribe(name)
        return (yield from when_here(partial(self._state, check_name(name))))

    def _state(self, name: str) -> ChannelState:
        subscribers, position = self._audiences.of(name).count, self.log.position
        channel = self.log.get(name)
        if channel is None:
            return ChannelState(name, subscribers, 0, None, None, position)
        self.log.trim(channel)
        history = channel.history
        return ChannelState(name, subscribers, len(history), history.oldest, history.latest, position)

    def states(self, grants: Grants, *, prefix: str, after: str, limit: int) -> list[ChannelState]:
        """Return the first `limit` channels by name, after `after`, whose names begin with `prefix`."""
        return drain(self.listing(grants, prefix=prefix, after=after, limit=limit))

    def listing(self, grants: Grants, *, prefix: str, after: str, limit: int) -> Work[list[ChannelState]]:
        """Do the work of `states` in steps."""
        if not grants.is_operator:
            grants.check_subscribe("**")
        names = self.log.index.some(prefix, after, limit)
        names += self._audiences.index.some(prefix, after, limit)
        states = []
        for name in sorted(set(names))[:limit]:
            states.append((yield from when_here(partial(self._state, name))))
            yield None
        return states

    def names(self) -> Iterator[str]:
        """Return the names of all channels, then those with subscribers only, in no order."""
        return chain(self.log.names(), filter(self._is_only_subscribed, self._audiences.names))

    def present(self, name: str, grants: Grants) -> list[ClientInfo]:
        """Return the clients subscribed to a channel, ordered by connection id; see `presence`."""
        return drain(self.presence(name, grants, 0, sys.maxsize))[2]

    def presence(self, name: str, grants: Grants, after: int, limit: int) -> Work[Present]:
        """Return, in steps, the clients subscribed to a channel: see `pushd.bus.subscribers.present`.

        Raises `Forbidden` if `grants` may subscribe to the channel but not see its presence.
        """
        self.check_present(name, grants)
        return (yield from present(self._audiences.of(name).recipients, after, limit))

    def check_present(self, name: str, grants: Grants) -> None:
        """Raise `Forbidden` or `Unauthorized` unless `grants` may see the presence of a channel."""
        check_name(name)
        if not grants.is_operator:
            grants.check_subscribe(name)
            if self.log.settings(name).presence == "operator":
                grants.check_operator(f"see who is on {name!r}, of which [channels] presence is operator")

    def has_audience(self, name: str) -> bool:
        """Return whether the channel `name` has any subscriber, by name or by pattern."""
        return self.audience_size(name) > 0

    def audience_size(self, name: str) -> int:
        """Return the number of subscribers of the channel `name`, by name or by pattern."""
        return self._audiences.of(name).count

    # Subscribing

    def check_count(self, count: int) -> None:
        """Raise `BadRequest` if `count` channels and patterns exceed the limit of one connection."""
        if count > self.max_subscribed:
            limit = f"a connection may subscribe to {self.max_subscribed} channels, see [limits] subscriptions"
            raise BadRequest(limit, "channel")

    def add_subscriber(self) -> None:
        """Count a subscriber; it receives nothing until channels are added to its subscription."""
        self.subscribers += 1

    def remove_subscriber(self) -> None:
        """Undo `add_subscriber`."""
        self.subscribers -= 1

    def _max_audiences(self) -> int:
        return 2 * (len(self.log) + len(self._audiences.names))

    def check_names(self, texts: Iterable[str], caller: ClientInfo) -> None:
        """Raise `TooMany` or `Unavailable` if the new names among `texts` exceed the limit."""
        if count := sum(map(self._is_new, texts)):
            self._names.check(self._owner(caller), count)

    def _is_new(self, text: str) -> bool:
        """Return whether a name is in use neither by a channel nor by a subscription."""
        return not self._audiences.has_name(text) and text not in self.log.by_name

    def _is_only_subscribed(self, name: str) -> bool:
        return self._audiences.has_name(name) and name not in self.log.by_name

    def enter(self, pattern: Pattern, subscription: Subscribed) -> None:
        """Start delivering events of `pattern` to `subscription`; call `check_names` first."""
        name = pattern.text
        if (count := self._audiences.enter(pattern, subscription)) == 1:
            if name not in self.log.by_name:
                owner = self._owners[name] = self._owner(subscription.caller)
                self._names.take(owner)
            self.log.hear(name, True)
        self.subscriptions += 1
        if self.watch is not None:
            self.watch.entered(subscription.caller, pattern, count)

    def leave(self, pattern: Pattern, subscription: Subscribed) -> None:
        """Stop delivering events of `pattern` to `subscription`: undo `enter`."""
        name = pattern.text
        count = self._audiences.leave(pattern, subscription)
        if pattern.is_name and not count:
            self.log.hear(name, False)
            if name in self._owners:
                self._names.give_back(self._owners.pop(name))
        self.subscriptions -= 1
        if self.watch is not None:
            self.watch.left(subscription.caller, pattern, count)

    def regroup(self, name: str) -> None:
        """Called when a subscriber of the channel `name` joins or leaves a fan-out group."""
        self._audiences.forget(name)
