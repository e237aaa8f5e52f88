"""The schema: the tables of the store, and the way to them from each earlier version."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Mapping
from itertools import islice

from pushd.store.sqlite.block import Damaged, parse

__all__ = [
    "APPLICATION_ID",
    "MIGRATIONS",
    "OFFSETS",
    "VERSION",
    "Newer",
    "NotAStore",
    "create",
    "migrate",
    "version_of",
]

APPLICATION_ID = 0x70757368
"""The application id in the file header: ``push``."""

VERSION = 2
"""The version that this pushd reads and writes."""

OFFSETS = 1 << 40
"""The number of offsets of a channel: a place is the key of the channel times this, plus the offset."""

_TABLES = f"""
CREATE TABLE log (
    only INTEGER PRIMARY KEY CHECK (only = 1),
    epoch TEXT NOT NULL,                   -- 10 characters; new when continuity was lost
    sequence INTEGER NOT NULL,             -- of the latest event
    given_up_sequence INTEGER NOT NULL,    -- the latest event of channels that are forgotten
    given_up_offset INTEGER NOT NULL,      -- the highest offset of channels that are forgotten
    began INTEGER NOT NULL,                -- the latest event before this epoch
    seal INTEGER NOT NULL,                 -- what the file pushd.seal says, or one more
    sealed INTEGER NOT NULL,               -- when the file pushd.seal was last changed, in seconds; 0: not known
    inode INTEGER NOT NULL,                -- of this file: another one is a copy
    boot TEXT NOT NULL,                    -- the kernel's id of the boot that wrote last
    is_safe INTEGER NOT NULL               -- 1: what was acknowledged is on the disk
) STRICT;
CREATE TABLE channel (
    key INTEGER PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    first INTEGER NOT NULL,                -- the offset of the oldest event that it keeps
    dropped INTEGER NOT NULL,              -- the sequence of the one before that
    bytes INTEGER NOT NULL,                -- how much all events took that came before the oldest
    "offset" INTEGER NOT NULL,             -- of its latest event, if there is no block that says so
    sequence INTEGER NOT NULL              -- of its latest event, likewise
) STRICT;
CREATE TABLE block (
    place INTEGER PRIMARY KEY,             -- key of the channel * {OFFSETS} + offset of the first event
    count INTEGER NOT NULL,                -- how many events
    first_sequence INTEGER NOT NULL,
    last_sequence INTEGER NOT NULL,
    bytes INTEGER NOT NULL,                -- how much all events of the channel took, up to the last of these
    given INTEGER NOT NULL,                -- how many have an id that their publisher gave
    checksum INTEGER NOT NULL,             -- CRC-32 of the events
    events BLOB NOT NULL                   -- see pushd/store/sqlite/block.py
) STRICT;
"""

_GIVEN = """
CREATE TABLE given (
    id TEXT NOT NULL,                      -- that the publisher gave
    channel TEXT NOT NULL,                 -- the name of one of its channels
    other INTEGER NOT NULL,                -- 0: the channel that was named first, 1: another one
    "offset" INTEGER NOT NULL,             -- of the event in this channel
    sequence INTEGER NOT NULL,
    fingerprint BLOB,                      -- of what was sent, 8 bytes; NULL: unknown, or not the first channel
    PRIMARY KEY (id, channel, other, "offset")
) STRICT, WITHOUT ROWID;
"""

_ROWS_PER_CALL = 1000
"""How many rows a migration holds in memory."""


def _give_each_channel_its_ids(connection: sqlite3.Connection) -> None:
    """Migrate from version 1: its ids are shared by all channels, and its blocks have the names of all channels.

    Blocks stay as they are; readers skip the names. The fingerprints of old events are unknown, so publishing
    anything with the id of such an event counts as a repetition.
    """
    connection.execute("DROP TABLE given")
    connection.execute(_GIVEN)
    rows = _given_rows(connection)
    while some := list(islice(rows, _ROWS_PER_CALL)):
        connection.executemany("INSERT OR REPLACE INTO given VALUES (?, ?, ?, ?, ?, NULL)", some)


def _given_rows(connection: sqlite3.Connection) -> Iterator[tuple[str, str, int, int, int]]:
    blocks = connection.execute(
        f"SELECT c.name, b.place % {OFFSETS}, b.events FROM block b JOIN channel c ON c.key = b.place / {OFFSETS} "
        "WHERE b.given > 0 ORDER BY b.place"
    )
    for name, offset, block in blocks:
        try:
            for place, (sequence, _, _, _, event_id, names, _, _) in enumerate(parse(block), offset):
                if event_id is not None:
                    is_other = names is not None and not f"{names}\0".startswith(f"{name}\0")
                    yield event_id, name, int(is_other), place, sequence
        except (Damaged, TypeError):
            continue  # reading the block reports it


MIGRATIONS: Mapping[int, Callable[[sqlite3.Connection], None]] = {1: _give_each_channel_its_ids}
"""The migration from each version to the next."""


class NotAStore(Exception):
    """The file is a database of another application."""


class Newer(Exception):
    """The file has a later version, given as the argument."""


def version_of(connection: sqlite3.Connection) -> int:
    """Return the version of a store, 0 if the file is empty; raise `NotAStore` or `Newer`."""
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    (tables,) = connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()
    if tables == 0 and version == 0:
        return 0
    if application != APPLICATION_ID:
        raise NotAStore
    if version > VERSION:
        raise Newer(version)
    found: int = version
    return found


def create(connection: sqlite3.Connection) -> None:
    """Create the tables."""
    connection.executescript(
        f"BEGIN IMMEDIATE; {_TABLES} {_GIVEN}"
        f"PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = {VERSION}; COMMIT"
    )


def migrate(
    connection: sqlite3.Connection,
    version: int,
    migrations: Mapping[int, Callable[[sqlite3.Connection], None]] = MIGRATIONS,
    to: int = VERSION,
) -> None:
    """Migrate a store from `version` to version `to`, each step in its own transaction."""
    for step in range(version, to):
        connection.execute("BEGIN IMMEDIATE")
        try:
            migrations[step](connection)
            connection.execute(f"PRAGMA user_version = {step + 1}")
            connection.execute("COMMIT")
        except BaseException:
            connection.execute("ROLLBACK")
            raise
