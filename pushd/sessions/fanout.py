"""Fan-out group: subscribers of one channel that receive identical bytes and have no backlog.

Most subscribers are alike: they follow one channel, have no backlog, and use the same format. The group joins the
frames of a turn once for all members, and at the end of the reactor's turn writes them to each socket in turn;
this fast path saves all other work per subscriber. The slow path is the outbox of `pushd.sessions.session`: a
member with a backlog or another subscription uses it until it has caught up.

A large group is served in slices, with turns of the reactor in between. A member that leaves or sends a frame of
its own between two slices gets the current piece first. Events published meanwhile wait until all members have the
current piece, and then go out together. A large event costs as many sends: it is sent to few members in one turn,
and is not copied for slow members.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from math import ceil, inf
from typing import ClassVar, Protocol

from pushd.bus import BYTES_PER_SEND, MOST, STEP, Counters, Encoder, Entry, Recipient, Slice, Subscription
from pushd.server import Send, TimerWheel

__all__ = ["LONG_S", "SHORT_S", "FanoutGroup", "FanoutMember"]

LONG_S, _LONG_SLICES = 0.008, 3
"""Length of a long slice in seconds, and the maximum number of them for one piece. Long slices are cheaper: 1,000
members need one, or two over TLS; short slices would cost 5 % more."""

_LONG_STEP = 100
"""Sends between two readings of the clock in a long slice; about 1.5 ms over TLS."""

_LATEST_S = 0.014
"""Maximum length of a long slice in seconds, if sending takes longer than estimated."""

_MOST_WAITING = 16
"""A group sends at once when its backlog exceeds this many times the size at which publishers wait."""

SHORT_S = 0.001
"""Length of a short slice in seconds; short, so that other clients hardly wait for a group of many thousands."""


class FanoutMember(Protocol):
    """A member of the group: a subscriber without a backlog."""

    subscription: Subscription

    own_sent_bytes: int
    """Bytes sent to the member that the group does not count."""

    def take(self, data: bytes) -> None:
        """Send `data`, after the member's own frames of this turn."""

    def fall_behind(self, data: bytes, sent: int) -> None:
        """Called when only the first `sent` bytes of `data` were accepted: leave the group, queue the rest."""

    def fail(self) -> None:
        """Called in the handler of an exception that sending raised: log it and leave the group."""


_Sends = Iterator[tuple[FanoutMember, Send]]


