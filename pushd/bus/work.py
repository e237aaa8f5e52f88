"""Work: a job done in steps, which can wait for entries that are not in memory.

A work is a generator. It yields None after each step, because the job may take long, or a `NotInMemory` when it
needs entries that are not in memory. Whoever runs a work decides how to wait for them: `drain` loads them at once,
`pushd.sessions.long_work.LongWork` fetches them while the reactor runs.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import TypeVar

from pushd.errors import Unavailable

__all__ = ["Fetch", "NotInMemory", "Work", "drain", "when_here"]

T = TypeVar("T")

Fetch = Callable[[str | None, Callable[[], bool], Callable[[Unavailable | None], None]], None]
"""Start to read entries for an owner in another thread, unless the reader is gone by then.

The last argument is called later, in the reactor's thread, with the error if they cannot be read. It may be called
though the reader is gone.
"""


class NotInMemory(Exception):
    """A history has the entries, but not in memory. The read that raised it has changed nothing; try it again."""

    def __init__(self, channel: str, may_be_missed: bool, load: Callable[[], None], fetch: Fetch) -> None:
        """Report that entries of `channel` are needed."""
        super().__init__(channel)
        self.channel = channel
        """The channel."""
        self.may_be_missed = may_be_missed
        """Whether its events may be missed, as in `pushd.bus.event.Entry`."""
        self.load = load
        """Read the entries into memory now; raise `Unavailable` if they cannot be read."""
        self.fetch = fetch
        """Read the entries into memory in another thread."""


Work = Generator[NotInMemory | None, None, T]
"""A job done in steps, with a result."""


def drain(work: Work[T]) -> T:
    """Run all steps at once, load what is not in memory, and return the result."""
    error: Unavailable | None = None
    while True:
        try:
            missing = next(work) if error is None else work.throw(error)
        except StopIteration as stop:
            result: T = stop.value
            return result
        error = None
        if missing is not None:
            try:
                missing.load()
            except Unavailable as failure:
                error = failure


def when_here(read: Callable[[], T]) -> Work[T]:
    """Return the result of `read`, once all that it needs is in memory."""
    while True:
        try:
            return read()
        except NotInMemory as missing:
            waited_for = missing
        yield waited_for
