"""What the tests of the store are made of: a bus over a store, which they close, crash and open again."""

from __future__ import annotations

import os
import re
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, cast
from unittest.mock import patch

from twisted.internet.defer import Deferred
from twisted.logger import ILogObserver, LogEvent, LogLevel, globalLogPublisher
from twisted.python.failure import Failure

from pushd.bus.bus import Published
from pushd.bus.clientinfo import DAEMON
from pushd.bus.publisher import Outcome
from pushd.errors import Refused
from pushd.store.sqlite import continuity
from pushd.store.sqlite.journal import SqlitePublisher
from pushd.store.sqlite.store import Store
from pushd.store.sqlite.transaction import Transaction
from tests.rigs.builders import EPOCH, BusRig, draft

__all__ = ["OTHER_EPOCH", "StoredBusRig", "Thread", "Turns", "damage", "directory"]

OTHER_EPOCH = "continuity"
"""The epoch that the store gets when continuity was lost."""


def directory() -> TemporaryDirectory[str]:
    """Make a directory, in memory where there is one: nothing here is about the disk."""
    return TemporaryDirectory(dir="/dev/shm" if os.path.isdir("/dev/shm") else None)


class Turns:
    """The turns of a reactor that only knows what is to be called in its next one."""

    def __init__(self) -> None:
        self._calls: list[Callable[[], None]] = []

    def __len__(self) -> int:
        return len(self._calls)

    def call_later(self, delay_s: float, call: Callable[[], None]) -> None:
        assert delay_s == 0
        self._calls.append(call)

    def turn(self) -> None:
        """Call what waits for this turn, and not what it asks for."""
        calls, self._calls = self._calls, []
        for call in calls:
            call()


class Thread:
    """A thread whose work is done, and whose answers come, when the test says so."""

    def __init__(self) -> None:
        self._jobs: list[tuple[Deferred[Any], Callable[[], Any]]] = []
        self._answers: list[tuple[Deferred[Any], object]] = []

    def __len__(self) -> int:
        return len(self._jobs) + len(self._answers)

    def __call__(self, function: Callable[..., Any], *args: object) -> Deferred[Any]:
        answered: Deferred[Any] = Deferred()
        self._jobs.append((answered, lambda: function(*args)))
        return answered

    def work(self) -> None:
        """Do the next job, if there is one."""
        if self._jobs:
            answered, job = self._jobs.pop(0)
            try:
                answer = job()
            except Exception:  # noqa: BLE001  as a real one does
                answer = Failure()
            self._answers.append((answered, answer))

    def answer(self) -> None:
        """Return the job that was done first, if one was."""
        if self._answers:
            answered, answer = self._answers.pop(0)
            answered.callback(answer)

    @property
    def has_succeeded(self) -> bool:
        """True if something was done that nobody knows of yet."""
        return any(not isinstance(answer, Failure) for _, answer in self._answers)


