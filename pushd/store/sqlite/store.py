"""The store: one file of SQLite in the state directory, written one transaction at a time.

It is in write-ahead mode: a transaction is appended to a second file, and moved into the first one later, by
`checkpoint`, which may take its time in a thread while transactions go on. Three connections have different work:
one writes, one reads, one moves.
"""

from __future__ import annotations

import fcntl
import gc
import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import IO, Any

from twisted.logger import Logger

from pushd.bus import Counters, EventLog, LogState, memory
from pushd.errors import OutOfMemory, StartFailed, Unavailable
from pushd.store.sqlite import continuity
from pushd.store.sqlite.archive import SqliteStorage
from pushd.store.sqlite.continuity import ContinuityMarks
from pushd.store.sqlite.database import FILE_NAME, connect, damaged, found_version, is_full, refusal, start_failure
from pushd.store.sqlite.history import HistoryCache
from pushd.store.sqlite.reader import BlockReader
from pushd.store.sqlite.schema import VERSION, create, migrate
from pushd.store.sqlite.transaction import Transaction
from pushd.store.sqlite.watermark import SUMMARY_MASK, MarkFile, Summary, log_sum, why_not

__all__ = ["Store", "lock"]

_log = Logger()

_PAST_BYTES = 32 * 1024 * 1024
"""How much memory entries take that were read from the store."""

_LOG_BYTES, _LEAST_LOG_BYTES = 64 * 1024 * 1024, 4 * 1024 * 1024
"""To how much the second file is cut when it is begun anew: a sixteenth of the store, within these."""

_ABSURD = 1 << 62
"""A place in the log that no daemon comes to; a wrong bit may."""

_PAGES_GIVEN_BACK = 256
"""How many free pages are given back to the file system at a time."""

_ROWS = 5000
"""How many rows are read at a time."""

_FREEZE_CHANNELS = 10_000
"""Of how many channels the garbage collector need not know."""

_FREE_PAGES = 1024
"""How many free pages are kept for what is written next, and as many as a quarter of the file."""


def lock(directory: Path) -> IO[str]:
    """Take the state directory for this process, until it ends; raise `StartFailed` if another one has it."""
    path = directory / "pushd.lock"
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        file = open(path, "a+", encoding="ascii")  # noqa: SIM115  held for as long as the process lives
    except OSError as error:
        raise StartFailed(f"{path}: cannot be opened: {error.strerror}") from None
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        file.seek(0)
        pid = file.read(20).strip()
        file.close()
        raise StartFailed(
            f"another pushd{f', process {pid},' if pid.isdecimal() else ''} uses the state directory {directory}; "
            "stop it, or give this one its own, see [pushd] state_directory"
        ) from None
    file.truncate(0)
    file.write(f"{os.getpid()}\n")
    file.flush()
    return file


