"""The crowd: subscribers of one channel that keep up, and get the same bytes.

Most subscribers are alike: they follow one channel, take everything at once, and speak the same format. What is
published is put together once for all of them, and at the end of the reactor's turn their sockets are written
to, one after the other; nothing else is done for each. Who falls behind, or wants something else, goes its own
way until it has caught up: see `pushd.session`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Protocol

from pushd.event import Encoder, Entry
from pushd.figures import Figures
from pushd.subscription import Subscription
from pushd.writethrough import Send

__all__ = ["Crowd", "Member"]


class Member(Protocol):
    """One of the crowd, to whom nothing waits to be sent."""

    subscription: Subscription

    own_sent_bytes: int
    """How much it was sent that is not counted by the crowd."""

    def take(self, data: bytes) -> None:
        """Send `data`, after what it has of its own in this turn."""

    def fall_behind(self, rest: bytes) -> None:
        """Leave the crowd, with `rest` still to be sent."""

    def fail(self) -> None:
        """Leave the crowd: an exception was raised by what sends, and it can be logged now."""


class Crowd:
    """A group of subscribers, for the bus one recipient: a `pushd.subscription.Group`."""

    __slots__ = (
        "__weakref__",
        "_ahead",
        "_encode",
        "_figures",
        "_flush_later",
        "_frames",
        "_gone",
        "_max_bytes",
        "_members",
        "_size",
        "heard",
        "sent_bytes",
    )

    def __init__(
        self, encode: Encoder, flush_later: Callable[[Crowd], None], max_bytes: int, figures: Figures
    ) -> None:
        """Begin without members, who get what `encode` makes.

        `flush_later` has `flush` called at the end of the turn. More than `max_bytes` does not wait for that. What
        is sent is counted in `figures`.
        """
        self._encode = encode
        self._figures = figures
        self._max_bytes = max_bytes
        self._flush_later = flush_later
        self._members: dict[Member, Send] = {}
        self._gone: list[Member] | None = None  # who left while the others are being sent to
        self._ahead: dict[Member, int] = {}  # who has so many of the frames already
        self._frames: list[bytes] = []
        self._size = 0
        self.heard = 0
        """How many events have come."""
        self.sent_bytes = 0
        """How much was sent to who was a member all the time."""

    @property
    def subscriptions(self) -> Iterable[Subscription]:
        """Those of all members."""
        return [member.subscription for member in self._members]

    def add(self, member: Member, send: Send) -> None:
        """Let in a member. What waits for the end of the turn is not for it."""
        self._members[member] = send
        if self._frames:
            self._ahead[member] = len(self._frames)

    def remove(self, member: Member) -> bytes:
        """Let a member go; answer what it is still to get."""
        rest = b"".join(self._frames[self._ahead.pop(member, 0) :])
        if self._gone is None:
            del self._members[member]
        else:
            self._gone.append(member)
        return rest

    def catch_up(self, member: Member) -> bytes:
        """Answer what a member is still to get, so that something of its own can follow in this turn."""
        rest = b"".join(self._frames[self._ahead.get(member, 0) :])
        self._ahead[member] = len(self._frames)
        return rest

    def deliver(self, entry: Entry) -> None:
        """Take an event from the bus, for all members."""
        frame = entry.frame(self._encode)
        if not self._frames:
            self._flush_later(self)
        self._frames.append(frame)
        self._size += len(frame)
        self.heard += 1
        if self._size > self._max_bytes:
            self.flush()

    def flush(self) -> None:
        """Send every member what has come together, as one piece."""
        frames, self._frames, self._size = self._frames, [], 0
        if not frames:
            return
        ahead, self._ahead = self._ahead, {}
        apart = [(member, self._members.pop(member)) for member in ahead]
        before = self.sent_bytes
        self._send(frames[0] if len(frames) == 1 else b"".join(frames))
        self._members.update(apart)
        for member, count in ahead.items():
            member.own_sent_bytes -= self.sent_bytes - before
            if count < len(frames):
                member.take(b"".join(frames[count:]))

    def _send(self, data: bytes) -> None:
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
        for member, sent in behind:
            member.fall_behind(data[sent:])
