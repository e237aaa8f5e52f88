"""What is sent next: the queues of the streams, by urgency (RFC 9218) and windows."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from enum import Enum, auto
from operator import itemgetter
from typing import Generic, Protocol, TypeVar

from pushd.server.http2.priority import LEVELS

__all__ = ["Next", "Outgoing", "Scheduler", "Sender"]

_QUANTUM_BYTES = 64 * 1024
"""How much a stream may send before others of the same urgency have their turn."""


class Outgoing:
    """The bytes that one stream has to send. What is large is not copied; what is small is joined."""

    __slots__ = ("_chunks", "size")

    def __init__(self) -> None:
        self._chunks: deque[bytes | memoryview] = deque()
        self.size = 0
        """How many they are."""

    def put(self, data: bytes) -> None:
        """Add `data` at the end."""
        self._chunks.append(data)
        self.size += len(data)

    def take(self, most: int) -> bytes | memoryview:
        """Take out what comes next, up to `most` bytes, as one piece."""
        chunks = self._chunks
        first = chunks.popleft()
        size = len(first)
        if size > most:
            view = memoryview(first)
            chunks.appendleft(view[most:])
            self.size -= most
            return view[:most]
        if not chunks or size + len(chunks[0]) > most:
            self.size -= size
            return first
        parts = [first]
        while chunks and size + len(chunks[0]) <= most:
            part = chunks.popleft()
            parts.append(part)
            size += len(part)
        self.size -= size
        return b"".join(parts)

    def clear(self) -> None:
        """Throw everything away."""
        self._chunks.clear()
        self.size = 0


class Next(Enum):
    """What a stream does after its turn."""

    AGAIN = auto()
    """It has more that can be sent."""

    WINDOW = auto()
    """It has more, which the client has to make room for."""

    NOTHING = auto()
    """It has sent what it had."""


class Sender(Protocol):
    """A stream."""

    urgency: int

    outgoing: Outgoing
    """What it has to send."""

    def send(self, most: int) -> tuple[int, Next]:
        """Send, of DATA `most` bytes at most; return how many were sent, and what is next."""


SenderT = TypeVar("SenderT", bound=Sender)


class Scheduler(Generic[SenderT]):
    """The streams that have something to send.

    Of those that can, the more urgent come first; those of one urgency take turns, whether their responses
    are incremental or not, so that no download stops an event stream.
    """

    __slots__ = ("_failed", "_levels", "_seconds", "_turns", "_waiting")

    def __init__(self, seconds: Callable[[], float], failed: Callable[[SenderT], None]) -> None:
        """Take the time from `seconds`; call `failed` in an ``except`` when a stream raises."""
        self._seconds = seconds
        self._failed = failed
        self._levels: tuple[dict[SenderT, None], ...] = tuple({} for _ in range(LEVELS))
        self._waiting: dict[SenderT, float] = {}
        self._turns: dict[SenderT, int] = {}  # what is left of turns that a window has cut short

    def end(self) -> None:
        """Have nobody send any more. `failed` may belong to what refers to this scheduler."""
        self._failed = _nothing
        self._waiting.clear()
        self._turns.clear()
        for level in self._levels:
            level.clear()

    @property
    def has_ready(self) -> bool:
        """Return whether some stream can send."""
        return any(self._levels)

    @property
    def waiting(self) -> int:
        """How many streams wait for their windows."""
        return len(self._waiting)

    @property
    def unsent_bytes(self) -> int:
        """How much there is to send, by all of them."""
        size = 0
        some: tuple[Iterable[SenderT], ...] = (self._waiting, *self._levels)
        for senders in some:
            for sender in senders:
                size += sender.outgoing.size
        return size

    def add(self, sender: SenderT) -> None:
        """Give a stream its turn, unless it has to wait for its window."""
        if sender not in self._waiting:
            self._levels[sender.urgency][sender] = None

    def discard(self, sender: SenderT) -> None:
        """Take out a stream that is over."""
        self._waiting.pop(sender, None)
        self._turns.pop(sender, None)
        self._levels[sender.urgency].pop(sender, None)

    def move(self, sender: SenderT, urgency: int) -> None:
        """Make a stream more or less urgent."""
        level = self._levels[sender.urgency]
        sender.urgency = urgency
        if sender in level:
            del level[sender]
            self._levels[urgency][sender] = None

    def opened(self, sender: SenderT) -> None:
        """Let a stream whose window has changed try again. Its wait goes on if it still cannot send."""
        if sender in self._waiting:
            self._levels[sender.urgency][sender] = None

    def all_opened(self) -> None:
        """Let every stream try again, before those that have not waited: pushed events stay in order."""
        if not self._waiting:
            return
        others = [dict(level) for level in self._levels]
        for level in self._levels:
            level.clear()
        for sender in self._waiting:
            self._levels[sender.urgency][sender] = None
        for level, other in zip(self._levels, others, strict=True):
            level.update(other)

    def stalled(self, since: float) -> Iterator[SenderT]:
        """Return the streams that wait since before `since`, those that have waited longest first."""
        for sender, began in sorted(self._waiting.items(), key=itemgetter(1)):
            if began > since:
                break
            yield sender

    def run(self, budget: int) -> None:
        """Have streams send, until none can or `budget` bytes of DATA were sent."""
        for level in self._levels:
            while level:
                if budget <= 0:
                    return
                sender = next(iter(level))
                del level[sender]
                turn = self._turns.pop(sender, _QUANTUM_BYTES) if self._turns else _QUANTUM_BYTES
                try:
                    sent, after = sender.send(min(turn, budget))
                except Exception:  # noqa: BLE001  a producer that fails must not stop the other streams
                    self._failed(sender)
                    continue
                budget -= sent
                if after is Next.WINDOW:
                    self._wait(sender, sent, turn - sent)
                    continue
                self._waiting.pop(sender, None)
                if after is Next.AGAIN:
                    level[sender] = None

    def _wait(self, sender: SenderT, sent: int, left: int) -> None:
        """Have a stream wait for its window; if it has `left` some of its turn, in the place where it is."""
        if left <= 0:
            self._waiting.pop(sender, None)
        elif left < _QUANTUM_BYTES:
            self._turns[sender] = left
        if sent or sender not in self._waiting:
            self._waiting[sender] = self._seconds()  # with each byte, the time that it waits begins anew


def _nothing(sender: object) -> None:
    """Tell nobody."""
