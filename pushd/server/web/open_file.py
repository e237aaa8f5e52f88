"""A file that is open while it is sent, and counts as long."""

from __future__ import annotations

from io import FileIO

from pushd.bus import Shares

__all__ = ["OpenFile"]


class OpenFile(FileIO):
    """A file that occupies one unit of `shares` until it is closed, by whoever sends it or by the interpreter."""

    def __init__(self, path: str, shares: Shares, owner: str | None) -> None:
        """Open it; raise `TooMany` or `Unavailable` if the owner, or all together, have too many."""
        self._shares: Shares | None = None
        shares.take(owner)
        self._shares, self._owner = shares, owner
        super().__init__(path)

    def close(self) -> None:
        """Override: give back the unit, once."""
        shares, self._shares = self._shares, None
        if shares is not None:
            shares.give_back(self._owner)
        super().close()
