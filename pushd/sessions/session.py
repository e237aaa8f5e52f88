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
from twisted.logger import Logger

from pushd.bus import (
    BYTES_PER_SEND,
    ClientInfo,
    CloseCause,
    CloseReason,
    Encoder,
    Entry,
    Pattern,
    StartPosition,
)
from pushd.sessions.fanout import FanoutGroup
from pushd.sessions.interfaces import Connection
from pushd.sessions.outbox import Outbox
from pushd.sessions.registry import CHUNK_BYTES, SessionRegistry
from pushd.sessions.subscriber_session import SubscriberSession

__all__ = ["Session"]

_log = Logger()

_REPLAY_STEPS = 100
"""Maximum number of events that a replay over many channels sends to one client in one turn."""

_REPLAY_S = 0.0015
"""Maximum time to read the events of one turn's replay, in seconds."""


class Session(SubscriberSession):
    """A session that sends bytes through one connection.

    `_is_flushing` is set while a replay fills the outbox, past its limit.
    """

    __slots__ = (
        "_encode",
        "_group",
        "_group_wrote_s",
        "_has_missed",
        "_is_flushing",
        "_outbox",
    )

    def __init__(
        self, sessions: SessionRegistry, connection: Connection, encode: Encoder, caller: ClientInfo
    ) -> None:
        """Create a session on `connection` that sends events as `encode` formats them; `enter` registers it."""
        self._encode = encode
        self._outbox = Outbox(sessions.max_outbox_bytes)
        self._has_missed = self._is_flushing = False
        self._group: FanoutGroup | None = None
        self._group_wrote_s = 0.0  # the group's `wrote_s` when this session joined
        super().__init__(sessions, connection, caller)

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

    def tidied(self) -> Deferred[None] | None:
        """Return a Deferred to wait for before the client subscribes to more; None if there is no need to wait."""
        done: Deferred[None] = Deferred()
        return done if self.subscription.when_tidy(partial(done.callback, None)) else None

    @property
    def outbox_bytes(self) -> int:
        """Override: the size of the outbox."""
        return self._outbox.size

    @property
    def sent_bytes(self) -> int:
        """Override: count those sent through the group, too."""
        return self.own_sent_bytes + (0 if self._group is None else self._group.sent_bytes)

    @property
    def wrote_s(self) -> float:
        """Override: count the writes of the group, too."""
        if self.is_paused:
            return self._sessions.wheel.turned_s
        group, own_s = self._group, self._wrote_s
        return own_s if group is None or group.wrote_s <= self._group_wrote_s else max(own_s, group.wrote_s)

    def deliver(self, entry: Entry) -> None:
        """Override: put the frame of the event into the outbox."""
        if entry.may_be_missed:
            self._send_or_miss(entry.frame(self._encode))
        else:
            self._send(entry.frame(self._encode))

    def send(self, frame: bytes) -> None:
        """Override: send the pending events before it."""
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

    def _flush(self) -> int:
        """Override: write the outbox and the replay."""
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
        if (
            most
            and not self.subscription.when_tidy(self._flush_later)
            and left <= 0
            and self.subscription.is_replaying
        ):
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

    # The end: see `SubscriberSession`

    def _give_up(self) -> int:
        """Override: leave the group, too, and discard the outbox now."""
        self._leave_group()
        count = len(self._outbox)
        self._outbox.clear()
        return count

    def _send_rest(self) -> None:
        """Override: such as replies to received commands."""
        self._leave_group()
        if self._outbox.size:
            self._write()

    def _discard(self) -> None:
        """Override: leave the group, too."""
        self._leave_group()
        self._is_flushing = False
        self._outbox.clear()

    # IPushProducer

    def pauseProducing(self) -> None:
        """Override: leave the group, too."""
        self.is_paused = True
        self._leave_group()

    def resumeProducing(self) -> None:
        """Override: flush, now if not many replays continue at once."""
        super().resumeProducing()
        if self.subscription.is_replaying and not self._sessions.resumes.take():
            self._flush_later()
        elif not self.is_closed:
            self.flush()
