"""An open file that is counted towards a limit until it is closed."""

from __future__ import annotations

from io import FileIO

from pushd.bus import Shares

__all__ = ["OpenFile"]


class OpenFile(FileIO):
    """A file that occupies one unit of `shares` until it is closed, by its sender or by garbage collection."""

    def __init__(self, path: str, shares: Shares, owner: str | None) -> None:
        """Open the file at `path`; raise `TooMany` or `Unavailable` above the limit per owner or in total."""
        self._shares: Shares | None = None
        shares.take(owner)
        self._shares, self._owner = shares, owner
        super().__init__(path)

    def close(self) -> None:
        """Override: close the file and release its unit, once."""
        shares, self._shares = self._shares, None
        if shares is not None:
            shares.give_back(self._owner)
        super().close()
