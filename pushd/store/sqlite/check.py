"""The check of a store: reads all of it without changes, even while a daemon has it open."""

from __future__ import annotations

import re
import sqlite3
from contextlib import closing
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from zlib import crc32

from pushd.bus import FINGERPRINT_BYTES, Event, sequence_in, size_in
from pushd.errors import StartFailed
from pushd.store.sqlite.block import Damaged, decode
from pushd.store.sqlite.database import FILE_NAME, connect, damaged, found_version, start_failure
from pushd.store.sqlite.schema import OFFSETS, VERSION

__all__ = ["Checked", "check"]

_MAX_DAMAGES = 100
"""The most damages reported."""

_EPOCH = re.compile(r"[0-9a-z]{10}")


@dataclass(slots=True)
class Checked:
    """The result of checking a store."""

    path: Path
    """The file of the store."""

    channels: int = 0
    """The number of channels."""

    events: int = 0
    """The number of events that the channels keep."""

    size_bytes: int = 0
    """The size of the data of these events, in bytes."""

    damages: list[str] = field(default_factory=list)
    """The damages, one line each, up to a limit."""

    @property
    def summary(self) -> str:
        """The line that reports an undamaged store to the operator."""
        counts = f"channels: {self.channels}, events: {self.events}, bytes: {self.size_bytes}"
        return f"the store {self.path} is fine: {counts}"

    def damage(self, line: str) -> None:
        """Record a damage; raise `_TooMany` at the limit."""
        self.damages.append(line)
        if len(self.damages) >= _MAX_DAMAGES:
            raise _TooMany


class _TooMany(Exception):
    """The store has more damages than are reported."""


@dataclass(frozen=True, slots=True)
class _Channel:
    key: int
    name: str
    first: int
    last: int
    sequence: int


def check(directory: Path) -> Checked | None:
    """Check the whole store in `directory`; return None if there is no store.

    Raise `StartFailed` with the reason if the store cannot be read at all.
    """
    path = directory / FILE_NAME
    if not path.exists():
        return None
    try:
        if not _has_log(path):  # no process has it open: SQLite need not create files beside it
            checked = _check(path, is_immutable=True)
            if not _has_log(path):
                return checked
        return _check(path, is_immutable=False)
    except sqlite3.OperationalError as error:
        if (getattr(error, "sqlite_errorcode", 0) & 0xFF) in (sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY):
            raise StartFailed(
                f"the store {path} cannot be checked: {error}. What was written last is in {path.name}-wal, and to "
                "read that SQLite has to write beside it: check it as a user who can, or check a copy of both files"
            ) from error
        raise start_failure(error, path) from error
    except sqlite3.Error as error:
        raise start_failure(error, path) from error
    except ValueError as error:  # an SQLite message not in UTF-8
        raise damaged(path, "it has values that cannot be") from error


def _has_log(path: Path) -> bool:
    """Return whether there is a write-ahead log: the daemon is running, or was killed."""
    return path.with_name(f"{path.name}-wal").exists()


def _check(path: Path, *, is_immutable: bool) -> Checked:
    checked = Checked(path)
    with closing(connect(path, is_readable_only=True, is_immutable=is_immutable)) as connection:
        connection.execute("BEGIN")  # read a single snapshot
        version = found_version(connection, path)
        if version == 0:
            return checked
        if version != VERSION:
            raise StartFailed(
                f"the store {path} is of version {version}, and {VERSION} can be checked; start pushd with it first"
            )
        try:
            for (line,) in connection.execute(f"PRAGMA integrity_check({_MAX_DAMAGES})"):
                if line != "ok":
                    checked.damage(" ".join(line.split()))
            _Check(connection, checked).run()
        except _TooMany:
            checked.damages.append("and there is more")
        except sqlite3.OperationalError as error:
            if not checked.damages and "UTF-8" not in str(error):
                raise
            checked.damages.append(f"it cannot be read on: {' '.join(str(error).split())}")
        except (sqlite3.DatabaseError, TypeError, ValueError, OverflowError) as error:  # values that cannot be
            checked.damages.append(f"it cannot be read on: {' '.join(str(error).split())}")
    return checked


