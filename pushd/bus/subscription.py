"""The subscription: all channels and patterns of one subscriber, replayed first and then live."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import ClassVar

from pushd.bus.bus import Bus
from pushd.bus.clientinfo import ClientInfo
from pushd.bus.closing import CloseCause, CloseReason
from pushd.bus.event import Entry
from pushd.bus.memory_headroom import memory
from pushd.bus.patterns import Pattern, PatternTree
from pushd.bus.position import StartPosition
from pushd.bus.recipients import Recipient
from pushd.bus.replay import Overtaken, cost_of
from pushd.bus.replaying import Replaying
from pushd.bus.search import find_each
from pushd.bus.subscriber import NO_SUBSCRIBER, Subscriber, discard_event, nothing
from pushd.bus.work import NotInMemory, drain, when_here
from pushd.errors import OutOfMemory, Unavailable

__all__ = ["Subscription"]


class Subscription(Replaying):
    """All channels and patterns of one subscriber.

    ========  ======================  ====================================================================
    state     `deliver` is            then
    ========  ======================  ====================================================================
    replay    `_hold`                 the transport reads past events with `advance`; new events are held
    live      `Subscriber.deliver`    new events go to the subscriber at once
    in group  `Subscriber.deliver`    live, but `group` receives new events in place of the subscription
    closed    `discard_event`         events are discarded
    ========  ======================  ====================================================================
    """

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

    is_group: ClassVar = False

    def __init__(self, bus: Bus, subscriber: Subscriber, caller: ClientInfo) -> None:
        """Subscribe `subscriber` to nothing yet."""
        bus.add_subscriber()
        self._bus = bus
        self._replay = self.then = None
        self.caller = caller
        """The client that is subscribed; its grants may change."""
        self._patterns: dict[str, Pattern] = {}
        self._tree: PatternTree[None] | None = None  # built from `_patterns` on first use
        self.only_channel: str | None = None
        """The name of the channel if it is the only subscription, else None."""
        self.group: Recipient | None = None
        """The fan-out group that receives events in place of this subscription."""
        self.subscriber = subscriber
        """The receiver of the events; `NO_SUBSCRIBER` after `close`."""
        self.deliver: Callable[[Entry], None] = subscriber.deliver
        """Deliver a newly published event: to the subscriber at once, or to the end of its replay."""

    def __len__(self) -> int:
        """Return the number of channels and patterns."""
        return len(self._patterns)

    @property
    def subscriptions(self) -> Iterable[Subscription]:
        """The subscription itself: a recipient of one subscription."""
        return (self,)

    def _find_only_channel(self) -> None:
        self._tree = None
        first = next(iter(self._patterns.values()), None)
        is_only = first is not None and first.is_name and len(self._patterns) == 1
        self.only_channel = first.text if first is not None and is_only else None

    def take_pending(self) -> bool:
        """Deliver the published events now that would come in a later slice. Return whether there were any.

        Call this before sending the subscriber anything else, so that events stay in order.
        """
        return bool(self._bus.delivery.pending.events) and self._bus.delivery.take_pending(self)

    def join(self, group: Recipient) -> None:
        """Let `group` receive the events of `only_channel` from now on. Requires no replay and no pending event."""
        assert self.only_channel is not None
        assert self._replay is None
        self.group = group
        self._bus.regroup(self.only_channel)

    def part(self) -> None:
        """Leave the fan-out group and receive events directly. Call this before any other change."""
        self.group = None
        if self.only_channel is not None:
            self._bus.regroup(self.only_channel)

    def check(self, patterns: Sequence[Pattern], since: str) -> None:
        """Raise the error that `add` would raise, without subscribing."""
        self._check({pattern.text: pattern for pattern in patterns})
        if since != "latest":
            drain(when_here(partial(self._bus.log.place_of, patterns, since)))

    def _check(self, wanted: dict[str, Pattern]) -> None:
        """Raise `Refused` if a grant for one of the patterns, by text, is missing or a limit is exceeded."""
        grants = self.caller.identity.grants
        for text in wanted:
            grants.check_subscribe(text)
        self._bus.check_count(len(self._patterns.keys() | wanted.keys()))
        self._bus.check_names([text for text, pattern in wanted.items() if pattern.is_name], self.caller)

    def add(
        self,
        patterns: Sequence[Pattern],
        since: str,
        or_among: Sequence[Pattern] = (),
        checked: Callable[[], None] = nothing,
    ) -> StartPosition:
        """Subscribe to `patterns` as one group: see `add_each`."""
        return self.add_each([patterns], since, or_among, checked)[0]

    def add_each(
        self,
        groups: Sequence[Sequence[Pattern]],
        since: str,
        or_among: Sequence[Pattern] = (),
        checked: Callable[[], None] = nothing,
    ) -> list[StartPosition]:
        """Subscribe to `groups` of patterns from the position `since`: ``latest``, ``earliest`` or an id.

        Return where each group starts. A publisher's id is searched in all channels subscribed to, including
        `groups`; failing that, in those that match `or_among`, which the caller must be allowed to read.

        `advance` delivers the events since that position, followed by newly published events. Raises `Forbidden`
        without a grant; `BadRequest`, `TooMany` or `Unavailable` if the connection, its owner or the total has
        too many channels, or if the history cannot be read. An error leaves the subscription unchanged: all
        checks precede the first change. `checked` is called in between.
        """
        self.take_pending()
        assert self.deliver is not discard_event, "closed"
        assert not self._bus.delivery.is_delivering, "from within deliver"
        assert self.group is None
        wanted = {pattern.text: pattern for patterns in groups for pattern in patterns}
        self._check(wanted)
        if self._replay is not None and self._replay.is_filtering:  # the caller did not use `when_tidy`
            drain(self._replay.tidying(self._matches))
        among = [*wanted.values(), *self._patterns.values()]
        found = find_each(self._bus.log, groups, since, self.caller.prepared, among, or_among)
        checked()
        for text, pattern in wanted.items():
            if text not in self._patterns:
                self._patterns[text] = pattern
                self._bus.enter(pattern, self)
        self._find_only_channel()
        if since != "latest":
            for prepared in found:
                if self._replay is None:
                    self._replay, self.deliver = prepared.replay, self._hold
                else:
                    self._replay.join(prepared.replay)
            self._tidy(self._bus.do_later)
        return [prepared.start for prepared in found]

    def remove(self, text: str) -> bool:
        """Unsubscribe from the channel or pattern `text`. Return False if there was no such subscription."""
        if not self._remove(text):
            return False
        self._tidy(self._bus.do_later)
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
        """Unsubscribe from the channels and patterns that the grants of the caller no longer cover.

        Returns their texts.
        """
        reach = self.caller.grants.subscribe
        lost = [text for text in self._patterns if not reach.has(text)]
        for text in lost:
            self._remove(text)
        self._tidy(self._bus.do_later)
        return lost

    @property
    def texts(self) -> tuple[str, ...]:
        """The texts of the channels and patterns, in order of subscription."""
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
        """Return the next events of the replay, about `most_bytes` of data, without delivering them.

        The fast path of `advance`, for runs of events of one channel. An empty list does not mean the end:
        continue with `advance`.
        """
        replay = self._replay
        if replay is None or not self.is_readable:
            return []
        try:
            run = replay.run(most_bytes)
            self._bus.counters.replayed += len(run)
            return run
        except Overtaken:
            self._end_too_slow()
        except Unavailable as error:
            self._end_unreadable(error)
        except MemoryError:
            self.end_without_memory()
        return []

    def advance(self) -> bool:
        """Deliver the next event of the replay. Return False if there is none: the subscriber is live.

        Does nothing and returns False while the replay is not readable: see `is_readable`. If the next event is not
        in memory, the replay is not readable until it is.

        The transport calls this as fast as the client can receive events. The subscription ends as too slow if
        the histories drop events before the replay reads them, or if too many events are published meanwhile,
        unless those may be missed. A history that cannot be read ends it too, with the reason.
        """
        replay = self._replay
        if replay is None or not self.is_readable:
            return False
        try:
            entry = replay.next()
        except NotInMemory as missing:
            self._fetch(self._bus.do_later, missing)
            return self.is_readable
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
        self._bus.counters.replayed += 1
        try:
            self.subscriber.deliver(entry)
        except Exception as error:  # noqa: BLE001  as when an event is published
            self.fail(error)
        entry.forget_frames()
        return self._replay is not None

    def _hold(self, entry: Entry) -> None:
        """Hold a newly published event until the replay reaches it.

        At most `max_held_bytes`, or one event, are held; other events are read later from their histories.
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
                bus.counters.missed += replay.miss_held()
                if replay.held_bytes > max_bytes and replay.held > 1:  # as in an outbox, there is room for one
                    self._end_too_slow()

    # The end

    def fail(self, error: Exception) -> None:
        """End the subscription because its subscriber, or its replay, raised `error`."""
        self._bus.delivery.pending.of(self)  # discard its pending events
        self._bus.report(self.subscriber, error)
        if isinstance(error, MemoryError):
            self.end_without_memory()
        else:
            self.end(CloseReason(CloseCause.FAILED, "a fault in pushd; connect again to resume"))

    def _end_too_slow(self) -> None:
        self.end(CloseReason(CloseCause.TOO_SLOW, "too slow for what is published; resume from the last id"))

    def end_without_memory(self) -> None:
        """End the subscription for lack of memory for its next event; resume from the event before it."""
        memory.missed()
        self._end_unreadable(OutOfMemory())

    def _end_unreadable(self, error: Unavailable) -> None:
        self.end(CloseReason(CloseCause.FAILED, error.detail))

    def end(self, reason: CloseReason) -> None:
        """End the subscription and close its subscriber with `reason`; no effect if it has ended already."""
        subscriber = self.subscriber
        if not self.close():
            return
        try:
            subscriber.close(reason)
        except Exception as error:  # noqa: BLE001  the subscription has ended all the same
            self._bus.failed(subscriber, error)

    def close(self) -> bool:
        """End the subscription: no more events are delivered. Return False if it has ended already."""
        self.take_pending()
        if self.deliver is discard_event:
            return False
        self.deliver = discard_event
        self.forget()
        if self._replay is not None:
            self._bus.discard(self._replay)
            self._replay = None
        self._bus.remove_subscriber()
        for text in list(self._patterns):
            self._remove(text)
        return True

    def forget(self) -> None:
        """Drop the reference to the subscriber, which refers back to this subscription: a cycle."""
        self.subscriber = NO_SUBSCRIBER
