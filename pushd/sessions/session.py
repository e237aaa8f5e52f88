"""The session: one connected subscriber, from the bus through its outbox to its connection.

The way of an event ends here. `Session.deliver` puts the frame, which is the same bytes for everybody, into
the outbox; at the end of the reactor's turn `SessionRegistry` has every session that got something write its outbox
as one piece. A session whose connection takes nothing more (the transport says so, as to any producer) waits; if
its outbox overflows, it is closed and told why.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Protocol

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IPushProducer
from twisted.logger import Logger
from zope.interface import implementer

from pushd.bus import BYTES_PER_SEND, ClientInfo, CloseCause, CloseReason, Encoder, Entry, Pattern, StartPosition
from pushd.server import Timer, Writer
from pushd.sessions.closed_connection import GONE
from pushd.sessions.fanout import FanoutGroup
from pushd.sessions.outbox import Outbox
from pushd.sessions.registry import CHUNK_BYTES, SessionRegistry

__all__ = ["Connection", "Session"]

_log = Logger()

_REPLAY_STEPS = 100
"""How many events of a replay over many channels are sent to one client in one turn."""

_REPLAY_S = 0.0015
"""How long reading them may take, in seconds."""

_CLOSE_TIMEOUT_S = 10.0
"""How long a client has to take what was written before its closing."""


class Connection(Protocol):
    """What a session knows of its transport."""

    @property
    def client_name(self) -> str:
        """What the client is called in the log."""

    @property
    def writer(self) -> Writer:
        """What sends to the client."""

    def close(self, reason: CloseReason) -> None:
        """Tell the client why, after all that was written, and end the connection."""

    def abort(self) -> None:
        """End the connection now, whatever is still to be sent."""


@implementer(IPushProducer)
class Session:
    """One connected subscriber: a `pushd.bus.bus.Subscriber`, and the producer of its connection."""

    __slots__ = (
        "_abort_alarm",
        "_crowd",
        "_crowd_wrote_s",
        "_encode",
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
        """Begin a session on `connection`, to which events go as `encode` makes them; nobody knows of it yet."""
        self._sessions = sessions
        self._encode = encode
        self._outbox = Outbox(sessions.max_outbox_bytes)
        self.is_paused = False
        """True while the connection has enough to send."""
        self._has_missed = self._is_unflushed = self._is_flushing = self._is_parting = False
        self._abort_alarm: Timer | None = None
        self.is_closed = False
        """True once nothing more can be sent."""
        self.connection = connection
        self.caller = caller
        """Who it is."""
        self.end_reason: CloseReason | None = None
        """Why it was ended by the daemon, if it was."""
        self._crowd: FanoutGroup | None = None
        self._wrote_s = sessions.wheel.turned_s
        self._crowd_wrote_s = 0.0  # as it was when this session joined
        self.own_sent_bytes = 0
        """How much was sent to the client, except what its crowd was sent."""
        self.subscription = sessions.bus.subscribe(self, caller)

    def enter(self, patterns: Sequence[Pattern], since: str) -> None:
        """Come in, to begin with `patterns` from `since`; raise `Refused` if that cannot be."""
        self._sessions.let_in(self, patterns, since)

    def subscribe(
        self,
        patterns: Sequence[Pattern],
        since: str,
        among: Sequence[Pattern] = (),
        or_among: Sequence[Pattern] = (),
    ) -> StartPosition:
        """Subscribe to `patterns` from the position `since`; see `Subscription.add`."""
        self._leave_crowd()
        start = self.subscription.add(patterns, since, among, or_among)
        self._flush_later()
        if self.subscription.then is not None:
            self.subscription.when_tidy(self._flush_later)
        return start

    def unsubscribe(self, text: str) -> bool:
        """Unsubscribe from a channel or pattern; False if it was not subscribed to."""
        self._leave_crowd()
        was_there = self.subscription.remove(text)
        self._go_on()
        return was_there

    def revoke(self) -> list[str]:
        """Unsubscribe from what the caller may not subscribe to any more; return what that is."""
        self._leave_crowd()
        lost = self.subscription.revoke()
        self._go_on()
        return lost

    def _go_on(self) -> None:
        """Send what there is, and go on with the replay as soon as it may be read."""
        self._flush_later()
        if self.subscription.then is not None:
            self.subscription.when_tidy(self._flush_later)

    def tidied(self) -> Deferred[None] | None:
        """Return what to wait for before the client subscribes to more, None if it is nothing."""
        done: Deferred[None] = Deferred()
        return done if self.subscription.when_tidy(partial(done.callback, None)) else None

    @property
    def outbox_bytes(self) -> int:
        """How much waits to be sent to the client, in bytes."""
        return self._outbox.size

    @property
    def sent_bytes(self) -> int:
        """How much was sent to the client, in bytes."""
        return self.own_sent_bytes + (0 if self._crowd is None else self._crowd.sent_bytes)

    def wrote(self, size: int) -> None:
        """Count `size` bytes that its connection wrote by itself: how the stream begins and ends."""
        self.own_sent_bytes += size

    @property
    def wrote_s(self) -> float:
        """When something was last written to the client, by the wheel; now, while the client has enough to take."""
        if self.is_paused:
            return self._sessions.wheel.turned_s
        crowd, own_s = self._crowd, self._wrote_s
        return own_s if crowd is None or crowd.wrote_s <= self._crowd_wrote_s else max(own_s, crowd.wrote_s)

    def deliver(self, entry: Entry) -> None:
        """Take an event from the bus."""
        if entry.may_be_missed:
            self._send_or_miss(entry.frame(self._encode))
        else:
            self._send(entry.frame(self._encode))

    def send(self, frame: bytes) -> None:
        """Write `frame`, which is no event, after everything that came before it."""
        if self._sessions.bus.delivery.pending.events:
            self.subscription.take_pending()
        self._send(frame)

    def _send(self, frame: bytes) -> None:
        if self.is_closed:
            return
        if self._crowd is not None:
            self._put_anyway(self._crowd.catch_up(self))
        if self._is_flushing:
            self._outbox.put_anyway(frame)
        elif self._outbox.put(frame):
            self._flush_later()
        elif not self.is_paused:  # much was published in this turn, but the connection takes it
            self._write()
            self._outbox.put(frame)
        elif self._make_room(len(frame)):
            self._outbox.put(frame)
        else:
            self.close(CloseReason(CloseCause.TOO_SLOW, "too slow for what is published; resume from the last id"))

    def _send_or_miss(self, frame: bytes) -> None:
        """Write `frame`, if the outbox of a slow client is not full of what must not be missed."""
        if self.is_paused and not self._make_room(len(frame)):
            self._sessions.bus.missed += 1
        else:
            self._send(frame)
            self._outbox.mark()

    def _make_room(self, size: int) -> bool:
        """Throw away what may be missed, as far as it takes for `size` bytes more; False if that is not enough."""
        missed = self._outbox.make_room(size)
        if missed and not self._has_missed:
            self._has_missed = True
            _log.info("{peer} is slow and misses events: on_overflow is latest", peer=self.connection.client_name)
        self._sessions.bus.missed += missed
        return self._outbox.has_room(size)

    def _flush_later(self) -> None:
        if not self._is_unflushed and not self.is_paused:
            self._is_unflushed = True
            self._sessions.flush_later(self)

    def flush(self) -> int:
        """Write the outbox, and as much of the replay as the connection takes and may be read in one turn.

        Return as how many sends that counts.
        """
        self._is_unflushed = False
        try:
            return self._flush()
        except MemoryError:
            self._is_flushing = False
            self._outbox.clear()  # the client resumes from what was written before
            self.subscription.end_without_memory()
        return 1

    def _flush(self) -> int:
        most = left = _REPLAY_STEPS if self.subscription.is_readable else 0
        sent_before = self.own_sent_bytes
        until_s = self._sessions.wheel.seconds() + _REPLAY_S if most else 0.0
        while not self.is_paused and not self.is_closed:
            self._is_flushing = True  # what the replay sends now goes into the next write
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
        """Put the next events of the replay into the outbox; return as how many single ones they count."""
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
        self._sessions.figures.written_bytes += self._outbox.size
        self._wrote_s = self._sessions.wheel.turned_s
        self.connection.writer.write(self._outbox.take())

    def _put_anyway(self, data: bytes) -> None:
        if data:
            self._outbox.put_anyway(data)

    # The crowd: see `pushd.sessions.fanout`

    def _settle(self) -> None:
        """Be one of the crowd while nothing waits to be sent, and only then."""
        channel = self.subscription.only_channel
        assert channel is not None
        if self.is_paused or self.is_closed or not self.connection.writer.is_idle:
            self._leave_crowd()
        elif self._crowd is None and not self.subscription.is_replaying and not self.subscription.take_pending():
            crowd = self._crowd = self._sessions.crowd(channel, self._encode)
            crowd.add(self, self.connection.writer.send)
            self.subscription.join(crowd)
            self._crowd_wrote_s = crowd.wrote_s
            self.own_sent_bytes -= crowd.sent_bytes

    def _leave_crowd(self) -> None:
        """Go its own way."""
        if (crowd := self._crowd) is None:
            return
        self._wrote_s, self._crowd = self.wrote_s, None
        self.own_sent_bytes += crowd.sent_bytes
        rest = crowd.remove(self)
        if rest:  # while others are sent to in slices
            self._outbox.put_anyway(rest)
            self._flush_later()
        self.subscription.part()

    def take(self, data: bytes) -> None:
        """Send what came to the crowd, after what this session has of its own in this turn."""
        self._put_anyway(data)
        self.flush()

    def fall_behind(self, data: bytes, sent: int) -> None:
        """Leave the crowd, with what follows the first `sent` bytes of `data` still to be sent."""
        if not self.is_closed:
            self._leave_crowd()
            self.connection.writer.write_later(data, sent)

    def fail(self) -> None:
        """End: what sends to the client has raised an exception."""
        _log.failure("a fault in pushd while it wrote to {peer}", peer=self.connection.client_name)
        self.close(CloseReason(CloseCause.FAILED, "a fault in pushd; connect again to resume"))

    def close(self, reason: CloseReason) -> None:
        """End the session: what the connection has taken is still sent, and `reason` after it."""
        if reason.cause is not CloseCause.TOO_SLOW:
            self.subscription.take_pending()
        if self.is_closed:
            return
        self.end_reason = reason
        self._leave_crowd()
        if reason.cause is CloseCause.TOO_SLOW:
            self.is_closed = True
            self._sessions.figures.too_slow += len(self._outbox) + 1
            self._outbox.clear()
            self._sessions.dismiss(self, reason)
            return
        if self._outbox.size:
            self._write()
        self.farewell(reason)

    def farewell(self, reason: CloseReason) -> None:
        """Send `reason` after what was written, and end."""
        self.finish()
        self.connection.close(reason)

    def finish(self) -> None:
        """Send nothing more. The connection is closing, and is aborted if that takes too long."""
        if self._is_parting:
            return
        self._is_parting = True
        self._leave_crowd()
        if self._outbox.size and not self.is_closed:  # answers to what was received, among others
            self._write()
        self.is_closed = True
        self.subscription.close()
        self._outbox.clear()
        self._abort_alarm = self._sessions.wheel.call_in(_CLOSE_TIMEOUT_S, self.connection.abort)

    def ended(self) -> None:
        """Learn that the connection has ended, for whatever reason."""
        self._leave_crowd()
        self.is_closed = self._is_parting = True
        self.subscription.close()
        self._sessions.remove(self)
        self._outbox.clear()
        if self._abort_alarm is not None:
            self._abort_alarm.cancel()
            self._abort_alarm = None
        # without what would be cycles, all of it is freed now, and thousands of them cost the collector nothing
        self.connection = GONE
        self.subscription.forget()

    # IPushProducer

    def pauseProducing(self) -> None:
        """Wait: the connection has enough to send."""
        self.is_paused = True
        self._leave_crowd()

    def resumeProducing(self) -> None:
        """Go on: the connection has sent what it had."""
        self._wrote_s = self._sessions.wheel.turned_s
        self.is_paused = False
        if self.subscription.is_replaying and not self._sessions.resumes.take():
            self._flush_later()
        elif not self.is_closed:
            self.flush()

    def stopProducing(self) -> None:
        """Learn from the transport that it is gone; `ended` follows."""
        self.is_paused = True
        self._leave_crowd()
