"""Connection limits: in total and per address."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from functools import partial

from twisted.internet.interfaces import IAddress
from twisted.logger import Logger

from pushd.bus import Counters, limit_key
from pushd.errors import Refused, TooMany, Unavailable
from pushd.server.net.addresses import address_of, peer_name
from pushd.server.net.timers import TimerWheel

__all__ = ["ConnectionLimiter", "ConnectionSlot", "RateLimitedLog"]


class RateLimitedLog:
    """Logs at most one line per second and kind, with the number suppressed."""

    def __init__(self, log: Logger, wheel: TimerWheel) -> None:
        """Log to `log`; count seconds on `wheel`."""
        self._log = log
        self._wheel = wheel
        self._left_out: dict[str, int] = {}

    def info(self, kind: str, text: str, **fields: object) -> None:
        """Log `text` with `fields`, unless a line of this `kind` was logged within the last second."""
        if kind in self._left_out:
            self._left_out[kind] += 1
            return
        self._log.info(text, **fields)
        self._left_out[kind] = 0
        self._wheel.call_in(1, partial(self._look, kind, text, fields))

    def _look(self, kind: str, text: str, fields: dict[str, object]) -> None:
        count = self._left_out[kind]
        if not count:
            del self._left_out[kind]
            return
        self._log.info(text + ", and {count} more like this", count=count, **fields)
        self._left_out[kind] = 0
        self._wheel.call_in(1, partial(self._look, kind, text, fields))


_MAX_TURNED_AWAY = 64
"""How many rejected connections may be open to get an error response; more are closed without one."""


_RETRY_S = 10.0
"""The ``Retry-After`` of rejected connections, in seconds."""


class ConnectionSlot:
    """One counted connection. The slot is given back when the connection ends."""

    __slots__ = ("_give_back", "refused")

    def __init__(self, refused: Refused | None, give_back: Callable[[], None]) -> None:
        self.refused = refused
        """The response to the first request of a rejected connection; None if it was accepted."""
        self._give_back: Callable[[], None] | None = give_back

    def give_back(self) -> None:
        """Called when the connection has ended. Idempotent."""
        give_back, self._give_back = self._give_back, None
        if give_back is not None:
            give_back()


class ConnectionLimiter:
    """Counts open connections, and rejects those above the connection limits."""

    log = Logger()

    def __init__(
        self,
        most: int,
        most_per_address: int,
        wheel: TimerWheel,
        is_proxy: Callable[[IAddress], bool] = lambda peer: False,
        counters: Counters | None = None,
    ) -> None:
        """Accept `most` connections, and `most_per_address` of one `pushd.bus.clientaddress.limit_key`.

        0 means unlimited. An address that `is_proxy` has no limit of its own, because many clients share it.
        `counters` counts accepted and rejected connections.
        """
        self.counters = Counters() if counters is None else counters
        """The counters."""
        self.limit(most, most_per_address)
        self._is_proxy = is_proxy
        self._count = 0
        self._per_address: Counter[str] = Counter()
        self._turned_away = 0
        self._limited_log = RateLimitedLog(self.log, wheel)

    def limit(self, most: int, most_per_address: int) -> None:
        """Set the limits for new connections; open connections stay open."""
        self._most = most
        self._most_per_address = most_per_address

    def __len__(self) -> int:
        """Return the number of accepted connections that are open."""
        return self._count

    def enter(self, peer: IAddress) -> ConnectionSlot | None:
        """Accept or reject a connection and return its slot; None means to close it at once."""
        if 0 < self._most <= self._count:
            detail = f"{self._most} connections are open: [limits] connections"
            return self._turn_away(peer, "connections", Unavailable(detail, retry_s=_RETRY_S, code="limit_reached"))
        key = None
        if self._most_per_address and not self._is_proxy(peer):
            key = limit_key(address_of(peer))
        if key is None:
            self._count += 1
            self.counters.accepted += 1
            return ConnectionSlot(None, self._leave)
        if self._per_address[key] >= self._most_per_address:
            detail = f"{key} has {self._most_per_address} connections open: [limits] connections_per_address"
            return self._turn_away(peer, "connections_per_address", TooMany(detail, retry_s=_RETRY_S))
        self._count += 1
        self.counters.accepted += 1
        self._per_address[key] += 1
        return ConnectionSlot(None, partial(self._leave, key))

    def handshake_failed(self, peer: IAddress, timeout_s: float) -> None:
        """Called when a TLS handshake times out. Count and log the timeout."""
        text = "closed a connection of {peer}: its TLS handshake took more than {timeout_s:g} s"
        self.counters.handshakes["timed_out"] += 1
        self._limited_log.info("handshake", text, peer=peer_name(peer), timeout_s=timeout_s)

    def _turn_away(self, peer: IAddress, kind: str, refused: Refused) -> ConnectionSlot | None:
        self.counters.turned_away[kind] += 1
        name, is_told = peer_name(peer), self._turned_away < _MAX_TURNED_AWAY
        self._limited_log.info(kind, "turned away {peer}: {detail}", peer=name, detail=refused.detail)
        if not is_told:
            return None
        self._turned_away += 1
        return ConnectionSlot(refused, self._turned_away_left)

    def _turned_away_left(self) -> None:
        self._turned_away -= 1

    def _leave(self, key: str | None = None) -> None:
        self._count -= 1
        if key is not None:
            self._per_address[key] -= 1
            if not self._per_address[key]:
                del self._per_address[key]
