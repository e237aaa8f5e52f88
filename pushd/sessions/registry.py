"""The session registry: all connected subscribers, their shared state, and the work done for many in one turn."""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from weakref import WeakValueDictionary

from twisted.logger import Logger

from pushd.bus import (
    END_COST,
    STEP,
    Burst,
    Bus,
    ClientInfo,
    CloseCause,
    CloseReason,
    Done,
    Encoder,
    Grants,
    Slice,
    Slices,
    Work,
    limit_key,
    number_of,
    owner_of,
    regranted,
)
from pushd.errors import TooMany, Unauthorized, Unavailable
from pushd.server import Timer, TimerWheel
from pushd.sessions.close_log import CloseLog
from pushd.sessions.fanout import FanoutGroup
from pushd.sessions.interfaces import ConnectedSubscriber, Flushed, Leaving, SessionLimits
from pushd.sessions.long_work import LongWork
from pushd.sessions.presence import Presence

__all__ = ["CHUNK_BYTES", "SessionRegistry"]

_log = Logger()

_NO_LIMITS = SessionLimits()


CHUNK_BYTES = 64 * 1024
"""Size of one write, in bytes."""


_FAREWELLS_PER_TURN = 20
"""Maximum number of clients that are closed as too slow in one turn of the reactor."""


_MAX_REGRANTS = 100
"""Number of changes of grants that are remembered, for clients that wait for a webhook meanwhile."""


_RETRY_S = 10.0
"""When a client over a connection limit may retry, in seconds."""


