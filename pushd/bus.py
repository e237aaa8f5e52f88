"""The bus: publish into the log, and hand every event to whoever is subscribed.

It is plain synchronous Python. Clocks and epoch come with the log; a subscriber is anything with ``deliver``
and ``close``. Its promises:

- All subscribers of a channel get its events in the order of their offsets, each once, without a hole.
- A subscription with a position gets what was published since, then what comes.
- What cannot be had any more is said: ``recovered`` is false then. It is never skipped in silence.
- A subscriber that raises is dropped; the others still get the event.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from heapq import nsmallest
from typing import Protocol

from pushd.access import Grants
from pushd.channel import Channel
from pushd.channels import Pattern, PatternTree, check_name
from pushd.errors import BadRequest
from pushd.event import Draft, Entry
from pushd.eventlog import EventLog, Page, Start
from pushd.reasons import Cause, Reason
from pushd.replay import Overtaken, Replay

__all__ = ["Bus", "ChannelState", "Published", "Subscriber", "Subscription"]


class Subscriber(Protocol):
    """What the bus knows of who is subscribed."""

    def deliver(self, entry: Entry) -> None:
        """Take the next event; what it raises ends the subscription.

        It may publish, and end its own subscription or others', but not subscribe.
        """

    def close(self, reason: Reason) -> None:
        """Learn that the subscription has ended, and why."""


@dataclass(frozen=True, slots=True)
class Published:
    """What a publisher is told."""

    id: str
    """The id of the event."""

    channel: str
    """The canonical channel of the event."""

    offset: int
    """Its offset in that channel."""

    subscribers: int
    """How many subscribers it was handed to: none if it was there already."""


@dataclass(frozen=True, slots=True)
class ChannelState:
    """What there is to know of a channel."""

    channel: str
    """Its name."""

    subscribers: int
    """How many subscribers get its events."""

    retained: int
    """How many events it keeps."""

    oldest: Entry | None
    """The first of them."""

    latest: Entry | None
    """The last of them."""

    position: str
    """The position after everything that was published until now."""


class Bus:
    """The log and everyone who is subscribed to its channels."""

    def __init__(
        self,
        log: EventLog[Subscription],
        *,
        max_subscribed: int,
        max_held_bytes: int,
        failed: Callable[[Subscriber, Exception], None],
    ) -> None:
        """Begin without subscribers.

        Each may subscribe to `max_subscribed` channels and patterns, and have `max_held_bytes` of data wait
        while it is being replayed to. `failed` is told of every subscriber that raised.
        """
        self.log = log
        self.max_subscribed = max_subscribed
        self.max_held_bytes = max_held_bytes
        self._failed = failed
        self._patterns: PatternTree[Subscription] = PatternTree()
        self._audiences: dict[str, tuple[Subscription, ...]] = {}  # by channel, until a subscription changes
        self._undelivered: deque[list[Entry]] = deque()
        self.is_delivering = False
        """True while events are handed out."""
        self.subscribers = 0
        """How many subscribers there are."""
        self.failures = 0
        """How many subscribers were dropped because they raised."""
        self.missed = 0
        """How many deliveries slow subscribers have missed of channels whose ``on_overflow`` is ``latest``."""

    def publish(self, draft: Draft, grants: Grants) -> Published:
        """Put an event into the log and hand it to every subscriber of its channels.

        An id that its channel has already is answered like the first time and changes nothing. Raises
        `Forbidden`, `Conflict` if another channel has the id, `Unavailable` if there are too many channels;
        then nothing was changed.
        """
        for name in draft.channels:
            grants.check_publish(name)
        if (before := self.log.published_before(draft)) is not None:
            return Published(before.event.id, before.channel, before.offset, 0)
        entries = self.log.append(draft)
        audiences = self._audiences_of(entries)
        if self.is_delivering:
            self._undelivered.append(entries)
        else:
            self._deliver(entries, audiences)
        first = entries[0]
        return Published(first.event.id, first.channel, first.offset, sum(map(len, audiences)))

    def _audiences_of(self, entries: list[Entry]) -> list[tuple[Subscription, ...]]:
        """Answer who gets each entry of an event; nobody gets two of them."""
        if len(entries) == 1:
            return [self._audience(entries[0].channel)]
        seen: set[Subscription] = set()
        audiences = []
        for entry in entries:
            audience = tuple(one for one in self._audience(entry.channel) if one not in seen)
            seen.update(audience)
            audiences.append(audience)
        return audiences

    def _audience(self, name: str) -> tuple[Subscription, ...]:
        """Answer everyone who gets the events of the channel `name`."""
        audience = self._audiences.get(name)
        if audience is None:
            channel = self.log.get(name)
            members = {} if channel is None else dict(channel.subscribed)
            if self._patterns:
                members.update(dict.fromkeys(self._patterns.match(name)))
            audience = tuple(members)
            if channel is not None:
                if len(self._audiences) > 2 * len(self.log):  # most are of channels that were given up
                    self._audiences.clear()
                self._audiences[name] = audience
        return audience

    def _deliver(self, entries: list[Entry], audiences: list[tuple[Subscription, ...]]) -> None:
        """Hand out an event. A subscriber may publish: that event has its turn after the one at hand."""
        self.is_delivering = True
        try:
            self._hand_out(entries, audiences)
            while self._undelivered:
                entries = self._undelivered.popleft()
                self._hand_out(entries, self._audiences_of(entries))
        finally:
            self.is_delivering = False

    def _hand_out(self, entries: list[Entry], audiences: list[tuple[Subscription, ...]]) -> None:
        for entry, audience in zip(entries, audiences, strict=True):
            for subscription in audience:
                try:
                    subscription.deliver(entry)
                except Exception as error:  # noqa: BLE001  one that fails must not stop the others
                    self.drop(subscription, error)
            entry.forget_frames()

    def drop(self, subscription: Subscription, error: Exception) -> None:
        """End the subscription of a subscriber that raised `error`."""
        self.failures += 1
        self._failed(subscription.subscriber, error)
        self.end(subscription, Reason(Cause.FAILED, "a fault in pushd; connect again to resume"))

    def end(self, subscription: Subscription, reason: Reason) -> None:
        """End a subscription and tell its subscriber why, unless it has ended already."""
        if not subscription.close():
            return
        try:
            subscription.subscriber.close(reason)
        except Exception as error:  # noqa: BLE001  as above
            self._failed(subscription.subscriber, error)

    def delete(self, name: str, grants: Grants) -> None:
        """Forget the history of a channel, and end the subscriptions of who subscribed to it by its name."""
        grants.check_publish(name)
        channel = self.log.existing(name)
        self.log.clear(channel)
        for subscription in list(channel.subscribed):
            self.end(subscription, Reason(Cause.DELETED, "the channel was deleted"))

    # Reading

    def event(self, name: str, event_id: str, grants: Grants) -> Entry:
        """Answer one event of a channel; raise `NotFound` if the channel does not have it."""
        grants.check_subscribe(name)
        return self.log.event(name, event_id)

    def read(self, patterns: Sequence[Pattern], since: str, limit: int, grants: Grants) -> Page:
        """Answer the first `limit` events after the position `since`, in the order of the log."""
        for pattern in patterns:
            grants.check_subscribe(pattern.text)
        return self.log.read(patterns, since, limit)

    def state(self, name: str, grants: Grants) -> ChannelState:
        """Describe a channel; one that nobody has used is empty."""
        grants.check_subscribe(check_name(name))
        subscribers, position = len(self._audience(name)), self.log.position
        channel = self.log.get(name)
        if channel is None:
            return ChannelState(name, subscribers, 0, None, None, position)
        self.log.trim(channel)
        history = channel.history
        return ChannelState(name, subscribers, len(history), history.oldest, history.latest, position)

    def states(self, grants: Grants, *, prefix: str, after: str, limit: int) -> list[ChannelState]:
        """Describe the first `limit` channels whose names begin with `prefix` and come after `after`."""
        grants.check_subscribe("**")
        names = (name for name in self.log.names() if name.startswith(prefix) and name > after)
        return [self.state(name, grants) for name in nsmallest(limit, names)]

    def has_audience(self, name: str) -> bool:
        """Tell whether anybody would get an event of the channel `name`."""
        return bool(self._audience(name))

    # Subscribing

    def subscribe(self, subscriber: Subscriber, grants: Grants) -> Subscription:
        """Enter a subscriber; it gets nothing until channels are added to its subscription."""
        self.subscribers += 1
        return Subscription(self, subscriber, grants)

    def enter(self, pattern: Pattern, subscription: Subscription) -> None:
        """Begin to hand `subscription` what is published to `pattern`; a name must be that of a channel."""
        if pattern.is_name:
            channel = self._channel(pattern.text)
            channel.subscribed[subscription] = None
            self._audiences.pop(pattern.text, None)
            self.log.release(channel)
        else:
            self._patterns.add(pattern, subscription)
            self._audiences.clear()

    def leave(self, pattern: Pattern, subscription: Subscription) -> None:
        """Undo `enter`."""
        if pattern.is_name:
            channel = self._channel(pattern.text)
            del channel.subscribed[subscription]
            self._audiences.pop(pattern.text, None)
            self.log.release(channel)
        else:
            self._patterns.remove(pattern, subscription)
            self._audiences.clear()

    def _channel(self, name: str) -> Channel[Subscription]:
        channel = self.log.get(name)
        assert channel is not None, name
        return channel


class Subscription:
    """Everything that one subscriber is subscribed to."""

    __slots__ = ("_bus", "_grants", "_patterns", "_replay", "deliver", "subscriber")

    def __init__(self, bus: Bus, subscriber: Subscriber, grants: Grants) -> None:
        self._bus = bus
        self._grants = grants
        self._patterns: dict[str, Pattern] = {}
        self._replay: Replay | None = None
        self.subscriber = subscriber
        self.deliver: Callable[[Entry], None] = subscriber.deliver
        """Take an event that was just published: to the subscriber at once, or to the end of its replay."""

    def __len__(self) -> int:
        """Count the channels and patterns."""
        return len(self._patterns)

    @property
    def is_replaying(self) -> bool:
        """True until `advance` has delivered everything since the position."""
        return self._replay is not None

    def add(self, patterns: Sequence[Pattern], since: str) -> Start:
        """Subscribe to `patterns` from the position `since`: ``latest``, ``earliest`` or an id.

        What was published since then comes through `advance`, and what is published from now on comes after
        it. Raises `Forbidden`, and `BadRequest` or `Unavailable` if these are too many channels for the
        connection or the log; then nothing was changed.
        """
        assert self.deliver is not _nothing, "closed"
        assert not self._bus.is_delivering, "from within deliver"
        log = self._bus.log
        wanted = {pattern.text: pattern for pattern in patterns}
        for text in wanted:
            self._grants.check_subscribe(text)
        if len(self._patterns.keys() | wanted.keys()) > self._bus.max_subscribed:
            limit = self._bus.max_subscribed
            raise BadRequest(
                f"a connection may subscribe to {limit} channels, see [limits] subscriptions", "channel"
            )
        start, active = log.find(patterns, since)
        log.open([pattern.text for pattern in wanted.values() if pattern.is_name])
        for text, pattern in wanted.items():
            if text not in self._patterns:
                self._patterns[text] = pattern
                self._bus.enter(pattern, self)
        if since != "latest":
            if self._replay is None:
                self._replay = Replay()
                self.deliver = self._hold
            for channel in active:
                self._replay.add(channel.history, start.sequence)
        return start

    def remove(self, text: str) -> bool:
        """Unsubscribe from the channel or pattern `text`; False if it was not subscribed to."""
        pattern = self._patterns.pop(text, None)
        if pattern is None:
            return False
        self._bus.leave(pattern, self)
        if self._replay is not None:
            tree: PatternTree[None] = PatternTree()
            for other in self._patterns.values():
                tree.add(other, None)
            self._replay.keep(lambda name: any(True for _ in tree.match(name)))
        return True

    def _matches(self, name: str) -> bool:
        return any(pattern.matches(name) for pattern in self._patterns.values())

    def advance(self) -> bool:
        """Deliver the next event of the replay; False if there is none: then the subscriber is live.

        Who subscribes calls this as fast as it can take events. If the histories drop events before the
        replay comes to them, or too much is published meanwhile, the subscription ends as too slow, unless they
        may be missed.
        """
        replay = self._replay
        if replay is None:
            return False
        try:
            entry = replay.next()
        except Overtaken:
            self._end_too_slow()
            return False
        if entry is None:
            self._replay = None
            self.deliver = self.subscriber.deliver
            return False
        try:
            self.subscriber.deliver(entry)
        except Exception as error:  # noqa: BLE001  as when an event is published
            self._bus.drop(self, error)
        entry.forget_frames()
        return self._replay is not None

    def _hold(self, entry: Entry) -> None:
        assert self._replay is not None
        names = entry.event.channels
        self._replay.hold(entry, tuple(filter(self._matches, names)) if len(names) > 1 else ())
        if self._replay.held_bytes > self._bus.max_held_bytes:
            self._bus.missed += self._replay.miss_held()
            if self._replay.held_bytes > self._bus.max_held_bytes:
                self._end_too_slow()

    def _end_too_slow(self) -> None:
        self._bus.end(self, Reason(Cause.TOO_SLOW, "too slow for what is published; resume from the last id"))

    def close(self) -> bool:
        """End the subscription: nothing is delivered any more. False if it has ended already."""
        if self.deliver is _nothing:
            return False
        self.deliver = _nothing
        self._replay = None
        self._bus.subscribers -= 1
        for text in list(self._patterns):
            self.remove(text)
        return True


def _nothing(entry: Entry) -> None:
    """Take an event for a subscription that has ended."""
