"""The fetcher: reads the past in a thread, in turn for each owner, and each chunk once for all its readers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from pushd.bus import FairQueue
from pushd.errors import Unavailable
from pushd.store.sqlite.reader import BlockReader

__all__ = ["Fetcher", "Job", "Key", "Read"]

_log = Logger()

_JOBS = 8
"""How many jobs the thread does before the reactor gets their results."""

_READERS = 500
"""How many readers wait for one job: each takes one step when it is done, in the same turn if that has time."""

Key = tuple[str, int, int]
"""What a job reads."""

Read = Callable[[BlockReader], Callable[[], None]]
"""Reads something, in any thread, and returns what puts it into the cache, in the reactor's thread."""

Result = Callable[[], None] | Unavailable

_Done = Callable[[Unavailable | None], None]


@dataclass(eq=False, slots=True)
class Job:
    """Something to read."""

    key: Key
    """Jobs with the same key read the same."""

    read: Read

    is_outdated: Callable[[], bool]
    """Whether what is read may be gone since the job was made, because it was dropped."""

    readers: list[tuple[Callable[[], bool], _Done]] = field(default_factory=list)
    """Whoever waits: whether it is gone, and what to call when the job is done."""

    def run(self, reader: BlockReader) -> None:
        """Read now; raise `Unavailable` if that fails."""
        error = self.finish(self.attempt(reader))
        if error is not None:
            raise error

    def attempt(self, reader: BlockReader) -> Result:
        """Read, in any thread; return the result, or the error."""
        try:
            return self.read(reader)
        except Unavailable as error:
            return error

    def finish(self, result: Result) -> Unavailable | None:
        """Put the result into the cache, or return the error: what is outdated is to be asked for again."""
        if isinstance(result, Unavailable):
            return None if self.is_outdated() else result
        result()
        return None

    @property
    def is_moot(self) -> bool:
        """Whether all of its readers are gone."""
        return all(is_gone() for is_gone, _ in self.readers)


class Fetcher:
    """Does jobs in a thread, some at a time.

    ==========  ================  =====================================================
    a job is    in                next
    ==========  ================  =====================================================
    waiting     ``_waiting``      being read, in a turn of its owner
    being read  nothing           done, when the thread returns: its readers are told
    ==========  ================  =====================================================

    In both states, it is in ``_by_key`` if it takes more readers.
    """

    def __init__(self, reader: BlockReader, in_thread: Callable[..., Deferred[Any]]) -> None:
        """Read with `reader`, which nothing else uses; `in_thread` calls a function in a thread, one at a time."""
        self._reader = reader
        self._in_thread = in_thread
        self._waiting: FairQueue[Job] = FairQueue()
        self._by_key: dict[Key, Job] = {}  # those that take more readers
        self._is_reading = False

    def fetch(self, job: Job, owner: str | None, is_gone: Callable[[], bool], done: _Done) -> None:
        """Do a job for `owner`: a `pushd.bus.work.Fetch`."""
        known = self._by_key.get(job.key)
        if known is None or len(known.readers) >= _READERS:
            known = self._by_key[job.key] = job
            self._waiting.add(owner, job)
        known.readers.append((is_gone, done))
        self._go_on()

    def _go_on(self) -> None:
        """Start some jobs, unless the thread is busy."""
        if self._is_reading or not self._waiting:
            return
        jobs: list[Job] = []
        while self._waiting and len(jobs) < _JOBS:
            job = self._waiting.first
            if not self._waiting.pop():
                self._waiting.next_owner()
            if job.is_moot:
                job.read = _nothing
                self._take_no_more(job)
            jobs.append(job)
        self._is_reading = True
        read = self._in_thread(_attempt_all, jobs, self._reader)
        read.addErrback(self._failed, len(jobs))
        read.addCallback(partial(self._finish, jobs))
        read.addErrback(lambda failure: _log.failure("a fault in pushd while it fetched events", failure))

    def _take_no_more(self, job: Job) -> None:
        if self._by_key.get(job.key) is job:
            del self._by_key[job.key]

    def _failed(self, failure: Failure, count: int) -> list[Result]:
        _log.failure("a fault in pushd while it read the store", failure)
        return [
            Unavailable("the store does not work: a fault in pushd; try again later", code="store_down")
        ] * count

    def _finish(self, jobs: list[Job], results: list[Result]) -> None:
        """Tell the readers of each job, and go on."""
        self._is_reading = False
        try:
            for job, result in zip(jobs, results, strict=True):
                self._take_no_more(job)
                error = job.finish(result)
                for _, done in job.readers:
                    done(error)
        finally:
            self._go_on()


def _attempt_all(jobs: list[Job], reader: BlockReader) -> list[Result]:
    """Attempt all jobs, in the thread."""
    return [job.attempt(reader) for job in jobs]


def _nothing(reader: BlockReader) -> Callable[[], None]:
    """Read nothing: nobody waits for it."""
    return lambda: None
