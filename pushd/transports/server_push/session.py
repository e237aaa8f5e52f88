"""The session of server push: each event is the response to a promised request (RFC 9113, section 8.4).

It follows the rules of `Session`, with promises instead of bytes. Without room for promises, events wait, within
the limit of the outbox. Events that the client refuses for now are promised again, before newer events.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable
from functools import partial
from heapq import heappop, heappush
from typing import NamedTuple

from twisted.internet.interfaces import IDelayedCall

from pushd.bus import ENTRY_BYTES, ClientInfo, CloseCause, CloseReason, Entry
from pushd.server import Answer, Outcome, Stream, event_fields, path_of_event
from pushd.sessions import Connection, SessionRegistry, SubscriberSession

__all__ = ["PushSession"]

_IN_FLIGHT_BYTES = 64 * 1024
"""Maximum size of promised events that are unsent."""

_PROMISE_COST = 10
"""Cost of a promise, in sends."""

_MAX_PROMISES = 50
"""Maximum number of promises that one session makes in one turn of the reactor: about a millisecond."""

_FIRST_RETRY_S = 0.02
_LAST_RETRY_S = 5.0
"""Backoff in seconds between a refusal and the next promise: doubles each time the client accepts none."""

_TOO_SLOW = CloseReason(CloseCause.TOO_SLOW, "too slow for what is published; resume from the last id")
_TOO_LATE = CloseReason(
    CloseCause.TOO_SLOW, "an event was refused too late to be promised again; resume from the last id"
)
_LOST = CloseReason(CloseCause.TOO_SLOW, "too slow: a pushed event could not be sent; resume from the last id")


class _Push(NamedTuple):
    number: int
    """Index in the order of the events."""

    entry: Entry

    cost: int
    """Share of the limits, in bytes."""


class PushSession(SubscriberSession):
    """A session that promises events on one stream, whose body is its connection.

    While `is_paused`, the client does not read the body: heartbeats are skipped, and promises go on.
    """

    __slots__ = (
        "_call_later",
        "_count",
        "_failure",
        "_in_flight",
        "_in_flight_bytes",
        "_is_held",
        "_max_bytes",
        "_may_be_missed",
        "_refused",
        "_retry_call",
        "_retry_s",
        "_sent",
        "_sent_bytes",
        "_stream",
        "_tried",
        "_waiting",
        "_waiting_bytes",
    )

    def __init__(
        self,
        sessions: SessionRegistry,
        stream: Stream,
        connection: Connection,
        caller: ClientInfo,
        call_later: Callable[[float, Callable[[], None]], IDelayedCall],
    ) -> None:
        """Create a session on `stream`, whose body is `connection`; `call_later` is the reactor's."""
        super().__init__(sessions, connection, caller)
        self._stream = stream
        self._call_later = call_later
        self._max_bytes = sessions.max_outbox_bytes
        self._count = 0
        self._waiting: OrderedDict[int, _Push] = OrderedDict()
        self._may_be_missed: deque[int] = deque()  # the numbers of those waiting events
        self._waiting_bytes = 0
        self._refused: list[_Push] = []  # a heap
        self._in_flight: dict[int, _Push] = {}
        self._in_flight_bytes = 0
        self._sent: OrderedDict[int, _Push] = OrderedDict()
        self._sent_bytes = 0
        self._tried = 0
        self._retry_s = _FIRST_RETRY_S
        self._retry_call: IDelayedCall | None = None
        self._failure: CloseReason | None = None
        self._is_held = False  # too much is in flight; a promise's outcome flushes

    def deliver(self, entry: Entry) -> None:
        """Override: queue the event for a promise."""
        if self.is_closed:
            return
        push = _Push(self._count, entry, len(entry.event.data) + ENTRY_BYTES)
        if not self._fits(push) and not self._make_room(push):
            self.close(_TOO_SLOW)
            return
        self._count += 1
        self._waiting[push.number] = push
        self._waiting_bytes += push.cost
        if entry.may_be_missed:
            self._may_be_missed.append(push.number)
        self._flush_later()

    @property
    def outbox_bytes(self) -> int:
        """Override: count the events to be promised or sent."""
        return self._waiting_bytes + self._in_flight_bytes

    def _fits(self, push: _Push) -> bool:
        return not self._waiting or self._waiting_bytes + push.cost <= self._max_bytes

    def _make_room(self, push: _Push) -> bool:
        """Promise waiting events, or drop those that may be missed, until `push` fits; return False if it does not.

        After many events in one turn, there may be room for promises. One event may be too much for hundreds of
        clients: those for which this turn has no time left are too slow.
        """
        if self._is_unflushed and not self._sessions.wheel.reactor_turn.is_over:
            self.flush()
        if not self._fits(push):
            self._miss()
        return self._fits(push) and not self.is_closed

    def _miss(self) -> None:
        """Drop the older half of the waiting events that may be missed."""
        count = (len(self._may_be_missed) + 1) // 2
        for _ in range(count):
            self._waiting_bytes -= self._waiting.pop(self._may_be_missed.popleft()).cost
        self._sessions.counters.missed += count

    def send(self, frame: bytes) -> None:
        """Override: write `frame`, a heartbeat, to the body, unless the client does not read it."""
        if not self.is_closed and not self.is_paused:
            self._wrote_s = self._sessions.wheel.turned_s
            self.own_sent_bytes += len(frame)
            self.connection.writer.write(frame)

    # Promises

    def _flush_later(self) -> None:
        """Override: the body may be paused while there is room for promises."""
        if not self._is_unflushed and not self.is_closed:
            self._is_unflushed = True
            self._sessions.flush_later(self)

    def _flush(self) -> int:
        """Override: promise waiting and replayed events."""
        self._is_held = False
        if self._failure is not None:
            self.close(self._failure)
        left = _MAX_PROMISES
        while left and (self._waiting or self._refused or self.subscription.is_replaying) and self._has_room():
            push = self._next()
            if push is None:
                break
            self._promise(push)
            left -= 1
        if not left:
            self._flush_later()
        return 1 + (_MAX_PROMISES - left) * _PROMISE_COST

    def _has_room(self) -> bool:
        if self.is_closed or self._retry_call is not None:
            return False
        if self._in_flight and self._in_flight_bytes >= _IN_FLIGHT_BYTES:
            self._is_held = True  # until `_told` reports that some of it was sent
            return False
        if self._stream.promise_room > 0:
            return True
        self._stream.promises.wait(self._flush_later)
        return False

    def _next(self) -> _Push | None:
        """Remove and return the oldest event to promise; None if there is none."""
        if self._refused:
            return heappop(self._refused)
        while not self._waiting:
            if not self.subscription.advance():
                self.subscription.when_tidy(self._flush_later)  # the next event is fetched
                break
        if not self._waiting or self.is_closed:
            return None
        push = self._waiting.popitem(last=False)[1]
        self._waiting_bytes -= push.cost
        if push.entry.may_be_missed:
            self._may_be_missed.popleft()
        return push

    def _promise(self, push: _Push) -> None:
        self._tried += 1
        self._in_flight[push.number] = push
        self._in_flight_bytes += push.cost
        self.own_sent_bytes += push.cost - ENTRY_BYTES
        self._sessions.counters.written_bytes += push.cost - ENTRY_BYTES
        entry = push.entry
        path = path_of_event(entry.channel, entry.event.id).encode("ascii")
        answer = Answer(event_fields(entry.event), entry.event.data)
        is_made = self._stream.promise(path, partial(self._told, push.number), answer)
        assert is_made

    def _told(self, number: int, outcome: Outcome) -> None:
        """Called with the outcome of a promise."""
        if self.is_closed:
            return
        push = self._in_flight.pop(number, None)
        if push is not None:
            self._in_flight_bytes -= push.cost
        else:
            push = self._sent.pop(number, None)
            self._sent_bytes -= 0 if push is None else push.cost
        if outcome is Outcome.FINISHED:
            if push is not None:
                self._remember(push)
        elif outcome is Outcome.LOST:
            self._failure = _LOST
        elif outcome is Outcome.REFUSED:
            if push is None:
                self._failure = _TOO_LATE
            else:
                self._retry(push)
        if self._is_held or self._failure is not None:
            self._flush_later()

    def _remember(self, push: _Push) -> None:
        """Keep a sent event, within the limit of the outbox: the client may still refuse it."""
        self._sent[push.number] = push
        self._sent_bytes += push.cost
        while self._sent_bytes > self._max_bytes and len(self._sent) > 1:
            self._sent_bytes -= self._sent.popitem(last=False)[1].cost

    def _retry(self, push: _Push) -> None:
        """Schedule another promise of an event; no other event is promised before it."""
        heappush(self._refused, push)
        if self._retry_call is None:
            self._retry_call = self._call_later(self._retry_s, self._retry_now)

    def _retry_now(self) -> None:
        is_any_taken = self._tried > len(self._refused)
        self._retry_s = _FIRST_RETRY_S if is_any_taken else min(_LAST_RETRY_S, 2 * self._retry_s)
        self._tried = 0
        self._retry_call = None
        self._flush_later()

    # The end: see `SubscriberSession`

    def _give_up(self) -> int:
        """Override: the events are discarded in `finish`, as it takes long to free those of many sessions."""
        return len(self._waiting) + len(self._refused)

    def _send_rest(self) -> None:
        """Override: promise the waiting events that have room, unless an event before them was lost."""
        while self._failure is None and self._waiting and self._has_room() and (push := self._next()):
            self._promise(push)

    def _discard(self) -> None:
        """Override: stop waiting for room, too."""
        self._stream.promises.stop_waiting(self._flush_later)
        if self._retry_call is not None:
            self._retry_call.cancel()
            self._retry_call = None
        for pushes in self._waiting, self._may_be_missed, self._refused, self._in_flight, self._sent:
            pushes.clear()
        self._waiting_bytes = self._in_flight_bytes = 0
