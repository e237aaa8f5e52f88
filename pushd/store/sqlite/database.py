"""The database: connections to the file of the store, and what its errors mean."""

from __future__ import annotations

import errno
import os
import sqlite3
from pathlib import Path

from pushd.errors import NoRoom, Refused, StartFailed, Unavailable
from pushd.store.sqlite.schema import Newer, NotAStore, version_of

__all__ = ["FILE_NAME", "connect", "damaged", "found_version", "is_full", "refusal", "start_failure"]

FILE_NAME = "pushd.db"
"""The name of the file in the state directory."""

_BUSY_TIMEOUT_S = 0.2
"""How long to wait for another program's lock on the file."""

_CACHE_KIB = 8 * 1024
_OLDEST = (3, 37)
"""The first SQLite with STRICT tables."""


def connect(path: Path, *, is_readable_only: bool = False, is_immutable: bool = False) -> sqlite3.Connection:
    """Open the file; SQLite checks later whether it is a database.

    With `is_immutable`, no process may write the file, and SQLite creates no files beside it.
    """
    if sqlite3.sqlite_version_info < _OLDEST:
        raise StartFailed(f"SQLite is {sqlite3.sqlite_version}; the store needs 3.37 or later, see [pushd] store")
    uri = f"{path.absolute().as_uri()}?mode={'ro' if is_readable_only else 'rwc'}&immutable={int(is_immutable)}"
    connection = sqlite3.connect(
        uri, uri=True, timeout=_BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False, cached_statements=64
    )
    try:
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute(f"PRAGMA cache_size = -{_CACHE_KIB}")
    except sqlite3.Error:  # the file is not a database
        connection.close()
        raise
    return connection


def found_version(connection: sqlite3.Connection, path: Path) -> int:
    """Return the version of the store, 0 if the file is empty; raise `StartFailed` if it is not a usable store."""
    try:
        return version_of(connection)
    except NotAStore:
        raise StartFailed(f"{path} is a database, but not pushd's; wanted a store or no such file") from None
    except Newer as error:
        raise StartFailed(
            f"the store {path} was written by a later pushd (its version is {error}); wanted that one, or "
            "another state directory"
        ) from None


def refusal(error: sqlite3.Error | UnicodeDecodeError, path: Path) -> Refused:
    """Return the refusal that reports an SQLite error to a client."""
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    if code == sqlite3.SQLITE_FULL or (code == sqlite3.SQLITE_IOERR and is_full(path)):
        return NoRoom("the disk of the store is full; try again when there is room")
    if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB) or isinstance(error, UnicodeDecodeError):
        return Unavailable(
            "the store is damaged; whoever runs pushd finds more with twistd pushd --check", code="store_down"
        )
    reasons = {
        sqlite3.SQLITE_READONLY: "its file cannot be written",
        sqlite3.SQLITE_BUSY: "another program has locked it",
        sqlite3.SQLITE_LOCKED: "another program has locked it",
        sqlite3.SQLITE_IOERR: "its disk reports an error",
        sqlite3.SQLITE_CANTOPEN: "its file cannot be opened",
    }
    return Unavailable(f"the store does not work: {reasons.get(code, error)}; try again later", code="store_down")


def _one_line(error: sqlite3.Error) -> str:
    return " ".join(str(error).split())  # SQLite quotes its schema, line breaks included


def is_full(path: Path) -> bool:
    """Return whether the disk of the store is almost full."""
    try:
        left = os.statvfs(path.parent)
    except OSError as error:
        return error.errno == errno.ENOSPC
    return left.f_bavail * left.f_frsize < 1024 * 1024


def start_failure(error: sqlite3.Error, path: Path) -> StartFailed:
    """Return the failure that reports an SQLite error to the operator at startup."""
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
        return damaged(path, _one_line(error))
    return StartFailed(f"the store {path} cannot be used: {_one_line(error)}")


def damaged(path: Path, what: str) -> StartFailed:
    """Return the failure that reports a damaged file and the remedy."""
    return StartFailed(
        f"the store {path} is damaged: {what}. Put a copy of it back, or move it away together with "
        f"{path.name}-wal to begin with an empty one; clients are told that events are missing then"
    )
