"""Answers that wait for clients to read them: how many bytes all of them, and those of one owner, may hold."""

from __future__ import annotations

from pushd.bus import Shares
from pushd.errors import Refused

__all__ = ["NOTHING", "OVERHEAD_BYTES", "Held", "UnreadResponses"]

_MOST = 256 * 1024 * 1024

_MOST_FILES = 4096

OVERHEAD_BYTES = 8 * 1024
"""About how much memory an HTTP/2 stream takes while its answer waits, beside the body."""


class UnreadResponses:
    """Bytes of answers that clients have not taken, over all connections of the daemon.

    A subscriber's stream does not count: its outbox bounds it.
    """

    __slots__ = ("files", "shares")

    def __init__(self, most: int = _MOST, share_percent: int = 100, files: int = _MOST_FILES) -> None:
        """Hold `most` bytes and `files` open files, and `share_percent` of them for each owner."""
        self.shares = Shares("bytes of answers that clients have not read", "[limits] answers", most, share_percent)
        """What is held, by owner."""
        self.files = Shares("large files that are being sent", "ulimit -n", files, share_percent)
        """Files of the site that are open, by owner."""

    def limit(self, most: int, share_percent: int, files: int = _MOST_FILES) -> None:
        """Set other bounds."""
        self.shares.limit(most, share_percent)
        self.files.limit(files, share_percent)


class Held:
    """The bytes that one answer holds."""

    __slots__ = ("_owner", "_shares", "size")

    def __init__(self, answers: UnreadResponses) -> None:
        """Hold nothing of `answers` yet."""
        self._shares = answers.shares
        self._owner: str | None = None
        self.size = 0
        """How many bytes are held."""

    def take(self, owner: str | None, size: int) -> None:
        """Hold `size` bytes for `owner`; raise `TooMany` or `Unavailable` if that is too much.

        An owner that holds nothing may hold one answer of any size.
        """
        shares = self._shares
        if not (shares.used if owner is None else shares.used_by(owner)):
            size = min(size, shares.most if owner is None else shares.most_per_owner)
        shares.take(owner, size)
        self._owner = owner
        self.size += size

    def can_take(self, owner: str | None, size: int) -> bool:
        """Hold `size` bytes for `owner`. Return False, and hold nothing more, if that is too much."""
        try:
            self.take(owner, size)
        except Refused:
            return False
        return True

    def shrink(self, size: int) -> None:
        """Hold no more than `size` bytes."""
        if size < self.size:
            self._shares.give_back(self._owner, self.size - size)
            self.size = size


NOTHING = Held(UnreadResponses())
"""What an answer holds that holds nothing."""
