"""The sessions: everybody who is connected, what they share, and what is done for many of them in one turn."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Protocol
from weakref import WeakValueDictionary

from twisted.logger import Logger

from pushd.bus import Bus
from pushd.crowd import Crowd
from pushd.errors import Unavailable
from pushd.event import Encoder
from pushd.reasons import Reason
from pushd.wheel import Wheel

__all__ = ["CHUNK_BYTES", "Client", "Sessions"]

_log = Logger()

CHUNK_BYTES = 64 * 1024
"""How much is written at once."""

_FAREWELLS_PER_TURN = 20
"""How many clients that are too slow are told so in one turn of the reactor."""


class Client(Protocol):
    """What can be ended: a session, or a request that waits for an event."""

    def close(self, reason: Reason) -> None:
        """Tell the client why and end."""


class Leaving(Client, Protocol):
    """A session that takes nothing more."""

    def part(self, reason: Reason) -> None:
        """Tell its client why, and end."""


class Flushed(Protocol):
    """What has something to send at the end of the reactor's turn."""

    def flush(self) -> None:
        """Send it."""


class Sessions:
    """All sessions, and what they share."""

    def __init__(
        self,
        bus: Bus,
        wheel: Wheel,
        call_later: Callable[[float, Callable[[], None]], object],
        *,
        max_outbox_bytes: int,
    ) -> None:
        """Begin without sessions; `call_later` is the reactor's."""
        self.bus = bus
        self.wheel = wheel
        self.max_outbox_bytes = max_outbox_bytes
        self._call_later = call_later
        self._open: set[Client] = set()
        self._crowds: WeakValueDictionary[tuple[str, Encoder], Crowd] = WeakValueDictionary()
        self._unflushed: deque[Flushed] = deque()
        self._leaving: deque[tuple[Leaving, Reason]] = deque()
        self._farewell: Callable[[], Reason] | None = None

    def __len__(self) -> int:
        """Count those whose connections still live."""
        return len(self._open)

    def add(self, client: Client) -> None:
        """Enter a client that has come."""
        self._open.add(client)

    def remove(self, client: Client) -> None:
        """Take out a client whose connection has ended."""
        self._open.discard(client)

    def crowd(self, channel: str, encode: Encoder) -> Crowd:
        """Answer those who keep up with `channel` and get what `encode` makes."""
        crowd = self._crowds.get((channel, encode))
        if crowd is None:
            crowd = Crowd(encode, self.flush_later, min(CHUNK_BYTES, self.max_outbox_bytes))
            self._crowds[channel, encode] = crowd
        return crowd

    def flush_later(self, session: Flushed) -> None:
        """Have `session` write what it has at the end of this turn of the reactor."""
        if not self._unflushed:
            self._call_later(0, self._flush)
        self._unflushed.append(session)

    def _flush(self) -> None:
        sessions, self._unflushed = self._unflushed, deque()
        try:
            while sessions:
                sessions.popleft().flush()
        finally:
            for session in sessions:  # only if one of them raised: the others have their turn
                self.flush_later(session)

    def dismiss(self, session: Leaving, reason: Reason) -> None:
        """Tell the client of a session that takes nothing more why and end it, a few in each turn of the reactor.

        When thousands are too slow for one event, those that are not must not wait for all these farewells.
        """
        if not self._leaving:
            self._call_later(0, self._dismiss_some)
        self._leaving.append((session, reason))

    def _dismiss_some(self) -> None:
        for _ in range(min(_FAREWELLS_PER_TURN, len(self._leaving))):
            session, reason = self._leaving.popleft()
            if session in self._open:
                session.part(reason)
        if self._leaving:
            self._call_later(0, self._dismiss_some)

    def check_open(self) -> None:
        """Raise `Unavailable` if nobody is taken any more."""
        if self._farewell is not None:
            reason = self._farewell()
            raise Unavailable(reason.text, retry_s=reason.retry_s)

    def close(self, farewell: Callable[[], Reason]) -> None:
        """Close them all, and take nobody any more. `farewell` answers the reason for each."""
        self._farewell = farewell
        for client in list(self._open):
            try:
                client.close(farewell())
            except Exception:  # noqa: BLE001  the others are to be told all the same
                _log.failure("a fault in pushd while it closed {client}", client=client)
