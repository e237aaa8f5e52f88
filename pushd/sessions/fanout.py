"""The crowd: subscribers of one channel that keep up, and get the same bytes.

Most subscribers are alike: they follow one channel, take everything at once, and speak the same format. What is
published is put together once for all of them, and at the end of the reactor's turn their sockets are written
to, one after the other; nothing else is done for each. Who falls behind, or wants something else, goes its own
way until it has caught up: see `pushd.sessions.session`.

The members of a large crowd are sent to in slices, with turns of the reactor in between. A member that leaves or
sends something of its own between two slices gets what is being sent first. Events that are published meanwhile
wait until all members have what is being sent, and then go out together. A large event counts as many sends: it is
sent to few members in one turn, and is not copied for those that are slow.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from math import ceil, inf
from typing import Protocol

from pushd.bus import BYTES_PER_SEND, MOST, STEP, Counters, Encoder, Entry, Group, Slice, Subscription
from pushd.server import Send, TimerWheel

__all__ = ["LONG_S", "SHORT_S", "FanoutGroup", "FanoutMember"]

LONG_S, _LONG_SLICES = 0.008, 3
"""A piece that can probably be sent in so many slices of so many seconds is sent in these, which are cheaper: for
1,000 members it is one, or two over TLS. Short slices would make that 5 % dearer."""

_LONG_STEP = 100
"""After how many sends of such a slice the clock is read; over TLS that is about 1.5 ms."""

_LATEST_S = 0.014
"""When such a slice ends at the latest, if sending takes longer than before."""

_MOST_WAITING = 16
"""How many times as much as publishers wait for may wait for a crowd."""

SHORT_S = 0.001
"""How long a slice takes otherwise, so that others hardly wait for a crowd of many thousands."""


class FanoutMember(Protocol):
    """One of the crowd, to whom nothing waits to be sent."""

    subscription: Subscription

    own_sent_bytes: int
    """How much it was sent that is not counted by the crowd."""

    def take(self, data: bytes) -> None:
        """Send `data`, after what it has of its own in this turn."""

    def fall_behind(self, data: bytes, sent: int) -> None:
        """Leave the crowd, with what follows the first `sent` bytes of `data` still to be sent."""

    def fail(self) -> None:
        """Leave the crowd: an exception was raised by what sends, and it can be logged now."""


_Sends = Iterator[tuple[FanoutMember, Send]]


class FanoutGroup:
    """A group of subscribers, for the bus one recipient: a `pushd.bus.subscription.Group`."""

    __slots__ = (
        "__weakref__",
        "_ahead",
        "_cost",
        "_crowded",
        "_encode",
        "_figures",
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
        figures: Counters,
        crowded: set[Group],
        *,
        max_bytes: int,
        max_waiting_bytes: int,
    ) -> None:
        """Begin without members, who get what `encode` makes.

        `flush_later` has `flush` called at the end of the turn. More than `max_bytes` does not wait for that, but
        while a piece is being sent in slices, up to `max_waiting_bytes` wait for its end. While there is more, this
        is in `crowded`, and publishers wait. `wheel` has the clock. What is sent is counted in `figures`.
        """
        self._encode = encode
        self._figures = figures
        self._crowded = crowded
        self._wheel = wheel
        self._max_bytes = max_bytes
        self._max_waiting_bytes = max_waiting_bytes
        self._flush_later = flush_later
        self._is_due = False
        self._members: dict[FanoutMember, Send] = {}
        self._gone: list[FanoutMember] | None = None  # who left while the others are being sent to
        self._ahead: dict[FanoutMember, int] = {}  # who has so many of the frames already
        self._frames: list[bytes] = []
        self._size = 0
        self._unserved: dict[FanoutMember, Send] = {}  # who has not got the piece that is being sent in slices
        self._send_s = inf  # how long one of the sends took that the last piece counted as, without interruptions
        self._cost = 1  # as how many sends the piece counts, for each member
        self._within_s, self._most = SHORT_S, MOST  # how much of the piece is sent in one turn
        self._piece = b""
        self._piece_frames: list[bytes] = []  # what it consists of, if somebody is ahead
        self._piece_ahead: dict[FanoutMember, int] = {}  # who has so many of these already
        self.wrote_s = wheel.turned_s
        """When something was last sent."""
        self.sent_bytes = 0
        """How much was sent to who was a member all the time."""

    @property
    def subscriptions(self) -> Iterable[Subscription]:
        """Those of all members."""
        return [member.subscription for member in self._members]

    def add(self, member: FanoutMember, send: Send) -> None:
        """Let in a member. What waits for the end of the turn, or is being sent, is not for it."""
        self._members[member] = send
        if self._frames:
            self._ahead[member] = len(self._frames)

    def remove(self, member: FanoutMember) -> bytes:
        """Let a member go; return what it is still to get."""
        rest = b"".join(self._frames[self._ahead.pop(member, 0) :])
        if member in self._unserved:
            rest = self._take_out(member) + rest
        if self._gone is None:
            del self._members[member]
        else:
            self._gone.append(member)
        return rest

    def catch_up(self, member: FanoutMember) -> bytes:
        """Return what a member is still to get, so that something of its own can follow in this turn."""
        rest = b"".join(self._frames[self._ahead.get(member, 0) :])
        if member in self._unserved:
            rest = self._take_out(member) + rest
        self._ahead[member] = len(self._frames)
        return rest

    def _take_out(self, member: FanoutMember) -> bytes:
        """Return what a member is to get of the piece being sent, which is not sent to it any more."""
        del self._unserved[member]
        ahead = self._piece_ahead.pop(member, None)
        if ahead is not None:
            return b"".join(self._piece_frames[ahead:])
        member.own_sent_bytes -= len(self._piece)  # it sends that itself, and counts it
        self._figures.written_bytes -= len(self._piece)
        return self._piece

    def deliver(self, entry: Entry) -> None:
        """Take an event from the bus, for all members."""
        frame = entry.frame(self._encode)
        if not self._is_due:
            self._is_due = True
            self._flush_later(self)
        self._frames.append(frame)
        self._size += len(frame)
        if self._size > self._max_bytes:
            self._send_early()

    def _send_early(self) -> None:
        """Send what is too much to wait for the end of the turn, or for that of the piece at hand.

        Of the piece at hand, as much is sent as the turn has time for. What comes nevertheless is bounded: by what
        publishers have in one transaction, and, for events that nobody publishes, such as joins, by sending all.
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
        """Send every member what has come together, as one piece, or go on with that.

        Return as how many sends that counts.
        """
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
        """Send what has come together: to all members, or, if that counts as many sends, to the first of them."""
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
        self._figures.written_bytes += size * len(self._members)
        self._gone = []
        for member, send in self._members.items():
            try:
                sent = send(data)
            except OSError:
                sent = 0  # the kernel takes nothing now, or never again
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
        """Make a piece of the frames that have come: about `max_bytes`, as members may take no more at once."""
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
        self._figures.written_bytes += size * (len(self._members) - len(ahead))
        for member in ahead:
            member.own_sent_bytes -= size

    def _send_some(self) -> int:
        """Send the piece to some of those who have not got it, or to all if that is quick.

        Return as how many sends that counts.
        """
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
        """Send the piece until time is over or many fall behind: the cheapest way. It copies who is left then."""
        rest, left = iter(self._unserved.items()), len(self._unserved)
        self._unserved = {}  # not to be changed: it may be `_members`
        behind = list[tuple[FanoutMember, int]]()
        step = -(-_LONG_STEP // self._cost)
        while left > 0 and part.left > 0 and len(behind) < STEP and not self._unserved:
            count = min(step, left)
            self._send_step(islice(rest, count), count, rest, behind, part)
            left -= count
        self._unserved.update(rest)
        _let_behind(behind, self._piece)

    def _send_few(self, part: Slice) -> None:
        """Send the piece in a short slice, of which there are many."""
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
        """Send the piece to each of the `count` in `step`; add to `behind` who does not take all of it.

        `rest` has everybody who comes after one that is being sent to.
        """
        data, seconds = self._piece, self._wheel.seconds
        size, began_s = len(data), seconds()
        for member, send in step:
            try:
                sent = send(data)
            except OSError:
                sent = 0
            except Exception:  # noqa: BLE001
                self._unserved.update(rest)  # its end may have something else sent, and this comes before
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
    """Let those go who have not taken all of `data`, and forget them."""
    while behind:
        member, sent = behind.pop()
        member.fall_behind(data, sent)
