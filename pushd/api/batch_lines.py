"""The lines of a batch, split off a few at a time."""

from __future__ import annotations

import re

__all__ = ["BYTES_PER_TURN", "LINES_PER_TURN", "Lines"]

_something = re.compile(rb"\S").search

LINES_PER_TURN = 500
"""Maximum number of events of a batch published in one turn of the reactor."""

BYTES_PER_TURN = 256 * 1024
"""Maximum number of bytes of a batch published in one turn; a subscriber's outbox must be able to hold them."""

_END_BYTES = 64 * 1024
"""Size of the end of a body that is searched for trailing white space, in bytes."""


class Lines:
    """The non-empty lines of a body; found when needed, as there may be millions."""

    __slots__ = ("_body", "_longest", "_put_back", "_start", "_stop")

    def __init__(self, body: bytes, longest: int) -> None:
        """Split `body` into lines. A line of more than `longest` bytes may be cut to `longest + 1` bytes."""
        end = body[-_END_BYTES:]
        self._body = body
        self._start = 0
        self._stop = len(body) - len(end) + len(end.rstrip())
        self._longest = longest
        self._put_back: list[bytes] = []

    @property
    def are_left(self) -> bool:
        """Return whether lines may remain."""
        return bool(self._put_back) or self._start < self._stop

    def drop(self) -> None:
        """Drop the remaining lines."""
        self._body, self._put_back, self._start, self._stop = b"", [], 0, 0

    def put_back(self, lines: list[bytes]) -> None:
        """Put back `lines`, the last ones taken; the next `take` returns them."""
        self._put_back = lines

    def take(self) -> list[bytes]:
        """Remove and return the lines of one turn; none if `BYTES_PER_TURN` bytes are white space."""
        if self._put_back:
            lines, self._put_back = self._put_back, []
            return lines
        body, start = self._body, self._start
        stop = min(start + BYTES_PER_TURN, self._stop)
        first = _something(body, start, stop)
        if first is None:
            self._start = stop
            return []
        start = first.start()
        lines = body[start:stop].split(b"\n", LINES_PER_TURN)
        last = stop - len(lines[-1])
        if len(lines) > LINES_PER_TURN:
            lines.pop()
            self._start = last
        else:
            end = body.find(b"\n", stop)
            end = self._stop if end < 0 or end > self._stop else end
            lines[-1] = body[last : min(end, last + self._longest + 1)]
            self._start = end + 1
        return [line for line in lines if line.strip()]
