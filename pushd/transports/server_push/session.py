"""The session of server push: each event is the response to a promised request (RFC 9113, section 8.4).

It follows the rules of `Session`, with promises instead of bytes. Without room for promises, events wait, within
the limit of the outbox. Events that the client refuses for now are promised again, before newer events.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from functools import partial
from heapq import heappop, heappush
from typing import NamedTuple

from twisted.internet.interfaces import IDelayedCall, IPushProducer
from zope.interface import implementer

from pushd.bus import ENTRY_BYTES, ClientInfo, CloseCause, CloseReason, Entry, Pattern, StartPosition, Subscription
from pushd.server import Answer, Outcome, Stream, event_fields, path_of_event
from pushd.sessions import GONE, Connection, SessionRegistry

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


@implementer(IPushProducer)
class PushSession:
    """One connected subscriber: a `pushd.bus.Subscriber` that makes promises on one stream.

    =============  ==================================================================
    _is_held       too much is in flight; a promise's outcome flushes
    _is_paused     the client does not read the body; heartbeats are skipped
    _is_unflushed  registered for a flush at the end of the turn
    is_closed      no more promises are made
    =============  ==================================================================
    """

    __slots__ = (
        "_call_later",
        "_connection",
        "_count",
        "_failure",
        "_in_flight",
        "_in_flight_bytes",
        "_is_held",
        "_is_paused",
        "_is_unflushed",
        "_max_bytes",
        "_may_be_missed",
        "_refused",
        "_retry_call",
        "_retry_s",
        "_sent",
        "_sent_bytes",
        "_sessions",
        "_stream",
        "_tried",
        "_waiting",
        "_waiting_bytes",
        "_wrote_s",
        "caller",
        "end_reason",
        "is_closed",
        "sent_bytes",
        "subscription",
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
        self._sessions = sessions
        self._stream = stream
        self._connection = connection
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
        self._is_held = False
        self._is_paused = False
        self._is_unflushed = False
        self.is_closed = False
        """True once no more promises can be made."""
        self._wrote_s = sessions.wheel.turned_s
        self.caller = caller
        """The client and its grants."""
        self.end_reason: CloseReason | None = None
        """Why pushd ended the session; None if the client did."""
        self.sent_bytes = 0
        """Bytes sent to the client: the promised data, and the body."""
        self.subscription = Subscription(sessions.bus, self, caller)

    def enter(self, groups: Sequence[Sequence[Pattern]], since: str) -> list[StartPosition]:
        """Register the session and subscribe to `groups` of patterns; see `Session.enter`."""
        starts = self.subscription.add_each(groups, since, checked=partial(self._sessions.register, self))
        self._flush_later()
        return starts

    def deliver(self, entry: Entry) -> None:
        """Called by the bus with an event: queue it for a promise."""
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
        """Return the size of events to be promised or sent, in bytes, counted as for the limits."""
        return self._waiting_bytes + self._in_flight_bytes

    def wrote(self, size: int) -> None:
        """Count `size` bytes of the body that the request wrote: its start and end."""
        self.sent_bytes += size

    @property
    def wrote_s(self) -> float:
        """Return the time of the last write to the body, by the timer wheel; now, while the session is paused.

        Promises do not count: a proxy may apply its idle timeout to each HTTP/2 stream.
        """
        return self._sessions.wheel.turned_s if self._is_paused else self._wrote_s

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

    def send(self, line: bytes) -> None:
        """Write `line`, a heartbeat, to the body of the stream, unless the client does not read it."""
        if not self.is_closed and not self._is_paused:
            self._wrote_s = self._sessions.wheel.turned_s
            self.sent_bytes += len(line)
            self._connection.writer.write(line)

    # Promises

    def _flush_later(self) -> None:
        if not self._is_unflushed and not self.is_closed:
            self._is_unflushed = True
            self._sessions.flush_later(self)

    def flush(self) -> int:
        """Promise waiting and replayed events, up to the limits of client and turn; return the cost, in sends."""
        self._is_unflushed = self._is_held = False
        if self._failure is not None:
            self.close(self._failure)
        left = _MAX_PROMISES
        try:
            while left and (self._waiting or self._refused or self.subscription.is_replaying) and self._has_room():
                push = self._next()
                if push is None:
                    break
                self._promise(push)
                left -= 1
        except MemoryError:  # events after the missing one must not be promised
            self._waiting.clear()
            self._may_be_missed.clear()
            self._refused.clear()
            self._waiting_bytes = 0
            self.subscription.end_without_memory()
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
        self.sent_bytes += push.cost - ENTRY_BYTES
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

    # The end

    def close(self, reason: CloseReason) -> None:
        """End the session: promise the events that have room, then send `reason`. One too slow loses them."""
        if reason.cause is not CloseCause.TOO_SLOW:
            self.subscription.take_pending()
        if self.is_closed:
            return
        self._failure = None
        self.end_reason = reason
        if reason.cause is CloseCause.TOO_SLOW:
            self.is_closed = True
            self._sessions.counters.too_slow += len(self._waiting) + len(self._refused) + 1
            self._sessions.dismiss(self, reason)
            return
        while self._waiting and self._has_room() and (push := self._next()) is not None:
            self._promise(push)
        self.farewell(reason)

    def farewell(self, reason: CloseReason) -> None:
        """Send `reason` after the promises, and end the stream."""
        self._stop()
        self._connection.close(reason)

    def _stop(self) -> None:
        self.is_closed = True
        self.subscription.close()
        self._stream.promises.stop_waiting(self._flush_later)
        if self._retry_call is not None:
            self._retry_call.cancel()
            self._retry_call = None
        for pushes in self._waiting, self._may_be_missed, self._refused, self._in_flight, self._sent:
            pushes.clear()

    def ended(self) -> None:
        """Called when the stream has ended, for any reason."""
        self._stop()
        self._sessions.remove(self)
        self._connection = GONE  # break the reference cycle

    # IPushProducer: of heartbeats only

    def pauseProducing(self) -> None:
        """Called when the client does not read the body: skip heartbeats."""
        self._is_paused = True

    def resumeProducing(self) -> None:
        """Called when the client reads the body again."""
        self._wrote_s = self._sessions.wheel.turned_s
        self._is_paused = False

    def stopProducing(self) -> None:
        """Called when the stream is gone; `ended` follows."""
        self._is_paused = True
