"""Shares: limit how much of one resource clients use, in total and per owner."""

from __future__ import annotations

from collections import Counter

from pushd.errors import TooMany, Unavailable

__all__ = ["Shares"]

_RETRY_S = 10.0
"""The default ``Retry-After`` when a limit is reached, in seconds."""


class Shares:
    """Count the units of one resource that are in use, by owner.

    An owner is what `pushd.bus.clientinfo.owner_of` returns: a user, an address or a network. Clients without one
    (loopback addresses, Unix sockets) count only towards the total.
    """

    __slots__ = ("_by_owner", "_option", "_retry_s", "_what", "most", "most_per_owner", "used")

    def __init__(self, what: str, option: str, most: int, share_percent: int, retry_s: float = _RETRY_S) -> None:
        """Allow `most` units in total, and `share_percent` of them (at least one) for each owner.

        `what` names the resource and `option` the configuration option that limits it, for error messages.
        Rejected clients are asked to retry after `retry_s`.
        """
        self._what = what
        self._option = option
        self._retry_s = retry_s
        self._by_owner: Counter[str] = Counter()
        self.used = 0
        """Units in use, of all owners."""
        self.limit(most, share_percent)

    def limit(self, most: int, share_percent: int) -> None:
        """Set new limits. Units in use stay in use."""
        self.most = most
        """The maximum number of units in use."""
        self.most_per_owner = max(1, most * share_percent // 100)
        """The maximum number of units that one owner may use."""

    def used_by(self, owner: str | None) -> int:
        """Return the units that `owner` uses; 0 for None."""
        return 0 if owner is None else self._by_owner.get(owner, 0)

    def take(self, owner: str | None, units: int = 1) -> None:
        """Acquire `units`. Raises the errors of `check`, and then acquires none."""
        self.check(owner, units)
        self.used += units
        if owner is not None:
            self._by_owner[owner] += units

    def check(self, owner: str | None, units: int) -> None:
        """Raise `TooMany` if `units` more would exceed the owner's share, `Unavailable` if the total."""
        if not units:
            return
        if owner is not None and self.used_by(owner) + units > self.most_per_owner:
            raise TooMany(
                f"{owner} uses its share of {self._what}, {self.most_per_owner}: "
                f"see {self._option} and [limits] share",
                retry_s=self._retry_s,
            )
        if self.used + units > self.most:
            raise Unavailable(
                f"all {self._what} are in use, {self.most}: see {self._option}",
                retry_s=self._retry_s,
                code="limit_reached",
            )

    def give_back(self, owner: str | None, units: int = 1) -> None:
        """Release `units` that `take` acquired for `owner`."""
        self.used -= units
        if owner is not None:
            self._by_owner[owner] -= units
            if not self._by_owner[owner]:
                del self._by_owner[owner]
