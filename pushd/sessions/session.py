"""The session: one connected subscriber, from the bus through its outbox to its connection.

`Session.deliver` puts the frame, which is the same bytes for every subscriber, into the outbox. At the end of the
reactor's turn, `SessionRegistry` flushes every session with new frames, each outbox in one write. A session whose
transport applies back-pressure (as to any producer) waits; if its outbox overflows, the session is closed with a
reason.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IPushProducer
from twisted.logger import Logger
from zope.interface import implementer

from pushd.bus import (
    BYTES_PER_SEND,
    ClientInfo,
    CloseCause,
    CloseReason,
    Encoder,
    Entry,
    Pattern,
    StartPosition,
    Subscription,
)
from pushd.server import Timer
from pushd.sessions.closed_connection import GONE
from pushd.sessions.fanout import FanoutGroup
from pushd.sessions.interfaces import Connection
from pushd.sessions.outbox import Outbox
from pushd.sessions.registry import CHUNK_BYTES, SessionRegistry

__all__ = ["Session"]

_log = Logger()

_REPLAY_STEPS = 100
"""Maximum number of events that a replay over many channels sends to one client in one turn."""

_REPLAY_S = 0.0015
"""Maximum time to read the events of one turn's replay, in seconds."""

_CLOSE_TIMEOUT_S = 10.0
"""How long a closing connection may take to send its remaining bytes, in seconds."""


