"""The memory limit of unread responses, in total and per owner."""

from __future__ import annotations

from pushd.bus import Shares
from pushd.errors import Refused

__all__ = ["NOTHING", "OVERHEAD_BYTES", "Held", "UnreadResponses"]

_MOST = 256 * 1024 * 1024

_MOST_FILES = 4096

OVERHEAD_BYTES = 8 * 1024
"""About how much memory an HTTP/2 stream needs besides the body while its response is unread."""


class UnreadResponses:
    """Counts the bytes of responses that clients have not read, for all connections of the daemon.

    Subscriber streams are not counted, because their outbox bounds them.
    """

    __slots__ = ("files", "shares")

    def __init__(self, most: int = _MOST, share_percent: int = 100, files: int = _MOST_FILES) -> None:
        """Allow `most` bytes and `files` open files in total, and `share_percent` of them per owner."""
        self.shares = Shares("bytes of unread responses", "[limits] answers", most, share_percent)
        """The unread bytes, by owner."""
        self.files = Shares("large files that are being sent", "ulimit -n", files, share_percent)
        """The open static files, by owner."""

    def limit(self, most: int, share_percent: int, files: int = _MOST_FILES) -> None:
        """Set new limits."""
        self.shares.limit(most, share_percent)
        self.files.limit(files, share_percent)


class Held:
    """The counted bytes of one response."""

    __slots__ = ("_owner", "_shares", "size")

    def __init__(self, answers: UnreadResponses) -> None:
        """Start with a count of 0 in `answers`."""
        self._shares = answers.shares
        self._owner: str | None = None
        self.size = 0
        """How many bytes are counted."""

    def take(self, owner: str | None, size: int) -> None:
        """Count `size` more bytes for `owner`; raise `TooMany` or `Unavailable` above the limit.

        An owner with a count of 0 may have one response of any size.
        """
        shares = self._shares
        if not (shares.used if owner is None else shares.used_by(owner)):
            size = min(size, shares.most if owner is None else shares.most_per_owner)
        shares.take(owner, size)
        self._owner = owner
        self.size += size

    def can_take(self, owner: str | None, size: int) -> bool:
        """Count `size` more bytes for `owner`. Return False, and count none of them, above the limit."""
        try:
            self.take(owner, size)
        except Refused:
            return False
        return True

    def shrink(self, size: int) -> None:
        """Reduce the count to at most `size` bytes."""
        if size < self.size:
            self._shares.give_back(self._owner, self.size - size)
            self.size = size


NOTHING = Held(UnreadResponses())
"""The counter of responses that are not counted; always 0."""