class Store:
    """The file. Only one process has it open."""

    _writer: sqlite3.Connection
    _reader: sqlite3.Connection
    _mover: sqlite3.Connection
    _mark: MarkFile
    _summary: Summary
    _lock: IO[str]

    def __init__(
        self,
        directory: Path,
        *,
        is_safe: bool,
        recent_bytes: int,
        now: Callable[[], float],
        seconds: Callable[[], float],
        figures: Counters | None = None,
        size_bytes: int = 1 << 30,
    ) -> None:
        """Prepare to `open` the store in `directory`.

        With `is_safe`, a transaction is on the disk when it is done, and not only with the operating system.
        `recent_bytes` of the latest events are kept in memory. Transactions are counted in `figures`. The store
        is to take about `size_bytes`; how much there may be of the second file goes by that.
        """
        self.log_bytes = max(_LEAST_LOG_BYTES, min(_LOG_BYTES, size_bytes // 16))
        """About how much the second file takes at most."""
        self.path = directory / FILE_NAME
        self._directory = directory
        self._is_safe = is_safe
        self._seconds = seconds
        self._figures = Counters() if figures is None else figures
        self._seal = 0
        self.unmoved_bytes = 0
        """About how much was written since `turn_over`."""
        past = BlockReader(self._rows, max_bytes=_PAST_BYTES, now=now, seconds=seconds)
        self.archive = SqliteStorage(self._rows, past, HistoryCache(recent_bytes))
        """What the log reads."""

    def open(self, log: EventLog[Any], progress: Callable[[int], None] = lambda channels: None) -> None:
        """Open the file, or make it, and enter what it has into `log`.

        `progress` is called again and again meanwhile, with how many channels have been entered.
        Raises `StartFailed`, which says what can be done, if it cannot be used; then it was not changed.
        """
        self._lock = lock(self._directory)
        with ExitStack() as opened:
            opened.callback(self._lock.close)
            try:
                os.close(os.open(self.path, os.O_CREAT | os.O_RDWR, 0o600))  # for nobody else
                self._writer = opened.enter_context(closing(connect(self.path)))
                self._prepare()
                self._reader = opened.enter_context(closing(connect(self.path)))
                self._mover = opened.enter_context(closing(connect(self.path)))
                self._mark = MarkFile(self._directory)
                opened.callback(self._mark.close)
                self._begin(log, progress)
            except sqlite3.Error as error:
                raise start_failure(error, self.path) from error
            except Unavailable as error:
                raise damaged(self.path, error.detail) from error
            except (TypeError, ValueError, OverflowError) as error:  # also of messages of SQLite that are not UTF-8
                raise damaged(self.path, "it has values that cannot be") from error
            except OSError as error:
                raise StartFailed(f"the store {self.path} cannot be used: {error.strerror}") from error
            opened.pop_all()

    def _prepare(self) -> None:
        """Make of whatever file there is a store of this version."""
        version = found_version(self._writer, self.path)
        if not version:
            self._writer.execute("PRAGMA auto_vacuum = INCREMENTAL")
        self._writer.execute("PRAGMA journal_mode = WAL")
        self._writer.execute("PRAGMA wal_autocheckpoint = 0")
        self._writer.execute(f"PRAGMA journal_size_limit = {self.log_bytes}")
        if version:
            migrate(self._writer, version)
        else:
            create(self._writer)
            _log.info("made the store {path}", path=str(self.path))

    def _begin(self, log: EventLog[Any], progress: Callable[[int], None]) -> None:
        """Find out what the store says of the log and whether that can be trusted, and mark it as in use."""
        rows = self._writer.execute(
            "SELECT epoch, sequence, given_up_sequence, given_up_offset, began, seal, sealed, inode, boot, "
            "is_safe FROM log"
        ).fetchall()
        seal, why = 0, None
        if rows:
            epoch, sequence, given_up_sequence, given_up_offset, began, seal, *marks = rows[0]
            log.begin(LogState(epoch, sequence, given_up_sequence, given_up_offset, began))
            why = continuity.doubt(ContinuityMarks(seal, *marks), self.path, self._directory)
        elif continuity.read_seal(self._directory) is not None or self._mark.found is not None:
            why = f"{self.path} is missing or empty, or has no log"
        channels = self._fill(log, progress)
        state = log.state
        found = Summary(state.sequence, _log_sum(state), channels & SUMMARY_MASK)
        if why is None and continuity.has_mark(self._directory):
            why = why_not(self._mark.found, found, self._directory)
        if why is not None:
            _log.warn("the store is not the one that was left: {why}; older positions are not recovered", why=why)
        if max(state.sequence, state.given_up_sequence, state.given_up_offset, state.began) >= _ABSURD:
            raise ValueError
        if why is not None or not rows:
            state = _begun_anew(log)
            log.begin(state)
        self._seal = continuity.next_seal(seal, self._directory)
        inode = os.stat(self.path).st_ino
        self._writer.execute(
            "INSERT OR REPLACE INTO log VALUES (1, ?, ?, ?, ?, ?, ?, 0, ?, ?, ?)",
            (
                *(state.epoch, state.sequence, state.given_up_sequence, state.given_up_offset, state.began),
                *(self._seal, inode, continuity.boot_id(), int(self._is_safe)),
            ),
        )
        self._summary = found.after(state.sequence, _log_sum(state), 0)
        self._mark.write(self._summary, self._summary)
        self._mark.settle()  # the seal says that it is there
        if not self._is_safe:
            self._writer.execute("PRAGMA synchronous = NORMAL")
        self._write_seal()

    def _fill(self, log: EventLog[Any], progress: Callable[[int], None]) -> int:
        """Enter all channels; return what they contribute to the summary.

        The garbage collector would examine what was made so far again and again, and find nothing: with 1,000,000
        channels that takes longer than all else. What was made stays, and is not examined later either.
        """
        is_collecting, contributions = gc.isenabled(), 0
        gc.disable()
        try:
            for contribution in self.archive.fill(log, self._some_rows):
                contributions += contribution
                progress(len(log))
            if len(log) > _FREEZE_CHANNELS:
                gc.freeze()
        finally:
            if is_collecting:
                gc.enable()
        return contributions

    def _some_rows(self, statement: str) -> Iterator[list[Any]]:
        """Return the rows of a statement, some at a time."""
        try:
            cursor = self._reader.execute(statement)
            while rows := cursor.fetchmany(_ROWS):
                yield rows
        except (sqlite3.Error, UnicodeDecodeError) as error:
            raise refusal(error, self.path) from error

    def _write_seal(self) -> None:
        """Write the seal that the store has into its file as well."""
        sealed_s = continuity.write_seal(self._directory, self._seal)
        self._writer.execute("UPDATE log SET sealed = ?", (sealed_s,))

    def _seal_anew(self, is_safe: bool) -> None:
        """Go on to the next seal."""
        if continuity.read_seal(self._directory) != self._seal:  # it could not be written; never be two ahead of it
            self._write_seal()
        self._writer.execute("UPDATE log SET seal = ?, sealed = 0, is_safe = ?", (self._seal + 1, int(is_safe)))
        self._seal += 1
        self._write_seal()

    def _rows(self, statement: str, *values: object) -> list[Any]:
        try:
            return self._reader.execute(statement, values).fetchall()
        except MemoryError:
            memory.missed()
            raise OutOfMemory from None
        except (sqlite3.Error, UnicodeDecodeError) as error:
            raise refusal(error, self.path) from error

    # Writing: all of this may happen in a thread, one at a time

    def write(self, change: Transaction) -> None:
        """Make a change, whole; raise `NoRoom` or `Unavailable` if it was not made."""
        writer, figures = self._writer, self._figures
        began_s = self._seconds()
        summary = self._summary.after(change.state.sequence, _log_sum(change.state), change.summary_change)
        self._mark.write(self._summary, summary)  # whatever happens now, the store says one of them
        try:
            writer.execute("BEGIN IMMEDIATE")
            self._make(change)
            writer.execute("COMMIT")
        except MemoryError:
            self._roll_back()
            memory.missed()
            raise OutOfMemory from None
        except sqlite3.Error as error:
            figures.failed_commits += 1
            self._roll_back()
            raise refusal(error, self.path) from error
        except BaseException:
            self._roll_back()
            raise
        self._summary = summary
        self._mark.write(summary, summary)
        self.unmoved_bytes += change.size_bytes
        figures.commits.add(self._seconds() - began_s)

    def _make(self, change: Transaction) -> None:
        execute, execute_many = self._writer.execute, self._writer.executemany
        if change.removed_channels:
            execute_many("DELETE FROM channel WHERE key = ?", change.removed_channels)
        if change.removed_blocks:
            execute_many("DELETE FROM block WHERE place BETWEEN ? AND ?", change.removed_blocks)
        if change.removed_ids:
            execute_many(
                'DELETE FROM given WHERE id = ? AND channel = ? AND other IN (0, 1) AND "offset" = ?',
                change.removed_ids,
            )
        if change.channels:
            execute_many(
                'INSERT INTO channel (key, name, first, dropped, bytes, "offset", sequence) '
                "VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT (key) DO UPDATE SET first = excluded.first, "
                "dropped = excluded.dropped, "
                'bytes = excluded.bytes, "offset" = excluded."offset", sequence = excluded.sequence',
                change.channels,
            )
        if change.blocks:
            execute_many("INSERT INTO block VALUES (?, ?, ?, ?, ?, ?, ?, ?)", change.blocks)
        if change.given:
            execute_many("INSERT OR REPLACE INTO given VALUES (?, ?, ?, ?, ?, ?)", change.given)
        if change.is_trial:  # which SQLite writes whether it is another or not
            execute(f"PRAGMA user_version = {VERSION}")
        state = change.state
        execute(
            "UPDATE log SET sequence = ?, given_up_sequence = ?, given_up_offset = ?",
            (state.sequence, state.given_up_sequence, state.given_up_offset),
        )

    def _roll_back(self) -> None:
        try:
            if self._writer.in_transaction:
                self._writer.execute("ROLLBACK")
        except sqlite3.Error as error:
            _log.error("the store could not take back a change: {error}", error=error)

    @property
    def is_full(self) -> bool:
        """Whether there is hardly any room left on the disk."""
        return is_full(self.path)

    # Looking after it

    def checkpoint(self) -> bool:
        """Move what was written to its place; False if more was written meanwhile. May be called in a thread."""
        try:
            _, size, moved = self._mover.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
        except sqlite3.Error as error:
            _log.error("the store could not move what was written: {error}", error=error)
            return False
        return bool(size == moved)

    def turn_over(self) -> None:
        """Move everything to its place and begin the second file anew. Nothing may be written meanwhile."""
        if not self.checkpoint():
            return
        try:
            self._seal_anew(self._is_safe)
            self.unmoved_bytes = 0
        except (sqlite3.Error, OSError) as error:
            self._roll_back()
            _log.error("the store could not be sealed: {error}", error=error)

    def give_back(self) -> bool:
        """Give some of the free pages back to the file system; False if there are few, and none was given back.

        Raises `NoRoom` or `Unavailable` if that cannot be done now.
        """
        try:
            (free,) = self._writer.execute("PRAGMA freelist_count").fetchone()
            (all_pages,) = self._writer.execute("PRAGMA page_count").fetchone()
            if free <= _FREE_PAGES or free * 4 <= all_pages:
                return False
            self._writer.execute(f"PRAGMA incremental_vacuum({_PAGES_GIVEN_BACK})").fetchall()
        except sqlite3.Error as error:
            raise refusal(error, self.path) from error
        return True

    def close(self) -> None:
        """Put everything on the disk and close the file."""
        try:
            self._writer.execute("PRAGMA synchronous = FULL")
            self._seal_anew(is_safe=True)
            self._reader.close()
            self._mover.close()
            self._writer.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
            self._mark.write(self._summary, self._summary, is_closed=True)
            self._mark.settle()
        except (sqlite3.Error, OSError) as error:
            _log.error("the store could not be closed in order: {error}", error=error)
        self._mark.close()
        for connection in (self._reader, self._mover, self._writer):
            connection.close()
        self._lock.close()


def _log_sum(state: LogState) -> int:
    return log_sum(state.epoch, state.sequence, state.given_up_sequence, state.given_up_offset, state.began)


def _begun_anew(log: EventLog[Any]) -> LogState:
    """Return the state of a log that begins a new epoch, after everything that is there."""
    state, channels = log.state, [channel for name in log.names() if (channel := log.get(name)) is not None]
    sequence = max((channel.history.sequence for channel in channels), default=0)
    sequence = max(state.sequence, state.given_up_sequence, sequence)
    return LogState(continuity.new_epoch(), sequence, state.given_up_sequence, state.given_up_offset, sequence)
