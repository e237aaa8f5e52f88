"""The scheduler: queues of streams, by urgency (RFC 9218) and flow-control window."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from enum import Enum, auto
from operator import itemgetter
from typing import Generic, Protocol, TypeVar

from pushd.server.http2.priority import LEVELS

__all__ = ["Next", "Outgoing", "Scheduler", "Sender"]

_QUANTUM_BYTES = 64 * 1024
"""How many bytes a stream may send before the next stream of the same urgency."""


class Outgoing:
    """The unsent bytes of one stream. Large chunks are not copied; small ones are joined."""

    __slots__ = ("_chunks", "size")

    def __init__(self) -> None:
        self._chunks: deque[bytes | memoryview] = deque()
        self.size = 0
        """The number of bytes."""

    def put(self, data: bytes) -> None:
        """Add `data` at the end."""
        self._chunks.append(data)
        self.size += len(data)

    def take(self, most: int) -> bytes | memoryview:
        """Remove and return the next bytes, up to `most`, as one piece."""
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
        """Discard all bytes."""
        self._chunks.clear()
        self.size = 0


class Next(Enum):
    """The state of a stream after its turn."""

    AGAIN = auto()
    """More can be sent now."""

    WINDOW = auto()
    """More can be sent once the client opens the flow-control window."""

    NOTHING = auto()
    """Nothing is left to send."""


class Sender(Protocol):
    """Interface of a stream."""

    urgency: int

    outgoing: Outgoing
    """The unsent bytes."""

    def send(self, most: int) -> tuple[int, Next]:
        """Send up to `most` bytes of DATA; return the number of bytes sent and the next state."""


SenderT = TypeVar("SenderT", bound=Sender)


class Scheduler(Generic[SenderT]):
    """The streams with unsent data.

    More urgent streams send first. Streams of one urgency take turns, whether their responses are incremental
    or not, so that no download blocks an event stream.
    """

    __slots__ = ("_failed", "_levels", "_seconds", "_turns", "_waiting")

    def __init__(self, seconds: Callable[[], float], failed: Callable[[SenderT], None]) -> None:
        """Read the time from `seconds`; call `failed`, within an ``except``, when a stream raises."""
        self._seconds = seconds
        self._failed = failed
        self._levels: tuple[dict[SenderT, None], ...] = tuple({} for _ in range(LEVELS))
        self._waiting: dict[SenderT, float] = {}
        self._turns: dict[SenderT, int] = {}  # bytes left of turns that a window has cut short

    def end(self) -> None:
        """Stop sending. Drop `failed`, whose owner may refer to this scheduler: a reference cycle."""
        self._failed = _nothing
        self._waiting.clear()
        self._turns.clear()
        for level in self._levels:
            level.clear()

    @property
    def has_ready(self) -> bool:
        """Whether any stream can send."""
        return any(self._levels)

    @property
    def waiting(self) -> int:
        """The number of streams that wait for their flow-control windows."""
        return len(self._waiting)

    @property
    def unsent_bytes(self) -> int:
        """The unsent bytes of all streams."""
        size = 0
        some: tuple[Iterable[SenderT], ...] = (self._waiting, *self._levels)
        for senders in some:
            for sender in senders:
                size += sender.outgoing.size
        return size

    def add(self, sender: SenderT) -> None:
        """Queue a stream, unless it waits for its flow-control window."""
        if sender not in self._waiting:
            self._levels[sender.urgency][sender] = None

    def discard(self, sender: SenderT) -> None:
        """Remove a stream that has ended."""
        self._waiting.pop(sender, None)
        self._turns.pop(sender, None)
        self._levels[sender.urgency].pop(sender, None)

    def move(self, sender: SenderT, urgency: int) -> None:
        """Set the urgency of a stream."""
        level = self._levels[sender.urgency]
        sender.urgency = urgency
        if sender in level:
            del level[sender]
            self._levels[urgency][sender] = None

    def opened(self, sender: SenderT) -> None:
        """Queue a stream whose flow-control window changed. Its wait continues if it still cannot send."""
        if sender in self._waiting:
            self._levels[sender.urgency][sender] = None

    def all_opened(self) -> None:
        """Queue all waiting streams before those that have not waited, so that pushed events stay in order."""
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
        """Yield the streams that have waited since `since` or longer, longest wait first."""
        for sender, began in sorted(self._waiting.items(), key=itemgetter(1)):
            if began > since:
                break
            yield sender

    def run(self, budget: int) -> None:
        """Let streams send until none can or `budget` bytes of DATA are sent."""
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
        """Let a stream wait for its window; it keeps its place if bytes are `left` of its turn."""
        if left <= 0:
            self._waiting.pop(sender, None)
        elif left < _QUANTUM_BYTES:
            self._turns[sender] = left
        if sent or sender not in self._waiting:
            self._waiting[sender] = self._seconds()  # each byte sent restarts the wait


def _nothing(sender: object) -> None:
    """Ignore a failure."""