class StoredBusRig(BusRig):
    """A bus over a store. `path` is its directory."""

    def __init__(
        self,
        path: str,
        *,
        writes_in_thread: bool = False,
        recent_bytes: int = 1 << 20,
        past_bytes: int = 1 << 20,
        fetches: bool = False,
        **options: Any,
    ) -> None:
        """Begin; with `fetches`, `fetching` reads the past. The `options` are those of a `BusRig`."""
        super().__init__(**options)
        self.path = Path(path)
        self._fetches = fetches
        self.writes_in_thread = writes_in_thread
        self._recent_bytes = recent_bytes
        self._past_bytes = past_bytes
        self.failures = 0
        """How many of the next transactions fail for lack of room."""
        self.logged: list[LogEvent] = []
        """What was logged that an operator should not see: not that nothing can be written."""
        self._observer = cast(ILogObserver, self._observe)
        globalLogPublisher.addObserver(self._observer)
        self.open(EPOCH)

    def _observe(self, event: LogEvent) -> None:
        text = event.get("log_format") or ""
        is_expected = text.startswith(("publishing is refused: ", "what was dropped cannot be removed: "))
        if event["log_level"] >= LogLevel.error and event["log_namespace"].startswith("pushd") and not is_expected:
            self.logged.append(event)

    def open(self, epoch: str = OTHER_EPOCH) -> None:
        """Open the store, and put a bus over it; a new log gets this `epoch`."""
        self.turns, self.thread, self.fetching = Turns(), Thread(), Thread()
        self.store = Store(
            self.path,
            is_safe=self.writes_in_thread,
            recent_bytes=self._recent_bytes,
            now=self.now,
            seconds=self.seconds,
            in_thread=self.fetching if self._fetches else None,
        )
        self.store.archive._past._max_bytes = self._past_bytes
        self.begin(self.store.archive)
        with patch.object(continuity, "new_epoch", lambda: epoch):
            self.store.open(self.log)
        make = self.store._make

        def fail(change: Transaction) -> None:
            make(change)
            if self.failures:
                self.failures -= 1
                error = sqlite3.OperationalError("database or disk is full")
                error.sqlite_errorcode = sqlite3.SQLITE_FULL
                raise error

        self.store._make = fail  # type: ignore[method-assign]
        self.journal = SqlitePublisher(
            self.bus, self.store, self.turns.call_later, self.thread, writes_in_thread=self.writes_in_thread
        )

    # Time

    def settle(self) -> None:
        """Let everything go on until nothing is left to do."""
        for _ in range(10_000):
            if not self.turns and not self.thread:
                return
            self.turns.turn()
            self.thread.work()
            self.thread.answer()
        raise AssertionError("it never ends")

    def tend(self) -> None:
        """Look after the store, until that is done."""
        self.journal.tend()
        self.settle()

    def publish(self, *channels: str, data: bytes = b"x", id: str | None = None) -> Published:
        """Publish `data` and wait for what becomes of it."""
        (outcome,) = self.publish_together((channels, data, id))
        if isinstance(outcome, Refused):
            raise outcome
        return outcome

    def publish_together(self, *each: tuple[tuple[str, ...], bytes, str | None]) -> list[Outcome]:
        """Publish several events in one turn: their channels, data and ids."""
        told: list[Outcome] = []
        for channels, data, event_id in each:
            self.journal.publish(draft(*channels, data=data, id=event_id), DAEMON, told.append)
        self.settle()
        assert len(told) == len(each), "not all were told"
        return told

    def delete(self, channel: str) -> None:
        """Delete a channel; raise what refuses it."""
        told: list[Refused | None] = []
        self.journal.delete(channel, DAEMON, told.append)
        self.settle()
        (refused,) = told
        if refused is not None:
            raise refused

    # The end

    def close(self) -> None:
        """Stop as the daemon does."""
        finished = self.journal.finish()
        self.settle()
        assert finished.called
        self.store.close()

    def restart(self) -> None:
        """Stop as the daemon does, and start again."""
        self.close()
        self.open()

    def crash(self) -> None:
        """Go on with what is in the files now, as if the process had been killed.

        They are put back by what is in them, so that they stay the same files: a copy is found out.
        """
        names = ("pushd.db", "pushd.db-wal")
        files = {name: (self.path / name).read_bytes() for name in names}
        self.abandon()
        for name, content in files.items():
            (self.path / name).write_bytes(content)
        self.open()

    def abandon(self) -> None:
        """Close the file without any order."""
        store = self.store
        for connection in (store._reader, store._past_reader, store._mover, store._writer):
            connection.close()
        store._mark.close()
        store._lock.close()
        (self.path / "pushd.db-shm").unlink(missing_ok=True)

    def end(self) -> None:
        """Let go of everything."""
        globalLogPublisher.removeObserver(self._observer)
        self.abandon()


def damage(path: Path, table: str, column: str, value: str) -> None:
    """Put a `value`, as SQL writes it, into all rows of a store, of any type, though the table is STRICT.

    So a bit can that is wrong.
    """
    find = f"SELECT sql FROM sqlite_schema WHERE name = '{table}'"
    with closing(sqlite3.connect(path)) as database:
        ((strict,),) = database.execute(find)
    loose = re.sub(r"^(    \S+) (?:INTEGER|TEXT|BLOB) NOT NULL", r"\1", strict, flags=re.M).replace("STRICT,", "")
    for sql, change in ((loose.replace("STRICT", ""), f'UPDATE {table} SET "{column}" = {value}'), (strict, find)):
        with closing(sqlite3.connect(path)) as database, database:
            database.execute("PRAGMA writable_schema = ON")
            database.execute("UPDATE sqlite_schema SET sql = ? WHERE name = ?", (sql, table))
        with closing(sqlite3.connect(path)) as database, database:
            database.execute(change)
