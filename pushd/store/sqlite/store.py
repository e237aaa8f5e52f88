"""The store: one SQLite file in the state directory, written one transaction at a time.

It is in write-ahead mode: a transaction is appended to a second file, the write-ahead log, and moved into the first
file later by `checkpoint`, which may run in a thread while transactions continue. Four connections divide the work:
one writes, one moves, one reads in the reactor's thread, and one reads the past in a thread of its own.
"""

from __future__ import annotations

import gc
import os
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from threading import Lock
from typing import IO, Any

from twisted.internet.defer import Deferred
from twisted.logger import Logger

from pushd.bus import Counters, EventLog, LogState, memory
from pushd.errors import OutOfMemory, StartFailed, Unavailable
from pushd.store.sqlite import continuity
from pushd.store.sqlite.archive import SqliteStorage
from pushd.store.sqlite.chunk_cache import ChunkCache
from pushd.store.sqlite.continuity import ContinuityMarks
from pushd.store.sqlite.database import FILE_NAME, connect, damaged, found_version, is_full, refusal, start_failure
from pushd.store.sqlite.fetcher import Fetcher
from pushd.store.sqlite.history_cache import HistoryCache
from pushd.store.sqlite.lock import lock
from pushd.store.sqlite.reader import BlockReader
from pushd.store.sqlite.schema import VERSION, create, migrate
from pushd.store.sqlite.transaction import Transaction
from pushd.store.sqlite.watermark import SUMMARY_MASK, MarkFile, Summary, log_sum, why_not

__all__ = ["Store"]

_log = Logger()

_PAST_BYTES = 32 * 1024 * 1024
"""The memory limit of the cache of entries read from the store."""

_LOG_BYTES, _LEAST_LOG_BYTES = 64 * 1024 * 1024, 4 * 1024 * 1024
"""The largest and smallest limit of the write-ahead log, which is a sixteenth of the store within these."""

_ABSURD = 1 << 62
"""A position in the log that no daemon reaches, but a flipped bit may."""

_PAGES_GIVEN_BACK = 256
"""How many free pages are returned to the file system at a time."""

_ROWS = 5000
"""How many rows are read at a time."""

_FREEZE_CHANNELS = 10_000
"""With more channels than this, they are frozen out of garbage collection."""

_FREE_PAGES = 1024
"""Free pages kept for later writes: this many, or a quarter of the file if that is more."""


