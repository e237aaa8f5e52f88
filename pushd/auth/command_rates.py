"""The rate limit of WebSocket commands: subscribe, unsubscribe and renewing a token."""

from __future__ import annotations

from collections.abc import Callable

from pushd.bus import ClientInfo, TokenBuckets, owner_of
from pushd.errors import TooMany

__all__ = ["CommandRates"]

_RATE_OF_OWNER = 10
"""The rate of one user or address, as a multiple of the rate of one connection."""

_BURST_OF_OWNER = 100
"""The burst of one user or address, as a multiple of the burst of one connection."""


class CommandRates:
    """Rate limits of commands, for each connection and for each user or address."""

    def __init__(self, rate: float, burst: int, seconds: Callable[[], float]) -> None:
        """Allow each connection `rate` commands per second, and up to `burst` at once.

        `seconds` is a monotonic clock.
        """
        self._of_connections = TokenBuckets(rate, burst, seconds)
        self._of_owners = TokenBuckets(rate * _RATE_OF_OWNER, burst * _BURST_OF_OWNER, seconds)

    def charge(self, caller: ClientInfo) -> None:
        """Count a command of `caller`, or raise `TooMany` if it exceeds the rate limit. Operators are exempt."""
        if caller.grants.is_operator:
            return
        wait_s = self._of_connections.take(caller.id or caller.name)
        if wait_s:
            raise TooMany(
                "this connection sends commands too often: see [limits] command_rate",
                retry_s=wait_s,
                code="rate_limited",
            )
        owner = owner_of(caller)
        wait_s = 0.0 if owner is None else self._of_owners.take(owner)
        if wait_s:
            raise TooMany(
                f"{owner} sends commands too often: see [limits] command_rate", retry_s=wait_s, code="rate_limited"
            )
