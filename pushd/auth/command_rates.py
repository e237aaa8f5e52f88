"""The rate of commands: how often WebSocket clients may subscribe, unsubscribe and renew their tokens."""

from __future__ import annotations

from collections.abc import Callable

from pushd.auth.rate_limits import TokenBuckets
from pushd.bus import ClientInfo, owner_of
from pushd.errors import TooMany

__all__ = ["CommandRates"]

_RATE_OF_OWNER = 10
"""How much more often one user or address may send commands than one connection."""

_BURST_OF_OWNER = 100
"""How many more it may send at once."""


class CommandRates:
    """Counts commands, of each connection and of each user or address."""

    def __init__(self, rate: float, burst: int, seconds: Callable[[], float]) -> None:
        """Let each connection send `rate` commands per second, and up to `burst` at once.

        `seconds` is a clock that never jumps.
        """
        self._of_connections = TokenBuckets(rate, burst, seconds)
        self._of_owners = TokenBuckets(rate * _RATE_OF_OWNER, burst * _BURST_OF_OWNER, seconds)

    def charge(self, caller: ClientInfo) -> None:
        """Count a command of `caller`, or raise `TooMany`. Operators are exempt."""
        if caller.grants.is_operator:
            return
        wait_s = self._of_connections.take(caller.id or caller.name)
        if wait_s:
            raise TooMany("this connection sends commands too often: see [limits] command_rate", retry_s=wait_s)
        owner = owner_of(caller)
        wait_s = 0.0 if owner is None else self._of_owners.take(owner)
        if wait_s:
            raise TooMany(f"{owner} sends commands too often: see [limits] command_rate", retry_s=wait_s)