class Store:
    """The store file, open in one process only."""

    _writer: sqlite3.Connection
    _reader: sqlite3.Connection
    _past_reader: sqlite3.Connection
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
        counters: Counters | None = None,
        size_bytes: int = 1 << 30,
        in_thread: Callable[..., Deferred[Any]] | None = None,
    ) -> None:
        """Prepare to `open` the store in `directory`.

        With `is_safe`, a completed transaction is on the disk, not only with the operating system.
        `recent_bytes` of the latest events are kept in memory. Transactions are counted in `counters`.
        `size_bytes` is about the size of the store, from which `log_bytes` is derived.

        `in_thread` calls a function in a thread, one at a time: past events are read there, and until they are in
        memory, reading them raises `pushd.bus.NotInMemory`. Without it, they are read at once.
        """
        self.log_bytes = max(_LEAST_LOG_BYTES, min(_LOG_BYTES, size_bytes // 16))
        """About the largest size of the write-ahead log."""
        self.path = directory / FILE_NAME
        self._directory = directory
        self._is_safe = is_safe
        self._seconds = seconds
        self._counters = Counters() if counters is None else counters
        self._past_lock = Lock()
        self._seal = 0
        self.unmoved_bytes = 0
        """About how many bytes were written since `turn_over`."""
        fetcher = None if in_thread is None else Fetcher(BlockReader(self._past_rows), in_thread)
        past = ChunkCache(BlockReader(self._rows), fetcher, max_bytes=_PAST_BYTES, now=now, seconds=seconds)
        self.archive = SqliteStorage(self._rows, past, HistoryCache(recent_bytes))
        """The storage that the event log reads from."""

    def open(self, log: EventLog[Any], progress: Callable[[int], None] = lambda channels: None) -> None:
        """Open or create the file, and load its channels into `log`.

        Call `progress` repeatedly with the number of channels loaded so far. Raise `StartFailed`, with the remedy,
        if the file cannot be used; the file is then unchanged.
        """
        self._lock = lock(self._directory)
        with ExitStack() as opened:
            opened.callback(self._lock.close)
            try:
                os.close(os.open(self.path, os.O_CREAT | os.O_RDWR, 0o600))  # private to this user
                self._writer = opened.enter_context(closing(connect(self.path)))
                self._prepare()
                self._reader = opened.enter_context(closing(connect(self.path)))
                self._past_reader = opened.enter_context(closing(connect(self.path)))
                self._mover = opened.enter_context(closing(connect(self.path)))
                self._mark = MarkFile(self._directory)
                opened.callback(self._mark.close)
                self._begin(log, progress)
            except sqlite3.Error as error:
                raise start_failure(error, self.path) from error
            except Unavailable as error:
                raise damaged(self.path, error.detail) from error
            except (TypeError, ValueError, OverflowError) as error:  # also SQLite messages not in UTF-8
                raise damaged(self.path, "it has values that cannot be") from error
            except OSError as error:
                raise StartFailed(f"the store {self.path} cannot be used: {error.strerror}") from error
            opened.pop_all()

    def _prepare(self) -> None:
        """Create the tables, or migrate an existing store to this version."""
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
        """Load the log, begin a new epoch if its continuity is in doubt, and mark the store as in use."""
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
        self.archive.begin(state.epoch)
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
        self._mark.settle()  # the seal file records that the mark exists
        if not self._is_safe:
            self._writer.execute("PRAGMA synchronous = NORMAL")
        self._write_seal()

    def _fill(self, log: EventLog[Any], progress: Callable[[int], None]) -> int:
        """Load all channels; return their contribution to the summary.

        Garbage collection is off meanwhile: it would scan the new objects repeatedly and find nothing, which with
        1,000,000 channels takes longer than all else. Many channels are frozen out of later collections.
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
        """Yield the rows of a statement, `_ROWS` at a time."""
        try:
            cursor = self._reader.execute(statement)
            while rows := cursor.fetchmany(_ROWS):
                yield rows
        except (sqlite3.Error, UnicodeDecodeError) as error:
            raise refusal(error, self.path) from error

    def _write_seal(self) -> None:
        """Write the store's seal to the seal file."""
        sealed_s = continuity.write_seal(self._directory, self._seal)
        self._writer.execute("UPDATE log SET sealed = ?", (sealed_s,))

    def _seal_anew(self, is_safe: bool) -> None:
        """Advance to the next seal."""
        if continuity.read_seal(self._directory) != self._seal:  # a failed write; the store is never two ahead
            self._write_seal()
        self._writer.execute("UPDATE log SET seal = ?, sealed = 0, is_safe = ?", (self._seal + 1, int(is_safe)))
        self._seal += 1
        self._write_seal()

    def _rows(self, statement: str, *values: object) -> list[Any]:
        return self._rows_of(self._reader, statement, values)

    def _past_rows(self, statement: str, *values: object) -> list[Any]:
        with self._past_lock:
            return self._rows_of(self._past_reader, statement, values)

    def _rows_of(self, connection: sqlite3.Connection, statement: str, values: Sequence[Any]) -> list[Any]:
        try:
            return connection.execute(statement, values).fetchall()
        except MemoryError:
            memory.missed()
            raise OutOfMemory from None
        except (sqlite3.Error, UnicodeDecodeError) as error:
            raise refusal(error, self.path) from error

    # Writing: may run in a thread, one call at a time

    def write(self, change: Transaction) -> None:
        """Commit a change atomically; raise `NoRoom` or `Unavailable` if it is not committed."""
        writer, counters = self._writer, self._counters
        began_s = self._seconds()
        summary = self._summary.after(change.state.sequence, _log_sum(change.state), change.summary_change)
        self._mark.write(self._summary, summary)  # the store matches one of them, whatever happens now
        try:
            writer.execute("BEGIN IMMEDIATE")
            self._make(change)
            writer.execute("COMMIT")
        except MemoryError:
            self._roll_back()
            memory.missed()
            raise OutOfMemory from None
        except sqlite3.Error as error:
            counters.failed_commits += 1
            self._roll_back()
            raise refusal(error, self.path) from error
        except BaseException:
            self._roll_back()
            raise
        self._summary = summary
        self._mark.write(summary, summary)
        self.unmoved_bytes += change.size_bytes
        counters.commits.add(self._seconds() - began_s)

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
        if change.is_trial:  # SQLite writes it even if it is unchanged
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
        """Whether the disk is almost full."""
        return is_full(self.path)

    # Maintenance

    def checkpoint(self) -> bool:
        """Checkpoint the write-ahead log; return False if some of it is left. May be called in a thread."""
        try:
            _, size, moved = self._mover.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
        except sqlite3.Error as error:
            _log.error("the store could not move what was written: {error}", error=error)
            return False
        return bool(size == moved)

    def turn_over(self) -> None:
        """Checkpoint everything and restart the write-ahead log. The store must not be written meanwhile."""
        if not self.checkpoint():
            return
        try:
            self._seal_anew(self._is_safe)
            self.unmoved_bytes = 0
        except (sqlite3.Error, OSError) as error:
            self._roll_back()
            _log.error("the store could not be sealed: {error}", error=error)

    def give_back(self) -> bool:
        """Return some free pages to the file system; return False if too few are free to return any.

        Raise `NoRoom` or `Unavailable` if the store cannot do so now.
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
        """Flush everything to the disk and close the file."""
        try:
            self._writer.execute("PRAGMA synchronous = FULL")
            self._seal_anew(is_safe=True)
            self._reader.close()
            self._mover.close()
            with self._past_lock:  # the thread may still read for clients that are gone
                self._past_reader.close()
            self._writer.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
            self._mark.write(self._summary, self._summary, is_closed=True)
            self._mark.settle()
        except (sqlite3.Error, OSError) as error:
            _log.error("the store could not be closed in order: {error}", error=error)
        self._mark.close()
        for connection in (self._reader, self._past_reader, self._mover, self._writer):
            connection.close()
        self._lock.close()


def _log_sum(state: LogState) -> int:
    return log_sum(state.epoch, state.sequence, state.given_up_sequence, state.given_up_offset, state.began)


def _begun_anew(log: EventLog[Any]) -> LogState:
    """Return the state of a log that begins a new epoch after all stored events."""
    state, channels = log.state, [channel for name in log.names() if (channel := log.get(name)) is not None]
    sequence = max((channel.history.sequence for channel in channels), default=0)
    sequence = max(state.sequence, state.given_up_sequence, sequence)
    return LogState(continuity.new_epoch(), sequence, state.given_up_sequence, state.given_up_offset, sequence)