class _Check:
    """The checks that SQLite's own integrity check does not cover."""

    def __init__(self, connection: sqlite3.Connection, checked: Checked) -> None:
        self._connection = connection
        self._checked = checked
        self._damage = checked.damage
        self._sequence = 0
        self._found: dict[
            tuple[str, str, int], int
        ] = {}  # sequence by given id, channel and offset, of events in blocks

    def run(self) -> None:
        """Check all tables."""
        execute = self._connection.execute
        logs = execute("SELECT epoch, sequence, given_up_sequence FROM log").fetchall()
        if logs:
            epoch, self._sequence, given_up = logs[0]
            if not _EPOCH.fullmatch(epoch):
                self._damage(f"the epoch of the log is {epoch!r}")
            if given_up > self._sequence:
                self._damage(f"the log is at {self._sequence}, and forgotten channels had events up to {given_up}")
        for row in execute('SELECT key, name, first, "offset", sequence FROM channel ORDER BY key'):
            self._channel(_Channel(*row))
        if not logs and self._checked.channels:
            self._damage("the log is missing")
        for (key,) in execute(
            f"SELECT DISTINCT place / {OFFSETS} FROM block WHERE place / {OFFSETS} NOT IN (SELECT key FROM channel)"
        ):
            self._damage(f"there are events of a channel that is not there, with the key {key}")
        for row in execute('SELECT id, channel, "offset", sequence, fingerprint FROM given'):
            self._given(*row)

    def _channel(self, channel: _Channel) -> None:
        """Check the row of a channel and its blocks."""
        self._checked.channels += 1
        where = f"channel {channel.name!r}"
        if channel.sequence > self._sequence:
            self._damage(f"{where} is at {channel.sequence} of the log, which ends at {self._sequence}")
        following = channel.first
        latest, through = 0, None
        for place, count, first, last, total, given, checksum, block in self._connection.execute(
            "SELECT place, count, first_sequence, last_sequence, bytes, given, checksum, events FROM block "
            "WHERE place >= ? AND place < ? ORDER BY place",
            (channel.key * OFFSETS, (channel.key + 1) * OFFSETS),
        ):
            begin = place % OFFSETS
            what = f"events {begin} to {begin + count - 1} of {where}"
            is_kept = begin + count > channel.first  # else dropped and not removed yet
            if is_kept and begin > following:
                self._damage(f"events {following} to {begin - 1} of {where} are missing")
                through = None
            elif begin < following and is_kept and following > channel.first:
                self._damage(f"{what} are there twice")
            if first <= latest or last < first or last > self._sequence:
                self._damage(f"{what} are at {first} to {last} of the log, after {latest}, up to {self._sequence}")
            events = self._events(channel.name, what, checksum, block)
            if events is not None:
                self._block(what, events, (count, first, last, given))
                self._keep_ids(channel.name, begin, events)
                size = sum(size_in(event, channel.name) for event in events)
                if is_kept and through is not None and through + size != total:
                    self._damage(f"{what} take {size} bytes, not {total - through}")
                self._count(channel, max(begin, channel.first), events[max(0, channel.first - begin) :])
            latest = last
            if is_kept:
                following, through = begin + count, total
        if following <= channel.last:
            self._damage(f"events {following} to {channel.last} of {where} are missing")

    def _keep_ids(self, name: str, begin: int, events: list[Event]) -> None:
        """Record the given ids of `events`."""
        for offset, event in enumerate(events, begin):
            if sequence_in(event.id) is None:
                self._found[event.id, name, offset] = event.sequence

    def _count(self, channel: _Channel, begin: int, events: list[Event]) -> None:
        self._checked.events += len(events)
        self._checked.size_bytes += sum(len(event.data) for event in events)
        for offset, event in enumerate(events, begin):
            if sequence_in(event.id) is None and not self._is_given(event.id, channel.name, offset):
                self._damage(
                    f"the id {event.id!r} of the event at {event.sequence} of the log is not among the given"
                )

    def _is_given(self, event_id: str, name: str, offset: int) -> bool:
        find = 'SELECT 1 FROM given WHERE id = ? AND channel = ? AND other IN (0, 1) AND "offset" = ?'
        return self._connection.execute(find, (event_id, name, offset)).fetchone() is not None

    def _events(self, name: str, what: str, checksum: int, block: object) -> list[Event] | None:
        """Return the events of a block; record a damage and return None if they cannot be read."""
        if not isinstance(block, bytes):
            self._damage(f"{what} are damaged: they are not of the kind that was written")
            return None
        if crc32(block) != checksum:
            self._damage(f"{what} are damaged: their checksum is another")
            return None
        try:
            return list(decode(block, name))
        except Damaged as error:
            self._damage(f"{what} are damaged: {error}")
            return None

    def _block(self, what: str, events: list[Event], said: tuple[int, int, int, int]) -> None:
        """Check the events of a block against its row: number, first and last sequence, number of given ids."""
        sequences = [event.sequence for event in events]
        given = [event for event in events if sequence_in(event.id) is None]
        found = (len(events), *sequences[:1], *sequences[-1:], len(given))
        if found != said:
            self._damage(f"{what} are damaged: {_shown(found)} are there, and {_shown(said)} should be")
        if any(after <= before for before, after in pairwise(sequences)):
            self._damage(f"{what} are damaged: they are out of order")

    def _given(self, event_id: str, name: str, offset: int, sequence: int, fingerprint: object) -> None:
        """Check that a given id points to an event with that id."""
        if isinstance(fingerprint, bytes) and len(fingerprint) != FINGERPRINT_BYTES:
            self._damage(f"what was published with the id {event_id!r} cannot be read")
        if self._found.get((event_id, name, offset)) != sequence:
            self._damage(
                f"there is no event with the id {event_id!r} at {sequence} of the log, {offset} of channel {name!r}"
            )


def _shown(numbers: tuple[int, ...]) -> str:
    return " ".join(map(str, numbers))