class FanoutGroup:
    """Subscribers that the bus treats as one recipient: a `pushd.bus.recipients.Recipient`."""

    is_group: ClassVar = True

    __slots__ = (
        "__weakref__",
        "_ahead",
        "_cost",
        "_counters",
        "_crowded",
        "_encode",
        "_flush_later",
        "_frames",
        "_gone",
        "_is_due",
        "_max_bytes",
        "_max_waiting_bytes",
        "_members",
        "_most",
        "_piece",
        "_piece_ahead",
        "_piece_frames",
        "_send_s",
        "_size",
        "_unserved",
        "_wheel",
        "_within_s",
        "sent_bytes",
        "wrote_s",
    )

    def __init__(
        self,
        encode: Encoder,
        flush_later: Callable[[FanoutGroup], None],
        wheel: TimerWheel,
        counters: Counters,
        crowded: set[Recipient],
        *,
        max_bytes: int,
        max_waiting_bytes: int,
    ) -> None:
        """Create a group without members; `encode` formats their events.

        `flush_later` calls `flush` at the end of the turn. A backlog over `max_bytes` is sent earlier, except that
        up to `max_waiting_bytes` wait while a piece is sent in slices. Above that, the group is in `crowded`, and
        publishers wait. `wheel` provides the clock; `counters` counts the bytes sent.
        """
        self._encode = encode
        self._counters = counters
        self._crowded = crowded
        self._wheel = wheel
        self._max_bytes = max_bytes
        self._max_waiting_bytes = max_waiting_bytes
        self._flush_later = flush_later
        self._is_due = False
        self._members: dict[FanoutMember, Send] = {}
        self._gone: list[FanoutMember] | None = None  # members that left during `_send`
        self._ahead: dict[FanoutMember, int] = {}  # number of frames a member already has
        self._frames: list[bytes] = []
        self._size = 0
        self._unserved: dict[FanoutMember, Send] = {}  # members without the current piece
        self._send_s = inf  # shortest mean time of one send of the last piece, in seconds
        self._cost = 1  # cost of the piece for each member, in sends
        self._within_s, self._most = SHORT_S, MOST  # limits of one slice: seconds, sends
        self._piece = b""
        self._piece_frames: list[bytes] = []  # the frames of the piece, if a member is ahead
        self._piece_ahead: dict[FanoutMember, int] = {}  # number of these a member already has
        self.wrote_s = wheel.turned_s
        """Time of the last send, by the timer wheel."""
        self.sent_bytes = 0
        """Bytes sent to each member since the group was created."""

    @property
    def subscriptions(self) -> Iterable[Subscription]:
        """Return the subscriptions of all members."""
        return [member.subscription for member in self._members]

    def add(self, member: FanoutMember, send: Send) -> None:
        """Add a member. It does not get the frames that already wait or are being sent."""
        self._members[member] = send
        if self._frames:
            self._ahead[member] = len(self._frames)

    def remove(self, member: FanoutMember) -> bytes:
        """Remove a member; return the bytes that it has not received yet."""
        rest = b"".join(self._frames[self._ahead.pop(member, 0) :])
        if member in self._unserved:
            rest = self._take_out(member) + rest
        if self._gone is None:
            del self._members[member]
        else:
            self._gone.append(member)
        return rest

    def catch_up(self, member: FanoutMember) -> bytes:
        """Return the bytes that a member has not received yet, so that its own frame can follow this turn."""
        rest = b"".join(self._frames[self._ahead.get(member, 0) :])
        if member in self._unserved:
            rest = self._take_out(member) + rest
        self._ahead[member] = len(self._frames)
        return rest

    def _take_out(self, member: FanoutMember) -> bytes:
        """Exclude a member from the current piece; return the bytes of the piece that it has not received yet."""
        del self._unserved[member]
        ahead = self._piece_ahead.pop(member, None)
        if ahead is not None:
            return b"".join(self._piece_frames[ahead:])
        member.own_sent_bytes -= len(self._piece)  # the member sends and counts the piece itself
        self._counters.written_bytes -= len(self._piece)
        return self._piece

    def deliver(self, entry: Entry) -> None:
        """Called by the bus with an event for all members."""
        frame = entry.frame(self._encode)
        if not self._is_due:
            self._is_due = True
            self._flush_later(self)
        self._frames.append(frame)
        self._size += len(frame)
        if self._size > self._max_bytes:
            self._send_early()

    def _send_early(self) -> None:
        """Send a backlog that is too large to wait for the end of the turn or of the current piece.

        The current piece is sent as far as the turn has time. Two limits bound the backlog all the same: the
        transaction of a publisher, and, for events without a publisher such as joins, sending everything.
        """
        if self._unserved:
            if self._size <= self._max_waiting_bytes:
                return
            self._crowded.add(self)
            is_too_much = self._size > _MOST_WAITING * self._max_waiting_bytes
            if self._wheel.reactor_turn.is_over and not is_too_much:
                return
            self._send_some()
            while self._unserved and is_too_much:
                self._send_some()
            if self._unserved:
                return
        self._send_waiting()

    def flush(self) -> int:
        """Send the waiting frames to every member as one piece, or continue the current piece; return the cost."""
        self._is_due = False
        try:
            return self._send_some() if self._unserved else self._send_waiting()
        finally:
            if self._crowded and self._size <= self._max_waiting_bytes:
                self._crowded.discard(self)
            if (self._unserved or self._frames) and not self._is_due:
                self._is_due = True
                self._flush_later(self)

    def _send_waiting(self) -> int:
        """Send the waiting frames to all members, or, if that costs too many sends, only to the first slice."""
        cost = len(self._members) * (1 + self._size // BYTES_PER_SEND)
        if cost > MOST:
            self._begin_piece()
            return self._send_some() if self._unserved else 0
        frames, self._frames, self._size = self._frames, [], 0
        if not frames:
            return 0
        ahead, self._ahead = self._ahead, {}
        apart = [(member, self._members.pop(member)) for member in ahead]
        before = self.sent_bytes
        self._send(frames[0] if len(frames) == 1 else b"".join(frames))
        self._members.update(apart)
        for member, count in ahead.items():
            member.own_sent_bytes -= self.sent_bytes - before
            member.take(b"".join(frames[count:]))
        return cost

    def _send(self, data: bytes) -> None:
        self.wrote_s = self._wheel.turned_s
        size, behind = len(data), []
        self.sent_bytes += size
        self._counters.written_bytes += size * len(self._members)
        self._gone = []
        for member, send in self._members.items():
            try:
                sent = send(data)
            except OSError:
                sent = 0  # the socket buffer is full, or the connection has ended
            except Exception:  # noqa: BLE001  one that fails must not stop the others
                member.fail()
                continue
            if sent != size:
                behind.append((member, sent))
        gone, self._gone = self._gone, None
        for member in gone:
            del self._members[member]
        _let_behind(behind, data)

    # In slices

    def _begin_piece(self) -> None:
        """Join waiting frames into a piece of about `max_bytes`, as sockets may accept no more at once."""
        frames, size, count = self._frames, 0, 0
        while count < len(frames) and size < self._max_bytes:
            size += len(frames[count])
            count += 1
        if not count:
            return
        piece, self._frames = frames[:count], frames[count:]
        self._size -= size
        ahead, self._ahead = self._ahead, {}
        self._piece = b"".join(piece)
        self._piece_frames = piece if ahead else []
        self._piece_ahead = {member: min(has, count) for member, has in ahead.items()}
        self._ahead = {member: has - count for member, has in ahead.items() if has > count}
        self._cost, self._within_s, self._most = 1 + size // BYTES_PER_SEND, SHORT_S, MOST
        sends = len(self._members) * self._cost
        slices = sends * self._send_s / LONG_S
        if slices <= _LONG_SLICES:
            self._within_s, self._most = _LATEST_S, -(-sends // max(1, ceil(slices)))
        self._send_s = inf
        self._unserved = self._members if slices <= _LONG_SLICES and not ahead else dict(self._members)
        self.wrote_s = self._wheel.turned_s
        self.sent_bytes += size
        self._counters.written_bytes += size * (len(self._members) - len(ahead))
        for member in ahead:
            member.own_sent_bytes -= size

    def _send_some(self) -> int:
        """Send the piece to the next slice of members, or to all if that is quick; return the cost, in sends."""
        before, part = len(self._unserved), Slice(self._wheel.reactor_turn, self._within_s, self._most)
        ahead = self._piece_ahead
        while ahead and part.left > 0:
            member, has = ahead.popitem()
            del self._unserved[member]
            member.take(b"".join(self._piece_frames[has:]))
            part.spend(self._cost)
        if self._within_s == _LATEST_S:
            self._send_on(part)
        else:
            self._send_few(part)
        if not self._unserved:
            self._piece, self._piece_frames = b"", []
        return (before - len(self._unserved)) * self._cost

    def _send_on(self, part: Slice) -> None:
        """Send the piece in a long slice, until time is over or many members fall behind.

        This is the fast path: it copies the remaining members once, at the end. `_send_few` is the slow path.
        """
        rest, left = iter(self._unserved.items()), len(self._unserved)
        self._unserved = {}  # a new dict, as the old one may be `_members`
        behind = list[tuple[FanoutMember, int]]()
        step = -(-_LONG_STEP // self._cost)
        while left > 0 and part.left > 0 and len(behind) < STEP and not self._unserved:
            count = min(step, left)
            self._send_step(islice(rest, count), count, rest, behind, part)
            left -= count
        self._unserved.update(rest)
        _let_behind(behind, self._piece)

    def _send_few(self, part: Slice) -> None:
        """Send the piece in one of many short slices."""
        unserved, behind = self._unserved, list[tuple[FanoutMember, int]]()
        most = -(-STEP // self._cost)
        while unserved and part.left > 0:
            count = min(most, len(unserved))
            step = iter([unserved.popitem() for _ in range(count)])
            self._send_step(step, count, step, behind, part)
            _let_behind(behind, self._piece)

    def _send_step(
        self, step: _Sends, count: int, rest: _Sends, behind: list[tuple[FanoutMember, int]], part: Slice
    ) -> None:
        """Send the piece to each of the `count` members in `step`; add to `behind` those that fall behind.

        `rest` yields the members after the current one.
        """
        data, seconds = self._piece, self._wheel.seconds
        size, began_s = len(data), seconds()
        for member, send in step:
            try:
                sent = send(data)
            except OSError:
                sent = 0
            except Exception:  # noqa: BLE001
                self._unserved.update(rest)  # `fail` may send them another frame, which must follow the piece
                _let_behind(behind, data)
                member.fail()
                return
            if sent != size:
                behind.append((member, sent))
        cost = count * self._cost
        if cost >= STEP:
            self._send_s = min(self._send_s, (seconds() - began_s) / cost)
        part.spend(cost)


def _let_behind(behind: list[tuple[FanoutMember, int]], data: bytes) -> None:
    """Remove the members that have not accepted all of `data`, and empty `behind`."""
    while behind:
        member, sent = behind.pop()
        member.fall_behind(data, sent)