class SessionRegistry:
    """All sessions, and their shared state."""

    def __init__(
        self,
        bus: Bus,
        wheel: TimerWheel,
        call_later: Callable[[float, Callable[[], None]], object],
        *,
        max_outbox_bytes: int,
        now: Callable[[], float],
        prefix: str,
        bounds: SessionLimits = _NO_LIMITS,
        presence: Presence | None = None,
    ) -> None:
        """Create a registry without sessions; `call_later` is the reactor's, `now` the time in seconds since 1970.

        Connection ids begin with `prefix`. `presence` is called when subscribers connect and disconnect.
        """
        self.bus = bus
        self.counters = bus.counters
        """Counters for the metrics."""
        self.wheel = wheel
        self.max_outbox_bytes = max_outbox_bytes
        self._call_later = call_later
        self.resumes = Burst(wheel.seconds)
        """Limits the replays that continue as soon as their connections can accept more, instead of in `_flush`."""
        self.steps = LongWork(call_later, wheel.reactor_turn)
        """Runs long work."""
        bus.do_later = self._do_later
        self.now = now
        """The time, in seconds since 1970."""
        self._prefix = prefix
        self._count = 0
        self._bounds = bounds
        self._presence = presence
        self._open: dict[int, ConnectedSubscriber] = {}
        self._per_address: Counter[str] = Counter()
        self._per_user: Counter[str] = Counter()
        self._expiries: dict[ConnectedSubscriber, Timer] = {}
        self._groups: WeakValueDictionary[tuple[str, Encoder], FanoutGroup] = WeakValueDictionary()
        self._regrants: deque[tuple[Grants, Grants]] = deque(maxlen=_MAX_REGRANTS)
        self._ends = CloseLog(wheel, call_later)
        self._unflushed: deque[Flushed] = deque()
        self._is_flush_due = False
        self._slices = Slices(call_later, wheel.reactor_turn)
        bus.delivery.drained = self._note_written
        self._leaving: deque[tuple[Leaving, CloseReason]] = deque()
        self._farewell: Callable[[], CloseReason] | None = None

    def limit(self, *, max_outbox_bytes: int, bounds: SessionLimits) -> None:
        """Apply new limits to subscribers admitted from now on."""
        self.max_outbox_bytes = max_outbox_bytes
        self._bounds = bounds
        self._groups.clear()

    def _do_later(self, work: Work[None], is_gone: Callable[[], bool], caller: ClientInfo, done: Done) -> None:
        """Run a work in steps: a `pushd.bus.replaying.DoLater`."""
        self.steps.run(work, is_gone, owner_of(caller)).addCallbacks(done, lambda failure: done(failure.value))

    def __len__(self) -> int:
        """Return the number of connected subscribers."""
        return len(self._open)

    def __iter__(self) -> Iterator[ConnectedSubscriber]:
        """Iterate over the subscribers, in the order of admission."""
        return iter(list(self._open.values()))

    def after(self, connection_id: str | None) -> Iterator[ConnectedSubscriber]:
        """Return the subscribers with a later connection id, ordered by id; without `connection_id`, all."""
        number = 0 if connection_id is None else number_of(connection_id)
        numbers = sorted(self._open)  # a webhook may admit clients out of order
        open_ = map(self._open.get, numbers[bisect_right(numbers, number) :])
        return (
            subscriber for subscriber in open_ if subscriber is not None
        )  # subscribers may leave during iteration

    def get(self, connection_id: str) -> ConnectedSubscriber | None:
        """Return the subscriber with the id `connection_id`, or None."""
        subscriber = self._open.get(number_of(connection_id))
        return subscriber if subscriber is not None and subscriber.caller.id == connection_id else None

    def name(self, caller: ClientInfo) -> None:
        """Assign a connection id to `caller`, unless it has one."""
        if not caller.number:
            self._count += 1
            caller.number, caller.prefix = self._count, self._prefix

    def register(self, subscriber: ConnectedSubscriber) -> None:
        """Register a subscriber that was admitted; raise `Unavailable` during shutdown."""
        self._check_open()
        caller = subscriber.caller
        self.name(caller)
        caller.since, caller.since_s = self.now(), self.wheel.seconds()
        self._open[caller.number] = subscriber
        self.counters.connected[caller.transport.name] += 1
        self._count_up(limit_key(caller.place.address), caller.identity.user)
        self.expire_later(subscriber)
        if self._presence is not None:
            self._presence.connected(caller)

    def remove(self, subscriber: ConnectedSubscriber, why: str = "the client has gone") -> None:
        """Remove a subscriber that has ended; idempotent. `why` is the reason unless pushd ended it."""
        caller = subscriber.caller
        if self._open.get(caller.number) is not subscriber:
            return
        del self._open[caller.number]
        self._count_down(limit_key(caller.address), caller.user)
        reason = subscriber.end_reason
        self.counters.ended[caller.transport.name, None if reason is None else reason.cause] += 1
        if (alarm := self._expiries.pop(subscriber, None)) is not None:
            alarm.cancel()
        why = why if reason is None else reason.text
        if not caller.transport.is_polling:  # a poll is logged as a request
            self._ends.log(subscriber, why)
        if self._presence is not None:
            self._presence.disconnected(caller, why)

    def regrant(self, before: Grants, after: Grants) -> None:
        """Replace the grants `before` with `after`; end subscribers whose channels are no longer granted."""
        self._regrants.append((before, after))
        self._slices.do(partial(self._regrant, subscriber, before, after) for subscriber in self)

    def _regrant(self, subscriber: ConnectedSubscriber, before: Grants, after: Grants) -> int:
        """Replace the grants of one subscriber; return the cost, in sends."""
        identity = regranted(subscriber.caller.identity, before, after)
        if identity is subscriber.caller.identity:
            return 1
        subscriber.caller.identity = identity
        if not all(map(identity.grants.subscribe.has, subscriber.subscription.texts)):
            self._end(
                subscriber,
                CloseReason(CloseCause.REFUSED, "the rights of everybody have changed; come back with a token"),
            )
        return END_COST

    def end_each(self, subscribers: Iterable[ConnectedSubscriber], reason: CloseReason) -> None:
        """End several subscribers; if they are many, in slices over several turns of the reactor."""
        self._slices.do(partial(self._end, subscriber, reason) for subscriber in list(subscribers))

    def _end(self, subscriber: ConnectedSubscriber, reason: CloseReason) -> int:
        """End one subscriber, unless it has ended; return the cost, in sends."""
        if self._open.get(subscriber.caller.number) is subscriber:
            try:
                subscriber.close(reason)
            except Exception:  # noqa: BLE001  the others are to be ended all the same
                _log.failure("a fault in pushd while it closed {peer}", peer=subscriber.caller.name)
        return END_COST

    def expire_later(self, subscriber: ConnectedSubscriber) -> None:
        """Schedule the end of a subscriber for when its grants expire."""
        if (alarm := self._expiries.pop(subscriber, None)) is not None:
            alarm.cancel()
        expires_at = subscriber.caller.identity.expires_at
        if expires_at is not None:
            reason = CloseReason(CloseCause.REFUSED, subscriber.caller.identity.end)
            delay_s = max(0.0, expires_at - self.now())
            self._expiries[subscriber] = self.wheel.call_in(delay_s, partial(subscriber.close, reason))

    def group(self, channel: str, encode: Encoder) -> FanoutGroup:
        """Return the fan-out group of `channel` for the format `encode`."""
        group = self._groups.get((channel, encode))
        if group is None:
            group = FanoutGroup(
                encode,
                self.flush_later,
                self.wheel,
                self.counters,
                self.bus.delivery.crowded,
                max_bytes=min(CHUNK_BYTES, self.max_outbox_bytes // 2),
                max_waiting_bytes=self.max_outbox_bytes // 2,
            )
            self._groups[channel, encode] = group
        return group

    def flush_later(self, session: Flushed) -> None:
        """Flush `session` at the end of this turn of the reactor, or in one of the next turns."""
        self._unflushed.append(session)
        if not self._is_flush_due:
            self._is_flush_due = True
            self._call_later(0, self._flush)

    def _flush(self) -> None:
        """Flush a slice of the waiting sessions, each once; sessions added meanwhile wait for the next turn."""
        unflushed, part = self._unflushed, Slice(self.wheel.reactor_turn)
        count, sends = len(unflushed), 0
        try:
            while count:
                count -= 1
                sends += unflushed.popleft().flush()
                if sends >= STEP:
                    if not part.spend(sends):
                        break
                    sends = 0
            self._note_written()
        finally:
            self._is_flush_due = bool(unflushed)
            if unflushed:  # even after an exception: the others must still be flushed
                self._call_later(0, self._flush)

    def _note_written(self) -> None:
        """Record the delay of events, once they are written to all subscribers."""
        delivery = self.bus.delivery
        if delivery.unwritten and not self._unflushed and not delivery.pending.events:
            delivery.written()

    def dismiss(self, session: Leaving, reason: CloseReason) -> None:
        """Send `reason` to the client of a session that accepts no more frames, and end it; a few per turn.

        When thousands are too slow for one event, the other clients must not wait for all these close messages.
        """
        if not self._leaving:
            self._call_later(0, self._dismiss_some)
        self._leaving.append((session, reason))

    def _dismiss_some(self) -> None:
        try:
            for _ in range(min(_FAREWELLS_PER_TURN, len(self._leaving))):
                session, reason = self._leaving.popleft()
                if session.caller.number in self._open:
                    session.farewell(reason)
        finally:
            if self._leaving:  # even after an exception: the others must still be closed
                self._call_later(0, self._dismiss_some)

    @contextmanager
    def reserve(self, caller: ClientInfo) -> Iterator[None]:
        """Count `caller` as connected while its admission waits, so that the connection limits hold."""
        key, user = limit_key(caller.address), caller.user  # the webhook may change the user
        self._count_up(key, user)
        try:
            yield
        finally:
            self._count_down(key, user)

    def _count_up(self, key: str | None, user: str | None) -> None:
        if key is not None:
            self._per_address[key] += 1
        if user is not None:
            self._per_user[user] += 1

    def _count_down(self, key: str | None, user: str | None) -> None:
        _count_down(self._per_address, key)
        _count_down(self._per_user, user)

    def check_room(self, caller: ClientInfo) -> None:
        """Raise `Unavailable` during shutdown, `TooMany` if the address or user is at its connection limit."""
        self._check_open()
        bounds, key = self._bounds, limit_key(caller.place.address)
        if key is not None and 0 < bounds.per_address <= self._per_address[key]:
            limit = f"[limits] connections_per_address is {bounds.per_address}"
            raise TooMany(f"{key} has too many subscribers connected: {limit}", retry_s=_RETRY_S)
        user = caller.identity.user
        if user is not None and 0 < bounds.per_user <= self._per_user[user]:
            limit = f"[limits] connections_per_user is {bounds.per_user}"
            raise TooMany(f"the user {user!r} has too many connected: {limit}", retry_s=_RETRY_S)

    def _check_open(self) -> None:
        if self._farewell is not None:
            reason = self._farewell()
            raise Unavailable(reason.text, retry_s=reason.retry_s, code="shutting_down")

    def refresh(self, caller: ClientInfo) -> None:
        """Do `regrant_late`, and raise `Unauthorized` if the grants of `caller` have expired."""
        self.regrant_late(caller)
        self.check_time(caller)

    def regrant_late(self, caller: ClientInfo) -> None:
        """Apply the changes of grants since `caller` was identified: call it after a wait, as for a webhook."""
        for regrant in self._regrants:
            caller.identity = regranted(caller.identity, *regrant)

    def check_time(self, caller: ClientInfo) -> None:
        """Raise `Unauthorized` if the grants of `caller` have expired."""
        expires_at = caller.identity.expires_at
        if expires_at is not None and expires_at <= self.now():
            raise Unauthorized(caller.identity.end, is_token_wrong=True, code="token_expired")

    def close(self, farewell: Callable[[], CloseReason]) -> None:
        """Close all subscribers and admit no more; `farewell` returns the reason for each."""
        self._farewell = farewell
        self._ends.is_stopping = True
        for subscriber in self:
            self._end(subscriber, farewell())


def _count_down(counts: Counter[str], key: str | None) -> None:
    if key is not None and key in counts:
        counts[key] -= 1
        if not counts[key]:
            del counts[key]
