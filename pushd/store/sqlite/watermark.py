"""The mark: a summary of what the store has acknowledged, in a separate file, to detect lost transactions.

SQLite ends the recovery of a write-ahead log silently at the first wrong frame: all later frames are lost, and the
store looks as if less had been published. The mark holds the summary that the store must have. It is written before
and after each transaction, without waiting for the disk, so it survives the process as the transaction does. After
a reboot it may be older than the store, and is a lower bound.

The summary has the state of the log, and the sum of the checksums of all channel rows and channel ends, so that
a transaction updates it incrementally.
"""

from __future__ import annotations

import os
from mmap import mmap
from pathlib import Path
from struct import Struct, error
from typing import NamedTuple
from zlib import crc32

from pushd.store.sqlite.continuity import boot_id

__all__ = [
    "SUMMARY_MASK",
    "Mark",
    "MarkFile",
    "Summary",
    "contribution",
    "end_sum",
    "log_sum",
    "row_sum",
    "why_not",
    "with_end",
]

_FILE_NAME = "pushd.mark"
_MAGIC = b"pushd m1"
_HEAD = Struct("<8s36s?Q")
_BODY = Struct("<QIQQIQ")
_CHECKSUM = Struct("<I")
_SLOT_BYTES = 128

SUMMARY_MASK = (1 << 64) - 1
"""Contributions are added up modulo 2**64."""


class Summary(NamedTuple):
    """The summary of the content of a store."""

    sequence: int
    """The sequence of the latest event."""

    log: int
    """The checksum of the state of the log."""

    channels: int
    """The contributions of all channels, added up modulo 2**64."""

    def after(self, sequence: int, log: int, change: int) -> Summary:
        """Return the summary after a transaction that changes the channels by `change`."""
        return Summary(sequence, log, (self.channels + change) & SUMMARY_MASK)


def log_sum(epoch: str, *numbers: int) -> int:
    """Return the checksum of the state of the log."""
    return crc32(b"%d %d %d %d" % numbers, crc32(f"{epoch}".encode()))


def row_sum(key: int, name: str, *numbers: int) -> int:
    """Return the checksum of the row of a channel: five numbers after its key and name."""
    return crc32(b"%d %d %d %d %d %d" % (key, *numbers), crc32(name.encode()))


def end_sum(key: int, offset: int, sequence: int, through: int) -> int:
    """Return the checksum of the end of a channel: its last `offset` and the `through` bytes of all its events."""
    return crc32(b"%d %d %d %d" % (key, offset, sequence, through))


def contribution(row: int, end: int) -> int:
    """Return the contribution of a channel to the summary."""
    return row << 32 | end


def with_end(mark: int, end: int) -> int:
    """Return the contribution `mark` with another end of the channel."""
    return (mark >> 32) << 32 | end


class Mark(NamedTuple):
    """The content of the file."""

    number: int
    """The serial number of the mark."""

    before: Summary
    """The summary before the latest transaction."""

    after: Summary
    """The summary after it; the same as `before` once the transaction has ended."""

    boot: str
    """The id of the boot in which the mark was written."""

    is_closed: bool
    """True if everything, and the mark itself, is on the disk."""


class MarkFile:
    """The file of the mark, open for writing.

    It is mapped into memory, as SQLite maps its index of the log: two system calls would make a transaction a fifth
    slower. Its two slots are written alternately: if the process is killed while writing one, the other has the
    previous mark.
    """

    def __init__(self, directory: Path) -> None:
        """Open or create the file."""
        number = os.open(directory / _FILE_NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            content = os.pread(number, 2 * _SLOT_BYTES, 0)
            marks = [mark for at in (0, _SLOT_BYTES) if (mark := _read(content[at : at + _SLOT_BYTES])) is not None]
            self.found = max(marks, default=None)
            """The mark found in the file, None if the file is new or damaged."""
            os.pwrite(number, content.ljust(2 * _SLOT_BYTES, b"\0"), 0)  # reserves room on the disk
            os.fsync(number)
            self._map = mmap(number, 2 * _SLOT_BYTES)
        finally:
            os.close(number)
        self._number = 0 if self.found is None else self.found.number
        self._boot = boot_id().encode("ascii")[:36]

    def write(self, before: Summary, after: Summary, *, is_closed: bool = False) -> None:
        """Write a mark that accepts a store with the summary `before` or `after`."""
        self._number = number = self._number + 1
        content = _HEAD.pack(_MAGIC, self._boot, is_closed, number) + _BODY.pack(*before, *after)
        content += _CHECKSUM.pack(crc32(content))
        at = number % 2 * _SLOT_BYTES
        self._map[at : at + len(content)] = content

    def settle(self) -> None:
        """Wait until the mark is on the disk; raise `OSError` if that fails."""
        self._map.flush()

    def close(self) -> None:
        """Close the file."""
        self._map.close()


def _read(slot: bytes) -> Mark | None:
    try:
        magic, boot, is_closed, number = _HEAD.unpack_from(slot)
        numbers = _BODY.unpack_from(slot, _HEAD.size)
        end = _HEAD.size + _BODY.size
        (checksum,) = _CHECKSUM.unpack_from(slot, end)
    except error:
        return None
    if magic != _MAGIC or checksum != crc32(slot[:end]):
        return None
    found = boot.rstrip(b"\0").decode("ascii", "replace")
    return Mark(number, Summary(*numbers[:3]), Summary(*numbers[3:]), found, is_closed)


def why_not(mark: Mark | None, found: Summary, directory: Path) -> str | None:
    """Return why a store with the summary `found` lacks acknowledged data; None if it is complete."""
    if mark is None:
        return f"{directory / _FILE_NAME} is missing or damaged"
    if found in (mark.before, mark.after):
        return None
    boot = boot_id()
    if not mark.is_closed and (mark.boot != boot or not boot) and found.sequence >= mark.before.sequence:
        return None  # after a crash the store may be on the disk, and its mark not
    if found.sequence < mark.before.sequence:
        return f"it ends at event {found.sequence} of the log, and {mark.before.sequence} were acknowledged"
    return "its channels are not as they were acknowledged"