@implementer(IPushProducer)
class Session:
    """One connected subscriber: a `pushd.bus.Subscriber`, and the producer of its connection.

    State: `is_paused` (back-pressure from the transport), `_is_unflushed` (a flush is due at the end of the turn),
    `_is_flushing` (a replay fills the outbox, past its limit), `_is_parting` (closing; the abort timer runs),
    `is_closed` (no more frames are accepted).
    """

    __slots__ = (
        "_abort_alarm",
        "_encode",
        "_group",
        "_group_wrote_s",
        "_has_missed",
        "_is_flushing",
        "_is_parting",
        "_is_unflushed",
        "_outbox",
        "_sessions",
        "_wrote_s",
        "caller",
        "connection",
        "end_reason",
        "is_closed",
        "is_paused",
        "own_sent_bytes",
        "subscription",
    )

    def __init__(
        self, sessions: SessionRegistry, connection: Connection, encode: Encoder, caller: ClientInfo
    ) -> None:
        """Create a session on `connection` that sends events as `encode` formats them; `enter` registers it."""
        self._sessions = sessions
        self._encode = encode
        self._outbox = Outbox(sessions.max_outbox_bytes)
        self.is_paused = False
        """True while the transport applies back-pressure."""
        self._has_missed = self._is_unflushed = self._is_flushing = self._is_parting = False
        self._abort_alarm: Timer | None = None
        self.is_closed = False
        """True once no more frames can be sent."""
        self.connection = connection
        self.caller = caller
        """The client and its grants."""
        self.end_reason: CloseReason | None = None
        """Why pushd ended the session; None if the client did."""
        self._group: FanoutGroup | None = None
        self._wrote_s = sessions.wheel.turned_s
        self._group_wrote_s = 0.0  # the group's `wrote_s` when this session joined
        self.own_sent_bytes = 0
        """Bytes sent to the client, except those sent through its fan-out group."""
        self.subscription = Subscription(sessions.bus, self, caller)

    def enter(
        self, groups: Sequence[Sequence[Pattern]], since: str, or_among: Sequence[Pattern] = ()
    ) -> list[StartPosition]:
        """Register the session and subscribe to `groups` of patterns; see `Subscription.add_each`.

        Raise `Refused`, without any change, if it may not subscribe.
        """
        starts = self.subscription.add_each(groups, since, or_among, partial(self._sessions.register, self))
        if starts:
            self._go_on()
        return starts

    def subscribe(self, patterns: Sequence[Pattern], since: str, or_among: Sequence[Pattern] = ()) -> StartPosition:
        """Subscribe to `patterns` from the position `since`; see `Subscription.add_each`."""
        self._leave_group()
        start = self.subscription.add(patterns, since, or_among)
        self._go_on()
        return start

    def unsubscribe(self, text: str) -> bool:
        """Unsubscribe from a channel or pattern; return False if there was no such subscription."""
        self._leave_group()
        was_there = self.subscription.remove(text)
        self._go_on()
        return was_there

    def revoke(self) -> list[str]:
        """Unsubscribe from all channels and patterns that the caller may no longer subscribe to; return them."""
        self._leave_group()
        lost = self.subscription.revoke()
        self._go_on()
        return lost

    def _go_on(self) -> None:
        """Flush later, and resume the replay once it may be read."""
        self._flush_later()
        if self.subscription.then is not None:
            self.subscription.when_tidy(self._flush_later)

    def tidied(self) -> Deferred[None] | None:
        """Return a Deferred to wait for before the client subscribes to more; None if there is no need to wait."""
        done: Deferred[None] = Deferred()
        return done if self.subscription.when_tidy(partial(done.callback, None)) else None

    @property
    def outbox_bytes(self) -> int:
        """Return the size of the outbox, in bytes."""
        return self._outbox.size

    @property
    def sent_bytes(self) -> int:
        """Return the number of bytes sent to the client."""
        return self.own_sent_bytes + (0 if self._group is None else self._group.sent_bytes)

    def wrote(self, size: int) -> None:
        """Count `size` bytes that the connection wrote itself: the start and the end of the stream."""
        self.own_sent_bytes += size

    @property
    def wrote_s(self) -> float:
        """Return the time of the last write to the client, by the timer wheel; now, while the session is paused."""
        if self.is_paused:
            return self._sessions.wheel.turned_s
        group, own_s = self._group, self._wrote_s
        return own_s if group is None or group.wrote_s <= self._group_wrote_s else max(own_s, group.wrote_s)

    def deliver(self, entry: Entry) -> None:
        """Called by the bus with an event: put its frame into the outbox."""
        if entry.may_be_missed:
            self._send_or_miss(entry.frame(self._encode))
        else:
            self._send(entry.frame(self._encode))

    def send(self, frame: bytes) -> None:
        """Send `frame`, which is not an event, after all earlier frames and pending events."""
        if self._sessions.bus.delivery.pending.events:
            self.subscription.take_pending()
        self._send(frame)

    def _send(self, frame: bytes) -> None:
        if self.is_closed:
            return
        if self._group is not None:
            self._put_anyway(self._group.catch_up(self))
        if self._is_flushing:
            self._outbox.put_anyway(frame)
        elif self._outbox.put(frame):
            self._flush_later()
        elif not self.is_paused:  # one turn's events fill the outbox, but the connection accepts more
            self._write()
            self._outbox.put(frame)
        elif self._make_room(len(frame)):
            self._outbox.put(frame)
        else:
            self.close(CloseReason(CloseCause.TOO_SLOW, "too slow for what is published; resume from the last id"))

    def _send_or_miss(self, frame: bytes) -> None:
        """Send `frame`, or drop it if the outbox of a slow client is full of frames that must not be missed."""
        if self.is_paused and not self._make_room(len(frame)):
            self._sessions.counters.missed += 1
        else:
            self._send(frame)
            self._outbox.mark()

    def _make_room(self, size: int) -> bool:
        """Drop frames that may be missed until `size` more bytes fit; return False if that is not enough."""
        missed = self._outbox.make_room(size)
        if missed and not self._has_missed:
            self._has_missed = True
            _log.info("{peer} is slow and misses events: on_overflow is latest", peer=self.connection.client_name)
        self._sessions.counters.missed += missed
        return self._outbox.has_room(size)

    def _flush_later(self) -> None:
        if not self._is_unflushed and not self.is_paused:
            self._is_unflushed = True
            self._sessions.flush_later(self)

    def flush(self) -> int:
        """Write the outbox, and the replay up to the limits of connection and turn; return the cost, in sends."""
        self._is_unflushed = False
        try:
            return self._flush()
        except MemoryError:
            self._is_flushing = False
            self._outbox.clear()  # the client resumes after the last event written
            self.subscription.end_without_memory()
        return 1

    def _flush(self) -> int:
        most = left = _REPLAY_STEPS if self.subscription.is_readable else 0
        sent_before = self.own_sent_bytes
        until_s = self._sessions.wheel.seconds() + _REPLAY_S if most else 0.0
        while not self.is_paused and not self.is_closed:
            self._is_flushing = True  # the replay's frames join the next write
            while self._outbox.size < CHUNK_BYTES and left > 0 and self.subscription.is_readable:
                left -= self._replay_some()
                if not left % 4 and self._sessions.wheel.seconds() >= until_s:
                    left = 0
            self._is_flushing = False
            if self.is_closed or not self._outbox.size:
                break
            self._write()
        if most and left <= 0 and self.subscription.is_replaying:
            self._flush_later()
        cost = 1 + (self.own_sent_bytes - sent_before) // BYTES_PER_SEND + (most - left) // 2
        if self.subscription.only_channel is not None:
            self._settle()
        return cost

    def _replay_some(self) -> int:
        """Put the next run of replayed events into the outbox, or else one event; return the cost, in events."""
        run = self.subscription.advance_run(CHUNK_BYTES - self._outbox.size)
        if not run:
            self.subscription.advance()
            return 1
        encode = self._encode
        self._outbox.put_anyway(b"".join([entry.frame(encode) for entry in run]))
        for entry in run:
            entry.forget_frames()
        return 1 + len(run) // 16

    def _write(self) -> None:
        self.own_sent_bytes += self._outbox.size
        self._sessions.counters.written_bytes += self._outbox.size
        self._wrote_s = self._sessions.wheel.turned_s
        self.connection.writer.write(self._outbox.take())

    def _put_anyway(self, data: bytes) -> None:
        if data:
            self._outbox.put_anyway(data)

    # The fan-out group: see `pushd.sessions.fanout`

    def _settle(self) -> None:
        """Join the fan-out group if this session has no backlog; leave the group otherwise."""
        channel = self.subscription.only_channel
        assert channel is not None
        if self.is_paused or self.is_closed or not self.connection.writer.is_idle:
            self._leave_group()
        elif self._group is None and not self.subscription.is_replaying and not self.subscription.take_pending():
            group = self._group = self._sessions.group(channel, self._encode)
            group.add(self, self.connection.writer.send)
            self.subscription.join(group)
            self._group_wrote_s = group.wrote_s
            self.own_sent_bytes -= group.sent_bytes

    def _leave_group(self) -> None:
        """Leave the fan-out group, if in one; from now on, frames go through the outbox."""
        if (group := self._group) is None:
            return
        self._wrote_s, self._group = self.wrote_s, None
        self.own_sent_bytes += group.sent_bytes
        rest = group.remove(self)
        if rest:  # the group sends in slices, and this session's turn had not come
            self._outbox.put_anyway(rest)
            self._flush_later()
        self.subscription.part()

    def take(self, data: bytes) -> None:
        """Send the group's `data` after this session's own frames of this turn."""
        self._put_anyway(data)
        self.flush()

    def fall_behind(self, data: bytes, sent: int) -> None:
        """Called when only the first `sent` bytes of `data` were accepted: leave the group, queue the rest."""
        if not self.is_closed:
            self._leave_group()
            self.connection.writer.write_later(data, sent)

    def fail(self) -> None:
        """Called when writing to the client raised an exception: log it and close the session."""
        _log.failure("a fault in pushd while it wrote to {peer}", peer=self.connection.client_name)
        self.close(CloseReason(CloseCause.FAILED, "a fault in pushd; connect again to resume"))

    def close(self, reason: CloseReason) -> None:
        """End the session: send the outbox, then `reason`; a client that is too slow loses its outbox."""
        if reason.cause is not CloseCause.TOO_SLOW:
            self.subscription.take_pending()
        if self.is_closed:
            return
        self.end_reason = reason
        self._leave_group()
        if reason.cause is CloseCause.TOO_SLOW:
            self.is_closed = True
            self._sessions.counters.too_slow += len(self._outbox) + 1
            self._outbox.clear()
            self._sessions.dismiss(self, reason)
            return
        if self._outbox.size:
            self._write()
        self.farewell(reason)

    def farewell(self, reason: CloseReason) -> None:
        """Send `reason` after all written frames, and close the connection."""
        self.finish()
        self.connection.close(reason)

    def finish(self) -> None:
        """Stop sending: the connection is closing. Abort it after `_CLOSE_TIMEOUT_S`."""
        if self._is_parting:
            return
        self._is_parting = True
        self._leave_group()
        if self._outbox.size and not self.is_closed:  # for example, replies to received commands
            self._write()
        self.is_closed = True
        self.subscription.close()
        self._outbox.clear()
        self._abort_alarm = self._sessions.wheel.call_in(_CLOSE_TIMEOUT_S, self.connection.abort)

    def ended(self) -> None:
        """Called when the connection has ended, for any reason."""
        self._leave_group()
        self.is_closed = self._is_parting = True
        self.subscription.close()
        self._sessions.remove(self)
        self._outbox.clear()
        if self._abort_alarm is not None:
            self._abort_alarm.cancel()
            self._abort_alarm = None
        # break the reference cycles: everything is freed now, and thousands of sessions cost no garbage collection
        self.connection = GONE
        self.subscription.forget()

    # IPushProducer

    def pauseProducing(self) -> None:
        """Called when the transport's buffer is full: stop writing and leave the fan-out group."""
        self.is_paused = True
        self._leave_group()

    def resumeProducing(self) -> None:
        """Called when the transport's buffer is empty: write again."""
        self._wrote_s = self._sessions.wheel.turned_s
        self.is_paused = False
        if self.subscription.is_replaying and not self._sessions.resumes.take():
            self._flush_later()
        elif not self.is_closed:
            self.flush()

    def stopProducing(self) -> None:
        """Called when the transport is gone; `ended` follows."""
        self.is_paused = True
        self._leave_group()
